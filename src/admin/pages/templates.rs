//! What each page is filled with: the `view` structs that the interface for programs answers with as well, and what stands around
//! them.

use askama::Template;

use super::{
    filters,
    needs::{EndsOn, Needs},
};
use crate::{view, window::audit::AuditRow};

/// What stands around every page.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    /// `data-page`.
    pub(super) page: &'static str,
    /// Of the browser's window.
    pub(super) title: String,
    /// The machine's name.
    pub(super) hostname: String,
    /// Who has logged in.
    pub(super) who: String,
    /// His role.
    pub(super) role: &'static str,
    /// He may act on mail.
    pub(super) is_operator: bool,
    /// He may change who may send, and sees the audit.
    pub(super) is_admin: bool,
    /// It is a session that can be ended from here.
    pub(super) is_session: bool,
    /// What was refused, and why.
    pub(super) alert: Option<String>,
    /// What was done.
    pub(super) notice: Option<String>,
}

/// An entry of the rail.
#[derive(Debug, Clone, Copy)]
pub(super) struct RailPlace {
    /// Behind `g`.
    pub(super) key: &'static str,
    /// `data-page`.
    pub(super) page: &'static str,
    /// Where it leads.
    pub(super) href: &'static str,
    /// What it is called.
    pub(super) name: &'static str,
    /// Only admins see it.
    pub(super) is_for_admins: bool,
}

const fn place(
    key: &'static str,
    page: &'static str,
    href: &'static str,
    name: &'static str,
) -> RailPlace {
    RailPlace {
        key,
        page,
        href,
        name,
        is_for_admins: false,
    }
}

/// The rail, in its order.
const RAIL: &[RailPlace] = &[
    place("o", "overview", "/", "Overview"),
    place("m", "messages", "/messages", "Messages"),
    place("c", "connectors", "/connectors", "Connectors"),
    place("d", "devices", "/devices", "Devices"),
    place("t", "try", "/try", "Try a route"),
    place("f", "config", "/config", "Configuration"),
    place("i", "incidents", "/incidents", "Incidents"),
    RailPlace {
        is_for_admins: true,
        ..place("a", "audit", "/audit", "Audit")
    },
];

impl Frame {
    /// What this role has.
    pub(super) fn rail(&self) -> impl Iterator<Item = &'static RailPlace> {
        let is_admin = self.is_admin;
        RAIL.iter()
            .filter(move |place| is_admin || !place.is_for_admins)
    }

    /// Whether the page belongs to this entry.
    pub(super) fn is_at(&self, place: &RailPlace) -> bool {
        let of = match self.page {
            "message" => "messages",
            "connector" | "connector-form" => "connectors",
            "proposal" => "config",
            "device" | "capture" | "refused" => "devices",
            "incident" => "incidents",
            page => page,
        };
        of == place.page
    }
}

#[derive(Debug, Template)]
#[template(path = "overview.html")]
pub(super) struct OverviewPage {
    pub(super) frame: Frame,
    pub(super) status: view::Status,
    /// Where the queue is that other gateways may share.
    pub(super) shared: Option<view::StoreView>,
    pub(super) ready: view::Readiness,
    pub(super) needs: Needs,
    pub(super) connectors: Vec<view::ConnectorView>,
    pub(super) endings: Vec<EndsOn>,
}

/// A filter as the form shows it.
#[derive(Debug, Clone, Default)]
pub(super) struct FilterForm {
    pub(super) state: Vec<String>,
    pub(super) route: String,
    pub(super) connector: String,
    pub(super) client: String,
    pub(super) quota: String,
    pub(super) sender: String,
    pub(super) recipient: String,
    pub(super) text: String,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) all: bool,
    /// As a query, `?` and all; empty: nothing is asked for.
    pub(super) query: String,
}

impl FilterForm {
    fn has(&self, state: &str) -> bool {
        self.state.iter().any(|one| one == state)
    }

    fn is_detailed(&self) -> bool {
        let rare = [
            &self.route,
            &self.connector,
            &self.client,
            &self.quota,
            &self.sender,
            &self.recipient,
            &self.since,
            &self.until,
        ];
        rare.iter().any(|text| !text.is_empty())
    }
}

#[derive(Debug, Template)]
#[template(path = "messages.html")]
pub(super) struct MessagesPage {
    pub(super) frame: Frame,
    pub(super) filters: FilterForm,
    pub(super) entries: Vec<view::ListedMessage>,
    pub(super) routes: Vec<String>,
    pub(super) connectors: Vec<String>,
    /// The list goes on: its query.
    pub(super) next: Option<String>,
    /// As the interface for programs says it.
    pub(super) cursor: String,
    /// It is only known until there.
    pub(super) searched_to: Option<String>,
}

impl MessagesPage {
    const STATES: [&'static str; 5] = ["waiting", "sending", "held", "failed", "done"];

    /// What the upstream said last, of whichever recipient.
    fn reply(entry: &view::EntryView) -> Option<&str> {
        entry
            .recipients
            .iter()
            .find_map(|recipient| recipient.last_reply.as_deref())
    }
}

/// Where a connector sends to.
pub(super) fn host(connector: &view::ConnectorView) -> Option<&str> {
    ["host", "service"]
        .into_iter()
        .find_map(|key| connector.settings.get(key)?.as_str())
}

/// A verb as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VerbText {
    /// As forms send it.
    pub(super) word: &'static str,
    /// On the button.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) does: &'static str,
    /// What is then said, behind the number.
    pub(super) done: &'static str,
    /// It cannot be taken back.
    pub(super) is_final: bool,
}

/// In the order of the buttons.
pub(super) const VERBS: [VerbText; 5] = [
    VerbText {
        word: "retry",
        name: "Retry",
        does: "They are tried now, and not at their next time.",
        done: "will be tried now",
        is_final: false,
    },
    VerbText {
        word: "hold",
        name: "Hold",
        does: "They stay in the queue and are not tried until somebody releases them.",
        done: "held",
        is_final: false,
    },
    VerbText {
        word: "release",
        name: "Release",
        does: "They are tried again.",
        done: "released",
        is_final: false,
    },
    VerbText {
        word: "fail",
        name: "Fail",
        does: "They are given up and kept as failed. Their senders are not told.",
        done: "given up",
        is_final: true,
    },
    VerbText {
        word: "drop",
        name: "Drop",
        does: "They are deleted. They reach nobody, and nobody is told.",
        done: "dropped",
        is_final: true,
    },
];

/// A question before many are changed, or for good.
#[derive(Debug, Template)]
#[template(path = "sure.html")]
pub(super) struct SurePage {
    pub(super) frame: Frame,
    pub(super) verb: VerbText,
    /// How many.
    pub(super) count: u64,
    /// The number has to be typed.
    pub(super) is_typed: bool,
    /// Where the form goes.
    pub(super) action: String,
    /// What it sends, beside the number.
    pub(super) fields: Vec<(&'static str, String)>,
    /// Which, in words.
    pub(super) which: String,
    /// Where one goes who does not want to.
    pub(super) back: String,
}

/// What explain says of a recipient now.
#[derive(Debug, Clone)]
pub(super) struct RouteNow {
    pub(super) recipient: String,
    /// Those that it has been put on.
    pub(super) route: String,
    pub(super) explained: Result<view::Explained, String>,
}

#[derive(Debug, Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage {
    pub(super) frame: Frame,
    pub(super) life: view::Life,
    pub(super) client: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) now: Option<RouteNow>,
    /// The link to it is there.
    pub(super) may_open: bool,
    /// Header and body, and whether there is more.
    pub(super) content: Option<(String, bool)>,
    pub(super) verbs: Vec<VerbText>,
}

#[derive(Debug, Template)]
#[template(path = "connectors.html")]
pub(super) struct ConnectorsPage {
    pub(super) frame: Frame,
    pub(super) connectors: Vec<view::ConnectorView>,
    /// There is a form for them.
    pub(super) may_change: bool,
}

#[derive(Debug, Template)]
#[template(path = "connector.html")]
pub(super) struct ConnectorPage {
    pub(super) frame: Frame,
    pub(super) connector: view::ConnectorView,
    /// Keys and values, flat.
    pub(super) settings: Vec<(String, String)>,
    /// There is a form for it.
    pub(super) may_change: bool,
    pub(super) to: String,
    pub(super) from: String,
    pub(super) tried: Option<view::Tried>,
}

#[derive(Debug, Template)]
#[template(path = "try.html")]
pub(super) struct TryPage {
    pub(super) frame: Frame,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) client: String,
    pub(super) user: String,
    pub(super) listener: String,
    pub(super) listeners: Vec<String>,
    pub(super) explained: Option<view::Explained>,
}

/// A line of the file.
#[derive(Debug, Clone)]
pub(super) struct FileLine {
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) problems: Vec<view::Problem>,
}

#[derive(Debug, Template)]
#[template(path = "config.html")]
pub(super) struct ConfigPage {
    pub(super) frame: Frame,
    pub(super) path: String,
    pub(super) sha256: Option<String>,
    pub(super) lines: Option<Vec<FileLine>>,
    pub(super) problems: Vec<view::Problem>,
    pub(super) reload: Option<view::Reload>,
    /// What the page may do to the file: `off`, `propose`, `write`.
    pub(super) write: String,
    /// Why it is not `write`, though the file says so.
    pub(super) read_only: Option<String>,
    /// The newest changes of it that were proposed.
    pub(super) proposals: Vec<view::ProposalView>,
}

#[derive(Debug, Template)]
#[template(path = "audit.html")]
pub(super) struct AuditPage {
    pub(super) frame: Frame,
    pub(super) since: String,
    pub(super) who: String,
    pub(super) action: String,
    pub(super) rows: Vec<AuditRow>,
    /// The query of the next part.
    pub(super) next: Option<String>,
    /// The query of the export.
    pub(super) export: String,
}

#[derive(Debug, Template)]
#[template(path = "login.html")]
pub(super) struct LoginPage {
    pub(super) frame: Frame,
    pub(super) next: String,
    pub(super) code: Option<String>,
    pub(super) name: String,
    /// There are users with a password.
    pub(super) has_users: bool,
}

#[derive(Debug, Template)]
#[template(path = "problem.html")]
pub(super) struct ProblemPage {
    pub(super) frame: Frame,
}

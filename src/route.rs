//! WHERE TO? The first route that matches decides which connectors take a recipient.
//!
//! Whether it may leave at all is said by `policy`. It knows connectors by name only and opens nothing.

use std::{fmt, sync::Arc, time::Duration};

use crate::mail::{address::Address, message::Message, pattern::Pattern, recipient::Recipient};

/// The name of a `[[route]]`; queued mail keeps it and is resolved anew at each attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

/// The name of a `[[connector]]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectorName(Arc<str>);

macro_rules! name {
    ($type:ident) => {
        impl $type {
            /// The name as configured.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name!(RouteName);
name!(ConnectorName);

/// What the name of the way of an archive's copies begins with; no name in the configuration has a blank.
const ARCHIVE: &str = "archive ";

impl RouteName {
    /// The way of the copies of the `[[archive]]` of this name.
    pub fn of_archive(name: &str) -> Self {
        Self(format!("{ARCHIVE}{name}").into())
    }

    /// The `[[archive]]` whose copies go that way; `None`: it is a `[[route]]`.
    pub fn archive(&self) -> Option<&str> {
        self.0.strip_prefix(ARCHIVE)
    }
}

/// What the name of a holder begins with.
pub const HOLDER: &str = "quota ";

/// A lane: the connector, the mailbox that sends, and a From other than it. What is limited, closed and paused. It prints and
/// parses itself as `connector`, `connector/mailbox` or `connector/mailbox/from`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// The connector.
    pub connector: ConnectorName,
    /// The mailbox, where the connector has several.
    pub mailbox: Option<Arc<str>>,
    /// The From, where it is not the mailbox.
    pub from: Option<Arc<str>>,
}

impl LaneId {
    /// Of a connector as a whole.
    pub fn of(connector: &ConnectorName) -> Self {
        Self {
            connector: connector.clone(),
            mailbox: None,
            from: None,
        }
    }

    /// Of the mailbox, whatever the From.
    #[must_use]
    pub fn of_mailbox(&self) -> Self {
        Self {
            from: None,
            ..self.clone()
        }
    }

    /// Where what a quota holds lies, and where it goes when it was held for too long; `holder`: `quota NAME`. No connector has a blank in
    /// its name, and so nobody sends from there.
    pub fn held_by(holder: &str) -> Self {
        Self::of(&ConnectorName::from(holder))
    }

    /// The quota that holds what lies there, as [`LaneId::held_by`] was given it.
    pub fn holder(&self) -> Option<&str> {
        let name = self.connector.as_str();
        name.starts_with(HOLDER).then_some(name)
    }

    /// From the way it displays.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let connector = parts.next().unwrap_or_default().into();
        let mut part = || {
            let part = parts.next()?;
            Some(part.replace("%2F", "/").replace("%25", "%").into())
        };
        Self {
            connector,
            mailbox: part(),
            from: part(),
        }
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.connector)?;
        for part in self.mailbox.iter().chain(&self.from) {
            // A local part may hold a slash.
            write!(f, "/{}", part.replace('%', "%25").replace('/', "%2F"))?;
        }
        Ok(())
    }
}

/// One `[[route]]`. `None` (an absent or empty list) matches anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Envelope senders after rewriting.
    pub senders: Option<Vec<Pattern>>,
    /// Recipients.
    pub recipients: Option<Vec<Pattern>>,
    /// Names of `[[client]]`.
    pub clients: Option<Vec<String>>,
    /// Names of `[[user]]`.
    pub users: Option<Vec<String>>,
    /// Names of `[[listener]]`.
    pub listeners: Option<Vec<String>>,
    /// In the order they are tried.
    pub connectors: Vec<ConnectorName>,
    /// Waits between attempts, the last one repeats; config fills in `[queue] retry`.
    pub retry: Vec<Duration>,
    /// From acceptance; config fills in `[queue] give_up`.
    pub give_up: Duration,
    /// Recipients of one job at most: the least of its connectors' `max_recipients`.
    pub max_recipients: usize,
    /// The largest message that any of its connectors takes, in octets; `None`: there is one without a limit.
    pub max_size: Option<u64>,
}

/// What a route looks at.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// After rewriting; `None` is `<>`.
    pub sender: Option<&'a Address>,
    /// One recipient.
    pub recipient: &'a Address,
    /// Name of the `[[client]]`.
    pub client: Option<&'a str>,
    /// Name of the `[[user]]`.
    pub user: Option<&'a str>,
    /// Name of the `[[listener]]`.
    pub listener: &'a str,
}

/// The routes in their order.
#[derive(Debug, Clone, Default)]
pub struct Router {
    /// First match wins.
    pub routes: Vec<Route>,
    /// The ways of the copies for archives ([`RouteName::of_archive`]), which no other mail goes.
    pub archives: Vec<Route>,
}

impl Router {
    /// The route for one recipient.
    pub fn route(&self, asked: Asked<'_>) -> Option<&Route> {
        self.routes.iter().find(|route| route.matches(asked))
    }

    /// By name.
    pub fn named(&self, name: &RouteName) -> Option<&Route> {
        self.all().find(|route| route.name == *name)
    }

    /// The routes, and the ways of copies.
    pub fn all(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().chain(&self.archives)
    }

    /// Recipients with their routes, made into jobs: one for each route, split at `max_recipients`.
    pub fn jobs(&self, routed: &[(Recipient, RouteName)]) -> Vec<(RouteName, Vec<Recipient>)> {
        let mut jobs: Vec<(RouteName, Vec<Recipient>)> = Vec::new();
        for (recipient, name) in routed {
            let most = self
                .named(name)
                .map_or(usize::MAX, |route| route.max_recipients.max(1));
            match jobs.iter_mut().rev().find(|(route, _)| route == name) {
                Some((_, recipients)) if recipients.len() < most => {
                    recipients.push(recipient.clone());
                }
                _ => jobs.push((name.clone(), vec![recipient.clone()])),
            }
        }
        jobs
    }
}

impl Route {
    /// A route of this name that leads nowhere.
    pub fn nowhere(name: RouteName) -> Self {
        Self {
            name,
            senders: None,
            recipients: None,
            clients: None,
            users: None,
            listeners: None,
            connectors: Vec::new(),
            retry: Vec::new(),
            give_up: Duration::ZERO,
            max_recipients: 1,
            max_size: None,
        }
    }

    fn matches(&self, asked: Asked<'_>) -> bool {
        fn named(names: Option<&Vec<String>>, name: Option<&str>) -> bool {
            names.is_none_or(|names| name.is_some_and(|name| names.iter().any(|n| n == name)))
        }
        fn listed(patterns: Option<&Vec<Pattern>>, address: Option<&Address>) -> bool {
            patterns.is_none_or(|patterns| patterns.iter().any(|p| p.matches(address)))
        }
        listed(self.senders.as_ref(), asked.sender)
            && listed(self.recipients.as_ref(), Some(asked.recipient))
            && named(self.clients.as_ref(), asked.client)
            && named(self.users.as_ref(), asked.user)
            && named(self.listeners.as_ref(), Some(asked.listener))
    }
}

/// A message with every recipient routed: what the queue accepts. The jobs cover the envelope's recipients exactly.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The message.
    pub message: Arc<Message>,
    /// One row of the queue each.
    pub jobs: Vec<(RouteName, Vec<Recipient>)>,
    /// Messages of their own that are written with it, or not at all: its copies for archives. None of them has any.
    pub copies: Vec<Routed>,
}

impl Routed {
    /// The message and its copies.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        let copies = self.copies.iter().map(|copy| &copy.message);
        std::iter::once(&self.message).chain(copies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn route(name: &str) -> Route {
        Route {
            max_recipients: 2,
            ..fixture::route(name, &["out"])
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of a route's list")]
    fn patterns(list: &[&str]) -> Option<Vec<Pattern>> {
        Some(fixture::patterns(&list.join(" ")))
    }

    fn router() -> Router {
        let names = |list: &[&str]| Some(list.iter().map(|&n| n.to_owned()).collect());
        Router {
            routes: vec![
                Route {
                    senders: patterns(&["billing@corp.com"]),
                    recipients: patterns(&["a.com"]),
                    ..route("both")
                },
                Route {
                    clients: names(&["printers"]),
                    ..route("client")
                },
                Route {
                    users: names(&["erp"]),
                    ..route("user")
                },
                Route {
                    listeners: names(&["tls"]),
                    ..route("listener")
                },
                Route {
                    senders: patterns(&["<>"]),
                    ..route("null")
                },
                Route {
                    recipients: patterns(&["*.b.com"]),
                    ..route("recipient")
                },
                Route {
                    senders: patterns(&["*"]),
                    recipients: patterns(&["c.com"]),
                    ..route("any")
                },
            ],
            archives: vec![Route::nowhere(RouteName::of_archive("any"))],
        }
    }

    /// sender, recipient, client, user, listener
    fn check(asked: (&str, &str, &str, &str, &str), expected: Option<&str>) {
        let router = router();
        let (sender, recipient, client, user, listener) = asked;
        let sender = (sender != "<>").then(|| Address::parse(sender).unwrap());
        let recipient = Address::parse(recipient).unwrap();
        let found = router.route(Asked {
            sender: sender.as_ref(),
            recipient: &recipient,
            client: (!client.is_empty()).then_some(client),
            user: (!user.is_empty()).then_some(user),
            listener,
        });
        assert_eq!(found.map(|r| r.name.as_str()), expected, "{asked:?}");
    }

    #[test]
    fn first_match_wins() {
        for (asked, expected) in [
            (
                ("billing@corp.com", "x@a.com", "printers", "erp", "tls"),
                Some("both"),
            ),
            (
                ("billing@corp.com", "x@c.com", "printers", "erp", "tls"),
                Some("client"),
            ),
            (("x@corp.com", "x@c.com", "lan", "erp", "tls"), Some("user")),
            (("x@corp.com", "x@c.com", "", "", "tls"), Some("listener")),
            (("<>", "x@c.com", "", "", "local"), Some("null")),
            (
                ("x@corp.com", "x@sub.b.com", "", "", "local"),
                Some("recipient"),
            ),
            (("x@corp.com", "x@c.com", "", "", "local"), Some("any")),
            (("x@corp.com", "x@b.com", "", "", "local"), None),
            (("x@corp.com", "v%c.com@evil.tld", "", "", "local"), None),
        ] {
            check(asked, expected);
        }
    }

    #[test]
    fn jobs_cover_the_envelope() {
        let router = router();
        let to = |n: usize, route: &str| {
            (
                Recipient::from(Address::parse(&format!("r{n}@c.com")).unwrap()),
                RouteName::from(route),
            )
        };
        let routed = [
            to(1, "any"),
            to(2, "user"),
            to(3, "any"),
            to(4, "any"),
            to(5, "user"),
            to(6, "gone"),
            to(7, "gone"),
            to(8, "gone"),
        ];
        let jobs = router.jobs(&routed);
        let seen: Vec<String> = jobs
            .iter()
            .map(|(route, to)| {
                let locals: Vec<_> = to.iter().map(|r| r.address.local()).collect();
                format!("{route}: {}", locals.join(" "))
            })
            .collect();
        assert_eq!(
            seen,
            ["any: r1 r3", "user: r2 r5", "any: r4", "gone: r6 r7 r8"]
        );
        assert!(router.jobs(&[]).is_empty());
        assert!(router.named(&"any".into()).is_some() && router.named(&"gone".into()).is_none());
    }

    #[test]
    fn lanes_print_and_parse() {
        for (mailbox, from, expected) in [
            (None, None, "up"),
            (Some("a@b.c"), None, "up/a@b.c"),
            (Some("a@b.c"), Some("d@e.f"), "up/a@b.c/d@e.f"),
            (
                Some("a/b%2F@c"),
                Some("%/%25"),
                "up/a%2Fb%252F@c/%25%2F%2525",
            ),
        ] {
            let lane = LaneId {
                connector: "up".into(),
                mailbox: mailbox.map(Arc::from),
                from: from.map(Arc::from),
            };
            assert_eq!(lane.to_string(), expected);
            assert_eq!(LaneId::parse(expected), lane);
        }
    }
}

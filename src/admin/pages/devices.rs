//! The pages `/devices` and `/devices/ADDRESS`: who connects, what was forgiven and refused, who is learned and taken in.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    http::StatusCode,
    response::Response,
};
use form_urlencoded::Serializer;

use super::{
    filters,
    shell::{done, shown, shown_with},
    templates::Frame,
};
use crate::{
    admin::{
        api::{
            captures::{CaptureRequest, capture},
            devices::{AdoptRequest, one, part, take_in},
            learning::{LearnRequest, learn, state, stop},
            part::Named,
        },
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::ApiError,
        settings::{Role, WriteConfig},
    },
    listener::{captures::CaptureSummary, learning::LearningView},
    window::devices::DeviceRow,
};

/// Candidates that are shown at once.
const CANDIDATES: usize = 100;
/// How long it may be learned, and what is captured.
const LENGTHS: [(&str, &str); 5] = [
    ("30m", "30 minutes"),
    ("1h", "1 hour"),
    ("2h", "2 hours"),
    ("4h", "4 hours"),
    ("8h", "8 hours"),
];
const CAPTURED: [(&str, &str); 3] = [
    ("15m", "15 minutes"),
    ("30m", "30 minutes"),
    ("1h", "1 hour"),
];

#[derive(Debug, Template)]
#[template(path = "devices.html")]
struct DevicesPage {
    frame: Frame,
    /// The filter.
    client: String,
    refused: String,
    devices: Vec<DeviceRow>,
    /// The query of the next part.
    next: Option<String>,
    learning: Option<LearningView>,
    candidates: Vec<DeviceRow>,
    /// Candidates that are not shown.
    more: usize,
    may_adopt: bool,
    captures: Vec<CaptureSummary>,
    /// As they were typed.
    typed: Typed,
}

impl DevicesPage {
    /// Then they come first.
    fn has_candidates(&self) -> bool {
        self.learning.is_some() || !self.candidates.is_empty()
    }
}

/// What stood in a form that was refused.
#[derive(Debug, Clone, Default)]
struct Typed {
    networks: String,
    length: String,
    external: bool,
    name: String,
    ticked: Vec<String>,
}

impl Typed {
    /// Whether this length was, or is where none was.
    fn chose(&self, length: &str, usual: &str) -> bool {
        let is_none = self.length.is_empty();
        length == if is_none { usual } else { &self.length }
    }
}

#[derive(Debug, Template)]
#[template(path = "device.html")]
struct DevicePage {
    frame: Frame,
    device: DeviceRow,
    may_adopt: bool,
    /// One address, and not a network of them.
    is_host: bool,
    captures: Vec<CaptureSummary>,
    /// What the `[[client]]` is to be called.
    name: String,
    typed: Typed,
}

/// Whether whoever looks may have devices taken in.
pub(super) fn may_adopt(app: &App, caller: &Caller) -> bool {
    caller.role >= Role::Admin && app.settings().write_config != WriteConfig::Off
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["client", "refused", "cursor", "done"])?;
    let frame = Frame::of(&app, &caller, "devices", "Devices").noticing(&params);
    match page(&app, &caller, frame.clone(), &params) {
        Ok(page) => Ok(shown(&page)),
        Err(refusal) if refusal.status == 400 => {
            refused(&app, &caller, frame, &refusal, Typed::default())
        }
        Err(refusal) => Err(refusal),
    }
}

fn page(
    app: &App,
    caller: &Caller,
    frame: Frame,
    params: &Params,
) -> Result<DevicesPage, ApiError> {
    let list = part(app, params)?;
    let learned = state(app);
    let listeners = app.host.listeners();
    let candidates = learned.candidates.iter().take(CANDIDATES);
    let given = |key: &str| params.get(key).unwrap_or_default().to_owned();
    let next = list.next.map(|next| {
        let mut query = Serializer::for_suffix("?".to_owned(), 1);
        for key in ["client", "refused"] {
            if let Some(value) = params.get(key) {
                query.append_pair(key, value);
            }
        }
        query.append_pair("cursor", &next).finish()
    });
    Ok(DevicesPage {
        client: given("client"),
        refused: given("refused"),
        devices: list.items,
        next,
        learning: learned.learning,
        candidates: candidates
            .filter_map(|address| listeners.devices.one(address))
            .collect(),
        more: learned.candidates.len().saturating_sub(CANDIDATES),
        may_adopt: may_adopt(app, caller),
        captures: if frame.is_operator {
            listeners.captures.list()
        } else {
            Vec::new()
        },
        typed: Typed::default(),
        frame,
    })
}

fn refused(
    app: &App,
    caller: &Caller,
    frame: Frame,
    refusal: &ApiError,
    typed: Typed,
) -> Result<Response, ApiError> {
    let frame = Frame {
        alert: Some(refusal.said()),
        ..frame
    };
    let page = page(app, caller, frame, &Params::default())?;
    Ok(shown_with(refusal, &DevicesPage { typed, ..page }))
}

/// Learning begins or ends.
pub(super) async fn act_on_all(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "learn", "");
    let form = Params::form(request).await?;
    let given = |key: &str| form.get(key).unwrap_or_default().to_owned();
    let (refusal, typed) = match form.get("do") {
        Some("learn") => {
            let typed = Typed {
                networks: given("networks"),
                length: given("for"),
                external: form.get("external").is_some(),
                ..Typed::default()
            };
            let networks = typed
                .networks
                .split([' ', ',', ';'])
                .filter(|network| !network.is_empty());
            let wanted = LearnRequest {
                networks: networks.map(str::to_owned).collect(),
                length: typed.length.clone(),
                external: typed.external,
            };
            match learn(&app, &wanted, row).await {
                Ok(_) => return Ok(done("/devices", "learn", 1)),
                Err(refusal) => (refusal, typed),
            }
        }
        Some("stop") => match stop(&app, row).await {
            Ok(_) => return Ok(done("/devices", "unlearn", 1)),
            Err(refusal) => (refusal, Typed::default()),
        },
        _ => return Err(ApiError::bad("`do` takes learn or stop")),
    };
    let frame = Frame::of(&app, &caller, "devices", "Devices");
    refused(&app, &caller, frame, &refusal, typed)
}

/// Proposes a `[[client]]` for those that are ticked, or for the one whose page it is.
pub(super) async fn adopt(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "propose", "");
    let form = Params::form(request).await?;
    let wanted = AdoptRequest {
        addresses: form.all("address").map(str::to_owned).collect(),
        name: form.get("name").unwrap_or_default().trim().to_owned(),
    };
    let adopted = if wanted.addresses.is_empty() {
        Err(ApiError::bad("No device is ticked: tick those to adopt."))
    } else if wanted.name.is_empty() {
        Err(ApiError::bad("The client needs a name."))
    } else {
        take_in(&app, &wanted, row).await
    };
    let refusal = match adopted {
        Ok(kept) => return Ok(done(&format!("/proposals/{}", kept.id), "proposed", 1)),
        Err(refusal) => refusal,
    };
    if form.get("page") == Some("device")
        && let [address] = wanted.addresses.as_slice()
    {
        let page = one_page(&app, &caller, address)?;
        return Ok(alerted(
            &refusal,
            DevicePage {
                name: wanted.name,
                ..page
            },
        ));
    }
    let typed = Typed {
        name: wanted.name,
        ticked: wanted.addresses,
        ..Typed::default()
    };
    let frame = Frame::of(&app, &caller, "devices", "Devices");
    refused(&app, &caller, frame, &refusal, typed)
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(address): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    let page = one_page(&app, &caller, &address)?;
    Ok(shown(&DevicePage {
        frame: page.frame.noticing(&params),
        ..page
    }))
}

fn one_page(app: &App, caller: &Caller, address: &str) -> Result<DevicePage, ApiError> {
    let device = one(app, address)?;
    let captures = app.host.listeners().captures.list().into_iter();
    Ok(DevicePage {
        frame: Frame::of(app, caller, "device", format!("Device {}", device.address)),
        may_adopt: may_adopt(app, caller) && device.client.is_none(),
        is_host: !device.address.contains('/'),
        captures: captures
            .filter(|capture| capture.address == device.address)
            .collect(),
        name: suggested(&device),
        typed: Typed::default(),
        device,
    })
}

fn alerted(refusal: &ApiError, page: DevicePage) -> Response {
    let frame = Frame {
        alert: Some(refusal.said()),
        ..page.frame
    };
    shown_with(refusal, &DevicePage { frame, ..page })
}

/// What a client for this device may be called: as it greets, or else as its address.
fn suggested(device: &DeviceRow) -> String {
    let session = device.last_session.as_ref();
    let helo = session.and_then(|session| session.helo.as_deref());
    let label = helo.unwrap_or_default().split('.').next();
    let label = label.unwrap_or_default().to_ascii_lowercase();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = label.starts_with(|c: char| c.is_ascii_lowercase())
        && label.len() <= 40
        && label.chars().all(is_plain)
        && label != "localhost";
    if is_name {
        return label;
    }
    let digits = device
        .address
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!("device-{}", digits.trim_matches('-'))
}

/// Begins to write down what it says.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(address): Named,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "capture", "");
    let form = Params::form(request).await?;
    if form.get("do") != Some("capture") {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "`do` takes capture"));
    }
    let wanted = CaptureRequest {
        address: address.clone(),
        length: form.get("for").unwrap_or("15m").to_owned(),
    };
    match capture(&app, &wanted, row).await {
        Ok(begun) => Ok(done(&format!("/captures/{}", begun.id), "capture", 1)),
        Err(refusal) => {
            let page = one_page(&app, &caller, &address)?;
            let typed = Typed {
                length: wanted.length,
                ..Typed::default()
            };
            Ok(alerted(&refusal, DevicePage { typed, ..page }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::window::devices::DeviceSession;

    #[test]
    fn a_client_is_called_as_it_greets_if_that_is_a_name() {
        let device = |address: &str, helo: Option<&str>| DeviceRow {
            address: address.to_owned(),
            client: None,
            first_seen: SystemTime::UNIX_EPOCH,
            last_seen: SystemTime::UNIX_EPOCH,
            accepted: 0,
            refused: 1,
            senders: Vec::new(),
            last_session: helo.map(|helo| DeviceSession {
                at: String::new(),
                tls: None,
                helo: Some(helo.to_owned()),
                user: None,
                tolerances: Vec::new(),
                last_reply: None,
            }),
            refusals: Vec::new(),
            candidate: false,
            needs: Vec::new(),
            last_mail: None,
            old_tls: None,
            names: Vec::new(),
        };
        for (address, helo, expected) in [
            ("10.0.0.5", Some("Copier-2.corp.example"), "copier-2"),
            ("10.0.0.5", None, "device-10-0-0-5"),
            ("10.0.0.5", Some("[10.0.0.5]"), "device-10-0-0-5"),
            ("10.0.0.5", Some("<script>"), "device-10-0-0-5"),
            ("10.0.0.5", Some("localhost"), "device-10-0-0-5"),
            ("2001:db8::/64", Some(""), "device-2001-db8---64"),
        ] {
            assert_eq!(suggested(&device(address, helo)), expected);
        }
    }
}

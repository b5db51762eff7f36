//! `/messages/ID`: its life, why it goes where it goes, and what can be done with it.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    http::StatusCode,
    response::Response,
};

use super::{
    shell::shown,
    templates::{Frame, MessagePage, RouteNow, VERBS, VerbText},
    verbs::{Wish, carry_out},
};
use crate::{
    admin::{
        api::{
            messages::{life, open, read_id, subject},
            part::Named,
        },
        app::App,
        caller::Caller,
        gate::row,
        host::ExplainQuery,
        params::Params,
        problem::ApiError,
        settings::{Role, ShownContent},
    },
    queue::{eml::Eml, store::Filter},
    view,
    window::audit::AuditRow,
};

/// So much of header and body is shown.
const SHOWN: usize = 256 << 10;

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    let page = page(&app, &caller, &id).await?;
    Ok(shown(&MessagePage {
        frame: page.frame.noticing(&params),
        ..page
    }))
}

async fn page(app: &App, caller: &Caller, id: &str) -> Result<MessagePage, ApiError> {
    let life = life(app, read_id(id)?).await?;
    let frame = Frame::of(app, caller, "message", format!("Message {}", life.id));
    let origin = origin(&life);
    let is_kept = life.entries.iter().any(|entry| entry.state != "done");
    Ok(MessagePage {
        client: origin.as_ref().map(|(client, _)| client.ip().to_string()),
        subject: subject(app, caller, read_id(id)?).await?,
        now: now(app, &life, origin),
        may_open: is_kept
            && caller.role >= Role::Admin
            && app.settings().content == ShownContent::All,
        verbs: if caller.role >= Role::Operator {
            verbs(&life)
        } else {
            Vec::new()
        },
        frame,
        life,
        content: None,
    })
}

/// Where it came from, and by which listener: as its first event says it.
fn origin(life: &view::Life) -> Option<(SocketAddr, String)> {
    let first = life
        .events
        .first()
        .filter(|event| event.event == "accepted")?;
    let (client, listener) = first
        .text
        .strip_prefix("from ")?
        .split_once(" by listener ")?;
    let listener = listener.split_whitespace().next().unwrap_or_default();
    Some((client.parse().ok()?, listener.to_owned()))
}

/// What explain says of its first recipient.
fn now(app: &App, life: &view::Life, origin: Option<(SocketAddr, String)>) -> Option<RouteNow> {
    let entry = life.entries.first()?;
    let recipient = entry.recipients.first()?.address.clone();
    let (client, listener) = origin.unzip();
    let explained = app.host.explain(&ExplainQuery {
        from: life.sender.clone(),
        to: recipient.clone(),
        client: client.map(|client| client.ip()),
        user: None,
        listener,
    });
    Some(RouteNow {
        recipient,
        route: entry.route.clone(),
        explained,
    })
}

/// Those that would do something.
fn verbs(life: &view::Life) -> Vec<VerbText> {
    let has = |states: &[&str]| {
        life.entries
            .iter()
            .any(|entry| states.contains(&entry.state))
    };
    let fits = |verb: &VerbText| match verb.word {
        "retry" => has(&["waiting", "failed"]),
        "hold" | "fail" => {
            has(&["waiting", "sending", "held"])
                && (verb.word == "fail" || has(&["waiting", "sending"]))
        }
        "release" => has(&["held"]),
        _ => has(&["waiting", "held", "failed", "sending"]),
    };
    VERBS.into_iter().filter(fits).collect()
}

/// A verb, or a look at its content.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "content", "shown");
    let form = Params::form(request).await?;
    match form.get("do") {
        Some("content") if caller.role >= Role::Admin => {
            let eml = open(&app, read_id(&id)?, row).await?;
            let content = beginning(eml).await?;
            Ok(shown(&MessagePage {
                content: Some(content),
                ..page(&app, &caller, &id).await?
            }))
        }
        Some("content") => {
            let refused = AuditRow {
                action: "role".to_owned(),
                result: "refused: the role is not enough".to_owned(),
                ..row
            };
            app.audit.refuse(refused).await;
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "the content of mail is for admins",
            ))
        }
        _ => {
            let id = read_id(&id)?;
            let wish = Wish {
                filter: Filter::of(id),
                which: format!("message {id}"),
                page: "message",
                path: format!("/messages/{id}"),
                fields: Vec::new(),
            };
            carry_out(&app, &caller, row, &form, wish).await
        }
    }
}

/// As text, and whether there is more.
async fn beginning(mut eml: Eml) -> Result<(String, bool), ApiError> {
    let mut octets = Vec::new();
    let fault = |error: std::io::Error| {
        let detail = format!("it cannot be read: {error}");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    };
    while octets.len() <= SHOWN {
        match eml.next().await.map_err(fault)? {
            Some(piece) => octets.extend_from_slice(&piece),
            None => break,
        }
    }
    let is_more = octets.len() > SHOWN;
    octets.truncate(SHOWN);
    let text = String::from_utf8_lossy(&octets).replace("\r\n", "\n");
    Ok((text, is_more))
}

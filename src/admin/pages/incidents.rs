//! The pages `/incidents` and `/incidents/ID`: what needs somebody or needed, what to do, who was told and whether that works.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    response::Response,
};

use super::{
    filters::{self, connector_path, path_part},
    shell::{done, shown, shown_with},
    templates::Frame,
};
use crate::{
    admin::{
        api::{
            incidents::{one, part, take_on, try_channel},
            part::Named,
        },
        app::App,
        caller::Caller,
        gate::row,
        params::Params,
        problem::ApiError,
    },
    route::RouteName,
    view,
    window::audit::AuditRow,
};

#[derive(Debug, Template)]
#[template(path = "incidents.html")]
struct IncidentsPage {
    frame: Frame,
    /// The filter.
    state: String,
    incidents: Vec<view::IncidentView>,
    /// The query of the next part.
    next: Option<String>,
    channels: Vec<view::ChannelView>,
    tried: Option<view::ChannelTest>,
}

impl IncidentsPage {
    const STATES: [&'static str; 3] = ["open", "acknowledged", "recovered"];
}

#[derive(Debug, Template)]
#[template(path = "incident.html")]
struct IncidentPage {
    frame: Frame,
    incident: view::IncidentView,
    /// What it is about, and where that is.
    about: Option<(String, String)>,
    /// Names of channels that there are.
    channels: Vec<String>,
    tried: Option<view::ChannelTest>,
    /// As it was typed.
    note: String,
}

impl IncidentPage {
    fn is_over(&self) -> bool {
        self.incident.state == "recovered"
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["state", "cursor", "done"])?;
    let frame = Frame::of(&app, &caller, "incidents", "Incidents").noticing(&params);
    match page(&app, frame.clone(), &params).await {
        Ok(page) => Ok(shown(&page)),
        Err(refusal) if refusal.status == 400 => refused(&app, frame, &refusal).await,
        Err(refusal) => Err(refusal),
    }
}

async fn refused(app: &App, frame: Frame, refusal: &ApiError) -> Result<Response, ApiError> {
    let frame = Frame {
        alert: Some(refusal.detail.clone()),
        ..frame
    };
    Ok(shown_with(
        refusal,
        &page(app, frame, &Params::default()).await?,
    ))
}

async fn page(app: &App, frame: Frame, params: &Params) -> Result<IncidentsPage, ApiError> {
    let list = part(app, params).await?;
    let state = params.get("state").unwrap_or_default().to_owned();
    let next = list.next.map(|next| {
        let mut query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
        if !state.is_empty() {
            query.append_pair("state", &state);
        }
        query.append_pair("cursor", &next).finish()
    });
    Ok(IncidentsPage {
        frame,
        state,
        incidents: list.items,
        next,
        channels: app.host.channels(),
        tried: None,
    })
}

/// Tells a channel something that means nothing.
pub(super) async fn act_on_all(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "test", "");
    let form = Params::form(request).await?;
    if form.get("do") != Some("test") {
        return Err(ApiError::bad("`do` takes test"));
    }
    let channel = form.get("channel").unwrap_or_default();
    let frame = Frame::of(&app, &caller, "incidents", "Incidents");
    match try_channel(&app, channel, row).await {
        Ok(tried) => Ok(shown(&IncidentsPage {
            tried: Some(tried),
            ..page(&app, frame, &Params::default()).await?
        })),
        Err(refusal) => refused(&app, frame, &refusal).await,
    }
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done"])?;
    let page = one_page(&app, &caller, &id).await?;
    Ok(shown(&IncidentPage {
        frame: page.frame.noticing(&params),
        ..page
    }))
}

async fn one_page(app: &App, caller: &Caller, id: &str) -> Result<IncidentPage, ApiError> {
    let incident = one(app, id).await?;
    let channels = app.host.channels().into_iter();
    Ok(IncidentPage {
        frame: Frame::of(app, caller, "incident", incident.title.clone()),
        about: about(&incident),
        incident,
        channels: channels.map(|channel| channel.name).collect(),
        tried: None,
        note: String::new(),
    })
}

/// What an incident is about, in words, and where that is.
fn about(incident: &view::IncidentView) -> Option<(String, String)> {
    let object = incident.object.as_str();
    if object.is_empty() {
        let reload = ("the configuration".to_owned(), "/config".to_owned());
        return (incident.kind == "reload_refused").then_some(reload);
    }
    let (connector, _) = object.split_once('/').unwrap_or((object, ""));
    Some(match incident.kind.as_str() {
        "connector_paused" | "mailbox_refused" | "connector_closed" | "connector_stopped"
        | "credential_expires" | "rotation_failed" | "token_failing" => {
            (format!("connector {connector}"), connector_path(connector))
        }
        "queue_old" | "mail_in_doubt" => (
            format!("mail of the route {object}"),
            format!("/messages?state=waiting&route={}", path_part(object)),
        ),
        "mail_failed" => (
            format!("failed mail of the route {object}"),
            format!("/messages?state=failed&route={}", path_part(object)),
        ),
        "archive" => (
            format!("failed copies for the archive {object}"),
            format!(
                "/messages?state=failed&route={}",
                path_part(RouteName::of_archive(object).as_str())
            ),
        ),
        "login_attack" => (
            format!("device {object}"),
            format!("/devices/{}", path_part(object)),
        ),
        "client_silent" => (
            format!("devices of the client {object}"),
            format!("/devices?client={}", path_part(object)),
        ),
        _ => return None,
    })
}

/// Acknowledges it, or tests a channel.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    request: Request,
) -> Result<Response, ApiError> {
    let row = row(&caller, &request, "acknowledge", "ok");
    let form = Params::form(request).await?;
    let note = form.get("note").map(str::to_owned);
    let refusal = match form.get("do") {
        Some("acknowledge") => match take_on(&app, &id, note.clone(), row).await {
            Ok(incident) => {
                let path = format!("/incidents/{}", incident.id);
                return Ok(done(&path, "acknowledge", 1));
            }
            Err(refusal) => refusal,
        },
        Some("test") => {
            let row = AuditRow {
                action: "test".to_owned(),
                result: String::new(),
                ..row
            };
            let channel = form.get("channel").unwrap_or_default();
            match try_channel(&app, channel, row).await {
                Ok(tried) => {
                    return Ok(shown(&IncidentPage {
                        tried: Some(tried),
                        ..one_page(&app, &caller, &id).await?
                    }));
                }
                Err(refusal) => refusal,
            }
        }
        _ => return Err(ApiError::bad("`do` takes acknowledge or test")),
    };
    let page = one_page(&app, &caller, &id).await?;
    Ok(shown_with(
        &refusal,
        &IncidentPage {
            frame: Frame {
                alert: Some(refusal.detail.clone()),
                ..page.frame
            },
            note: note.unwrap_or_default(),
            ..page
        },
    ))
}

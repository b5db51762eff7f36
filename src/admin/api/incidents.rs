//! `/incidents`: what needs somebody, who was told, and that somebody looks after it; and whether a channel reaches anybody.

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    connectors::NoKeys,
    part::{ListPart, Named, TheApp},
};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::{self, Params},
        problem::{ApiError, ProblemDetails},
    },
    incident::{
        book::{ACKNOWLEDGED, OPEN, RECOVERED},
        shown,
    },
    mail::text::shown_to,
    view::{ChannelTest, IncidentView},
    window::{audit::AuditRow, incidents},
};

/// The longest note, in octets.
const NOTE: usize = 2_000;

/// What needs somebody, or needed, newest first: `postern incident list --json`.
#[utoipa::path(get, path = "/api/v1/incidents", tag = "incidents",
    params(
        ("state" = Option<String>, Query, description = "open, acknowledged or recovered"),
        ("limit" = Option<usize>, Query, description = "At most so many, up to 500"),
        ("cursor" = Option<String>, Query, description = "`next` of the part before"),
    ),
    responses(
        (status = 200, body = ListPart<IncidentView>),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<IncidentView>>, ApiError> {
    let params = Params::of(query.as_deref(), &["state", "limit", "cursor"])?;
    part(&app, &params).await.map(Json)
}

/// One part of the list.
pub(in crate::admin) async fn part(
    app: &App,
    params: &Params,
) -> Result<ListPart<IncidentView>, ApiError> {
    let state = params.get("state").map(str::to_owned);
    let is_state = |word: &String| [OPEN, ACKNOWLEDGED, RECOVERED].contains(&word.as_str());
    if let Some(wrong) = state.as_ref().filter(|word| !is_state(word)) {
        return Err(ApiError::bad(format!(
            "`state` takes open, acknowledged or recovered, not {:?}",
            shown_to(wrong, 100)
        )));
    }
    let limit = params.limit()?;
    let before = params.get("cursor").map(|cursor| {
        let number = cursor.parse::<i64>().ok();
        number.ok_or_else(|| ApiError::bad("`cursor` takes what `next` of the part before was"))
    });
    let before = before.transpose()?;
    let listed = app.window.read(move |tx| {
        let mut rows = incidents::list(tx, state.as_deref(), before, limit + 1)?;
        let is_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows
            .last()
            .filter(|_| is_more)
            .map(|row| row.id.to_string());
        let mut items = Vec::new();
        for row in rows {
            items.push(shown::view(&row, &incidents::told(tx, row.id)?));
        }
        Ok(ListPart { items, next })
    });
    Ok(listed.await?)
}

/// Those that nobody looks after, newest first.
pub(in crate::admin) async fn open(app: &App, most: usize) -> Result<Vec<IncidentView>, ApiError> {
    of_state(app, OPEN, most).await
}

/// Those that somebody looks after, newest first.
pub(in crate::admin) async fn looked_after(
    app: &App,
    most: usize,
) -> Result<Vec<IncidentView>, ApiError> {
    of_state(app, ACKNOWLEDGED, most).await
}

async fn of_state(
    app: &App,
    state: &'static str,
    most: usize,
) -> Result<Vec<IncidentView>, ApiError> {
    let rows = app
        .window
        .run(move |tx| incidents::list(tx, Some(state), None, most))
        .await?;
    Ok(rows.iter().map(|row| shown::view(row, &[])).collect())
}

/// One incident.
#[utoipa::path(get, path = "/api/v1/incidents/{id}", tag = "incidents",
    params(("id" = String, Path, description = "Such as i42")),
    responses(
        (status = 200, body = IncidentView),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Json<IncidentView>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    one(&app, &id).await.map(Json)
}

/// The incident of that id.
pub(in crate::admin) async fn one(app: &App, id: &str) -> Result<IncidentView, ApiError> {
    let number = shown::number(id).ok_or_else(|| no_incident(id))?;
    let found = app.window.read(move |tx| {
        let Some(row) = incidents::one(tx, number)? else {
            return Ok(None);
        };
        Ok(Some(shown::view(&row, &incidents::told(tx, number)?)))
    });
    found.await?.ok_or_else(|| no_incident(id))
}

fn no_incident(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no incident {:?}", shown_to(id, 100)))
}

/// What is said of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Acknowledgement {
    /// Who looks after it, and how.
    #[serde(default)]
    pub(in crate::admin) note: Option<String>,
}

/// Somebody looks after it: nobody is reminded any more.
#[utoipa::path(post, path = "/api/v1/incidents/{id}/ack", tag = "incidents",
    params(("id" = String, Path, description = "Such as i42")),
    request_body = Acknowledgement,
    responses(
        (status = 200, body = IncidentView),
        (status = 409, description = "It is over", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn acknowledge(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    request: Request,
) -> Result<Json<IncidentView>, ApiError> {
    let row = row(&caller, &request, "acknowledge", "ok");
    let said: Acknowledgement = params::json(request).await?;
    take_on(&app, &id, said.note, row).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn take_on(
    app: &App,
    id: &str,
    note: Option<String>,
    row: AuditRow,
) -> Result<IncidentView, ApiError> {
    let number = shown::number(id).ok_or_else(|| no_incident(id))?;
    let note = note.filter(|note| !note.trim().is_empty());
    if note.as_ref().is_some_and(|note| note.len() > NOTE) {
        return Err(ApiError::bad(format!("`note` takes at most {NOTE} octets")));
    }
    app.audit.ready().await?;
    let done = app
        .window
        .run(move |tx| incidents::acknowledge(tx, number, note.as_deref()));
    let done = done.await?;
    let result = match done {
        Some(true) => "ok",
        Some(false) => "it is over",
        None => "no such incident",
    };
    app.audit
        .write(AuditRow {
            object: format!("incident {}", shown::id(number)),
            result: result.to_owned(),
            ..row
        })
        .await?;
    match done {
        Some(true) => {
            let incident = one(app, id).await?;
            let data = serde_json::to_value(&incident).unwrap_or_default();
            app.feed.tell("incident", &incident.id, data);
            Ok(incident)
        }
        Some(false) => Err(ApiError::coded(
            StatusCode::CONFLICT,
            "recovered",
            "it is over: there is nothing to look after",
        )),
        None => Err(no_incident(id)),
    }
}

/// Tells a channel something that means nothing, now. 200 whatever came of it.
#[utoipa::path(post, path = "/api/v1/notify/{name}/test", tag = "incidents",
    params(("name" = String, Path, description = "Of the [[notify]]")),
    responses(
        (status = 200, body = ChannelTest),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn test_channel(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    request: Request,
) -> Result<Json<ChannelTest>, ApiError> {
    let row = row(&caller, &request, "test", "");
    params::json::<NoKeys>(request).await?;
    try_channel(&app, &name, row).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn try_channel(
    app: &App,
    name: &str,
    row: AuditRow,
) -> Result<ChannelTest, ApiError> {
    app.guard.trial()?;
    app.audit.ready().await?;
    let tried = app.host.test_channel(name).await;
    let result = tried.as_ref().map(|tried| tried.result.clone());
    app.audit
        .write(AuditRow {
            object: format!("notify {}", shown_to(name, 100)),
            result: result.unwrap_or_else(|| "no such channel".to_owned()),
            ..row
        })
        .await?;
    tried.ok_or_else(|| {
        ApiError::not_found(format!(
            "there is no channel named {:?}",
            shown_to(name, 100)
        ))
    })
}

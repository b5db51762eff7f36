//! `/learning`: for a time the unknown devices of private networks are served, to see who there is.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::part::TheApp;
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::{self, Params, length},
        problem::{ApiError, ProblemDetails},
    },
    listener::learning::{LearningView, bounded},
    window::audit::AuditRow,
};

/// Whether it is learned who there is, and who was found.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct LearningState {
    /// Null: it is not on.
    pub(in crate::admin) learning: Option<LearningView>,
    /// Addresses in no `[[client]]` that have delivered while it was on.
    pub(in crate::admin) candidates: Vec<String>,
}

/// Where, and for how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct LearnRequest {
    /// Private ones, /16 (/48) at most.
    pub(in crate::admin) networks: Vec<String>,
    /// `2h`; 8 h at most.
    #[serde(rename = "for", default = "two_hours")]
    pub(in crate::admin) length: String,
    /// To every recipient that the lists admit, and not to the domains of `allowlist.senders` alone.
    #[serde(default)]
    pub(in crate::admin) external: bool,
}

fn two_hours() -> String {
    "2h".to_owned()
}

/// What is on, and who was found.
#[utoipa::path(get, path = "/api/v1/learning", tag = "devices",
    responses(
        (status = 200, body = LearningState),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<LearningState>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    Ok(Json(state(&app)))
}

/// What is on, and who was found.
pub(in crate::admin) fn state(app: &App) -> LearningState {
    let listeners = app.host.listeners();
    LearningState {
        learning: listeners.learning.view(),
        candidates: listeners.devices.candidates(),
    }
}

/// Begins.
#[utoipa::path(post, path = "/api/v1/learning", tag = "devices",
    request_body = LearnRequest,
    responses(
        (status = 200, body = LearningState),
        (status = 422, description = "No private network, too wide or for too long: `bounds`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn begin(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<LearningState>, ApiError> {
    let row = row(&caller, &request, "learn", "");
    let wanted: LearnRequest = params::json(request).await?;
    learn(&app, &wanted, row).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn learn(
    app: &App,
    wanted: &LearnRequest,
    row: AuditRow,
) -> Result<LearningState, ApiError> {
    let length: Duration = length("for", &wanted.length)?;
    let networks = bounded(&wanted.networks, length).map_err(bounds)?;
    app.audit.ready().await?;
    let named: Vec<String> = networks.iter().map(ToString::to_string).collect();
    let begun = app
        .host
        .listeners()
        .learning
        .begin(networks, length, wanted.external);
    let external = if wanted.external { ", external" } else { "" };
    app.audit
        .write(AuditRow {
            object: named.join(", "),
            after: Some(format!("until {}{external}", begun.until)),
            result: "ok".to_owned(),
            ..row
        })
        .await?;
    Ok(state(app))
}

/// It is more than may be asked.
pub(super) fn bounds(why: String) -> ApiError {
    ApiError::coded(StatusCode::UNPROCESSABLE_ENTITY, "bounds", why)
}

/// Ends.
#[utoipa::path(delete, path = "/api/v1/learning", tag = "devices",
    responses(
        (status = 200, body = LearningState),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn end(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<LearningState>, ApiError> {
    Params::of(request.uri().query(), &[])?;
    let row = row(&caller, &request, "learn", "");
    stop(&app, row).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn stop(app: &App, row: AuditRow) -> Result<LearningState, ApiError> {
    app.audit.ready().await?;
    let was_on = app.host.listeners().learning.stop();
    app.audit
        .write(AuditRow {
            object: "off".to_owned(),
            result: if was_on { "ok" } else { "it was not on" }.to_owned(),
            ..row
        })
        .await?;
    Ok(state(app))
}

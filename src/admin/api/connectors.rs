//! `/connectors`: how they do, and whether one of them works when it is tried now.

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::part::{ListPart, Named, TheApp};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        host::NotTried,
        params::{self, Params},
        problem::{ApiError, ProblemDetails},
    },
    mail::text::shown_to,
    view,
    window::audit::AuditRow,
};

/// Every connector, in the order of the file.
#[utoipa::path(get, path = "/api/v1/connectors", tag = "connectors",
    responses(
        (status = 200, body = ListPart<view::ConnectorView>),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<view::ConnectorView>>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    let items = app.host.connectors().await?;
    Ok(Json(ListPart { items, next: None }))
}

/// One connector.
#[utoipa::path(get, path = "/api/v1/connectors/{name}", tag = "connectors",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = view::ConnectorView),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    Named(name): Named,
    RawQuery(query): RawQuery,
) -> Result<Json<view::ConnectorView>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    one(&app, &name).await.map(Json)
}

/// The connector of that name.
pub(in crate::admin) async fn one(app: &App, name: &str) -> Result<view::ConnectorView, ApiError> {
    let all = app.host.connectors().await?;
    let found = all
        .into_iter()
        .find(|connector| connector.lane.name == name);
    found.ok_or_else(|| no_connector(name))
}

pub(in crate::admin) fn no_connector(name: &str) -> ApiError {
    ApiError::not_found(format!(
        "there is no connector named {:?}",
        shown_to(name, 100)
    ))
}

/// What is tried.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct TryRequest {
    /// The recipient.
    pub(in crate::admin) to: String,
    /// The sender. Absent: the likeliest.
    #[serde(default)]
    pub(in crate::admin) from: Option<String>,
}

/// Sends one message by this connector now, and tells the conversation: `postern test --json`. 200 whatever came of it.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/test", tag = "connectors",
    params(("name" = String, Path, description = "Its name")),
    request_body = TryRequest,
    responses(
        (status = 200, body = view::Tried),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn test(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    request: Request,
) -> Result<Json<view::Tried>, ApiError> {
    let row = row(&caller, &request, "test", "");
    let wanted: TryRequest = params::json(request).await?;
    try_out(&app, &name, &wanted, row).await.map(Json)
}

/// The same for a page.
pub(in crate::admin) async fn try_out(
    app: &App,
    name: &str,
    wanted: &TryRequest,
    row: AuditRow,
) -> Result<view::Tried, ApiError> {
    app.guard.trial()?;
    app.audit.ready().await?;
    let tried = app
        .host
        .test(name, &wanted.to, wanted.from.as_deref())
        .await;
    let result = match &tried {
        Ok(tried) => tried.outcome.clone(),
        Err(NotTried::NoConnector) => "no such connector".to_owned(),
        Err(NotTried::Unfit(why)) => why.clone(),
    };
    let object = format!("connector {name}");
    app.audit
        .write(AuditRow {
            object,
            result,
            ..row
        })
        .await?;
    tried.map_err(|why| match why {
        NotTried::NoConnector => no_connector(name),
        NotTried::Unfit(why) => ApiError::coded(
            axum::http::StatusCode::UNPROCESSABLE_ENTITY,
            "not_tried",
            why,
        ),
    })
}

/// Why one is stopped.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopRequest {
    /// Shown beside it.
    #[serde(default)]
    why: String,
}

/// Sends nothing by it until it is started again: mail takes the next connector of its route, or waits and is not given up.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/stop", tag = "connectors",
    params(("name" = String, Path, description = "Its name")),
    request_body = StopRequest,
    responses(
        (status = 200, body = view::ConnectorView),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn stop(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    request: Request,
) -> Result<Json<view::ConnectorView>, ApiError> {
    let row = row(&caller, &request, "stop", "");
    let wanted: StopRequest = params::json(request).await?;
    set_stopped(&app, &name, Some(&wanted.why), row)
        .await
        .map(Json)
}

/// Sends by it again.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/start", tag = "connectors",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = view::ConnectorView),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn start(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    request: Request,
) -> Result<Json<view::ConnectorView>, ApiError> {
    let row = row(&caller, &request, "start", "");
    let NoKeys {} = params::json(request).await?;
    set_stopped(&app, &name, None, row).await.map(Json)
}

/// A body without keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoKeys {}

/// Stops a connector, or starts it where there is no reason to stop it; and writes down that it was done.
pub(in crate::admin) async fn set_stopped(
    app: &App,
    name: &str,
    why: Option<&str>,
    row: AuditRow,
) -> Result<view::ConnectorView, ApiError> {
    app.audit.ready().await?;
    one(app, name).await?;
    let is_news = app.host.set_stopped(name, &row.who, why).await?;
    let result = match (is_news, why) {
        (true, _) => "ok",
        (false, Some(_)) => "it was stopped already",
        (false, None) => "it was not stopped",
    };
    app.audit
        .write(AuditRow {
            object: format!("connector {name}"),
            after: why.map(str::to_owned).filter(|why| !why.is_empty()),
            result: result.to_owned(),
            ..row
        })
        .await?;
    one(app, name).await
}

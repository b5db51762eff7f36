//! The gateway as a whole: how it is, whom it would take, and that it reads its file again.

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::StatusCode,
};
use serde_json::{Value, json};

use super::part::TheApp;
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        host::ExplainQuery,
        pages::needs::{Needs, SeenNow},
        params::Params,
        problem::{ApiError, ProblemDetails},
    },
    view,
    window::audit::AuditRow,
};

/// How the gateway is: what `postern status --json` prints.
#[utoipa::path(get, path = "/api/v1/status", tag = "gateway",
    responses(
        (status = 200, body = view::Status),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn status(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<view::Status>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    Ok(Json(app.host.status().await?))
}

/// What needs somebody, as the overview says it.
#[utoipa::path(get, path = "/api/v1/needs", tag = "gateway",
    responses(
        (status = 200, body = Needs),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn needs(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<Needs>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    Ok(Json(Needs::of(&SeenNow::of(&app).await?)))
}

/// Which rule admits or refuses a sender and a recipient, and which route the mail would take: `postern explain --json`.
#[utoipa::path(get, path = "/api/v1/explain", tag = "gateway",
    params(
        ("from" = String, Query, description = "The envelope sender; empty or <>: none"),
        ("to" = String, Query, description = "The recipient"),
        ("client" = Option<String>, Query, description = "Where the connection comes from"),
        ("user" = Option<String>, Query, description = "Logged in as this user"),
        ("listener" = Option<String>, Query, description = "Through this listener"),
    ),
    responses(
        (status = 200, body = view::Explained),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn explain(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<view::Explained>, ApiError> {
    let params = Params::of(
        query.as_deref(),
        &["from", "to", "client", "user", "listener"],
    )?;
    let asked = asked(&params)?;
    app.host.explain(&asked).map(Json).map_err(ApiError::bad)
}

/// The question, from a query or a form.
pub(in crate::admin) fn asked(params: &Params) -> Result<ExplainQuery, ApiError> {
    let needed = |key: &str| {
        let value = params.get(key).map(str::to_owned);
        value.ok_or_else(|| ApiError::bad(format!("`{key}` is missing")))
    };
    Ok(ExplainQuery {
        from: params.get("from").unwrap_or("<>").to_owned(),
        to: needed("to")?,
        client: params.parsed("client", "an IP address")?,
        user: params.get("user").map(str::to_owned),
        listener: params.get("listener").map(str::to_owned),
    })
}

/// Reads the configuration file again; a file with errors changes nothing.
#[utoipa::path(post, path = "/api/v1/reload", tag = "gateway",
    responses(
        (status = 200, description = "The file is in force", body = Value),
        (status = 422, description = "The old settings stay", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn reload(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let row = row(&caller, &request, "reload", "ok");
    crate::admin::params::json::<Nothing>(request).await?;
    read_again(&app, row).await?;
    Ok(Json(json!({ "reloaded": true })))
}

/// The same for a page.
pub(in crate::admin) async fn read_again(app: &App, row: AuditRow) -> Result<(), ApiError> {
    app.audit.ready().await?;
    let result = app.host.reload().await;
    let said = result
        .as_ref()
        .err()
        .cloned()
        .unwrap_or_else(|| "ok".to_owned());
    app.audit
        .write(AuditRow {
            action: "reload".to_owned(),
            result: said,
            ..row
        })
        .await?;
    result.map_err(|why| ApiError::coded(StatusCode::UNPROCESSABLE_ENTITY, "not_reloaded", why))
}

/// A body without keys.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The well-known services that a connector can name: `postern services --json`.
#[utoipa::path(get, path = "/api/v1/services", tag = "gateway",
    responses(
        (status = 200, body = Value),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn services(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    Ok(Json(app.host.services()))
}

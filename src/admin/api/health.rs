//! Whether it lives, whether it takes mail, and its figures.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::part::TheApp;
use crate::{
    admin::problem::{ApiError, ProblemDetails},
    view::{Readiness, Status},
};

/// What `/readyz` says, with all of `status`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HealthReport {
    #[serde(flatten)]
    ready: Readiness,
    /// `postern status --json`.
    status: Status,
}

/// 200 while the mail goes its way inside; asked by whoever would start it again.
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses(
        (status = 200, description = "`ok`", body = String, content_type = "text/plain"),
        (status = 503, description = "The mail stands still", body = String, content_type = "text/plain"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn livez(State(app): TheApp) -> Response {
    if app.host.is_alive() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the mail stands still\n").into_response()
    }
}

/// 200 while it takes mail, whatever its upstreams do: else an outage there would take every gateway out of its balancer.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, body = Readiness),
        (status = 503, description = "It takes no mail", body = Readiness),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn readyz(State(app): TheApp) -> Response {
    let ready = app.host.ready();
    let status = if ready.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(ready)).into_response()
}

/// The same with all of `status`.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses(
        (status = 200, body = HealthReport),
        (status = 503, description = "It takes no mail", content((HealthReport = "application/json"), (ProblemDetails = "application/problem+json"))),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn healthz(State(app): TheApp) -> Result<Response, ApiError> {
    let ready = app.host.ready();
    let status = if ready.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = HealthReport {
        ready,
        status: app.host.status().await?,
    };
    Ok((status, Json(body)).into_response())
}

/// For Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses(
        (status = 200, description = "Prometheus' text format 0.0.4", body = String, content_type = "text/plain"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn metrics(State(app): TheApp) -> Result<Response, ApiError> {
    let text = app.host.metrics().await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

//! Whether it lives, whether it takes mail, and its figures.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::part::TheApp;
use crate::admin::problem::ApiError;

/// 200 while the mail goes its way inside; asked by whoever would start it again.
pub(super) async fn livez(State(app): TheApp) -> Response {
    if app.host.is_alive() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the mail stands still\n").into_response()
    }
}

/// 200 while it takes mail, whatever its upstreams do: else an outage there would take every gateway out of its balancer.
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
pub(super) async fn healthz(State(app): TheApp) -> Result<Response, ApiError> {
    let ready = app.host.ready();
    let status = if ready.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut body = json!(ready);
    body["status"] = json!(app.host.status().await?);
    Ok((status, Json(body)).into_response())
}

/// For Prometheus.
pub(super) async fn metrics(State(app): TheApp) -> Result<Response, ApiError> {
    let text = app.host.metrics().await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

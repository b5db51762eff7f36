//! `/captures`: conversations with one client that somebody wants to see, as JSON and as text.

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    learning::bounds,
    part::{ListPart, Named, TheApp},
};
use crate::{
    admin::{
        app::App,
        caller::Caller,
        gate::row,
        params::{self, Params, length},
        problem::{ApiError, ProblemDetails},
    },
    listener::captures::{CaptureSummary, CaptureView, bounded},
    mail::text::shown_to,
    window::audit::AuditRow,
};

/// Whose conversations, and for how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct CaptureRequest {
    /// Of the client.
    pub(in crate::admin) address: String,
    /// `15m`; 1 h at most.
    #[serde(rename = "for", default = "a_quarter")]
    pub(in crate::admin) length: String,
}

fn a_quarter() -> String {
    "15m".to_owned()
}

/// A capture that has begun.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct CaptureBegun {
    /// `c1`.
    pub(in crate::admin) id: String,
}

/// Begins.
#[utoipa::path(post, path = "/api/v1/captures", tag = "devices",
    request_body = CaptureRequest,
    responses(
        (status = 201, body = CaptureBegun),
        (status = 422, description = "No address, or for too long: `bounds`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn begin(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, Json<CaptureBegun>), ApiError> {
    let row = row(&caller, &request, "capture", "");
    let wanted: CaptureRequest = params::json(request).await?;
    let begun = capture(&app, &wanted, row).await?;
    Ok((StatusCode::CREATED, Json(begun)))
}

/// The same for a page.
pub(in crate::admin) async fn capture(
    app: &App,
    wanted: &CaptureRequest,
    row: AuditRow,
) -> Result<CaptureBegun, ApiError> {
    let length = length("for", &wanted.length)?;
    let (address, length) = bounded(&wanted.address, length).map_err(bounds)?;
    app.audit.ready().await?;
    let id = app.host.listeners().captures.begin(address, length, false);
    app.audit
        .write(AuditRow {
            object: address.to_string(),
            after: Some(format!("for {}", wanted.length)),
            result: "ok".to_owned(),
            ..row
        })
        .await?;
    Ok(CaptureBegun { id })
}

/// Those that there are, the latest first.
#[utoipa::path(get, path = "/api/v1/captures", tag = "devices",
    responses(
        (status = 200, body = ListPart<CaptureSummary>),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<CaptureSummary>>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    let items = app.host.listeners().captures.list();
    Ok(Json(ListPart { items, next: None }))
}

/// One of them, also as text.
#[utoipa::path(get, path = "/api/v1/captures/{id}", tag = "devices",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, content((CaptureView = "application/json"), (String = "text/plain"))),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    Named(id): Named,
    request: Request,
) -> Result<Response, ApiError> {
    Params::of(request.uri().query(), &[])?;
    let found = one(&app, &id)?;
    let accept = request.headers().get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    if !accept.is_some_and(|accept| accept.trim_start().starts_with("text/plain")) {
        return Ok(Json(found).into_response());
    }
    let mut response = found.text().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

/// The capture of that id.
pub(in crate::admin) fn one(app: &App, id: &str) -> Result<CaptureView, ApiError> {
    let found = app.host.listeners().captures.show(id);
    found.ok_or_else(|| ApiError::not_found(format!("there is no capture {:?}", shown_to(id, 60))))
}

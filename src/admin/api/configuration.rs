//! `GET /config`: the file as it is now, with everything that must not be seen masked.

use axum::{
    Json,
    extract::{RawQuery, State},
};

use super::part::TheApp;
use crate::{
    admin::{
        params::Params,
        problem::{ApiError, ProblemDetails},
    },
    view,
};

/// The configuration file, its secrets masked.
#[utoipa::path(get, path = "/api/v1/config", tag = "configuration",
    responses(
        (status = 200, body = view::ConfigView),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(app): TheApp,
    RawQuery(query): RawQuery,
) -> Result<Json<view::ConfigView>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    Ok(Json(app.host.config().await))
}

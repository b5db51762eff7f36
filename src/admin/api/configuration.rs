//! `GET /config`: the file as it is now, with everything that must not be seen masked.

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
};

use super::part::TheApp;
use crate::{
    admin::{
        app::App,
        caller::Caller,
        params::Params,
        problem::{ApiError, ProblemDetails},
        settings::Role,
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
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<view::ConfigView>, ApiError> {
    Params::of(query.as_deref(), &[])?;
    Ok(Json(file(&app, &caller).await))
}

/// As this one may see it. Who cannot change the file has no use for its hash but to guess at what is masked.
pub(in crate::admin) async fn file(app: &App, caller: &Caller) -> view::ConfigView {
    let file = app.host.config().await;
    let sha256 = file.sha256.filter(|_| caller.role >= Role::Admin);
    view::ConfigView { sha256, ..file }
}

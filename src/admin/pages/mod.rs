//! What people see: HTML that works without script. A form goes to the URL of a page and leads back to one.
//!
//! `templates.rs` says what each page is filled with, `filters.rs` how values are written, `shell.rs` what is common to all,
//! `style.css` and `window.js` how it looks and what a script adds. What a role lacks is not on its pages.

use std::sync::Arc;

use axum::{
    Router,
    http::header,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};

use super::{api::part::Named, app::App, problem::ApiError};

mod arranged;
mod assets;
mod audit;
mod captures;
mod changing;
mod config;
mod connector_form;
mod connectors;
mod devices;
mod fields;
mod filters;
mod incidents;
mod login;
mod message;
mod messages;
pub(super) mod needs;
mod overview;
mod proposal;
mod refused;
mod route;
pub(super) mod shell;
mod templates;
mod verbs;

/// Every page.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::show).post(overview::act))
        .route("/messages", get(messages::show).post(messages::act))
        .route("/messages/{id}", get(message::show).post(message::act))
        .route("/connectors", get(connectors::list))
        .route(
            "/connectors/{name}",
            get(connectors::show).post(connectors::act),
        )
        .route("/devices", get(devices::list).post(devices::act_on_all))
        .route("/devices/adopt", post(devices::adopt))
        .route("/devices/{address}", get(devices::show).post(devices::act))
        .route("/refused", get(refused::show))
        .route("/captures/{id}", get(captures::show))
        .route(
            "/incidents",
            get(incidents::list).post(incidents::act_on_all),
        )
        .route("/incidents/{id}", get(incidents::show).post(incidents::act))
        .route(
            "/connectors/new",
            get(connector_form::choose).post(connector_form::add),
        )
        .route(
            "/connectors/{name}/edit",
            get(connector_form::edit).post(connector_form::change),
        )
        .route("/try", get(route::show))
        .route("/config", get(config::show).post(config::act))
        .route("/proposals/{id}", get(proposal::show).post(proposal::act))
        .route("/audit", get(audit::show))
        .route("/login", get(login::show).post(login::enter))
        .route("/logout", post(login::leave))
        .route("/assets/{name}", get(asset))
}

async fn asset(Named(name): Named) -> Result<Response, ApiError> {
    let asset =
        assets::named(&name).ok_or_else(|| ApiError::not_found("there is no such asset"))?;
    let headers = [
        (header::CONTENT_TYPE, asset.kind),
        // Another content has another name.
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.body).into_response())
}

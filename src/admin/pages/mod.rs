//! What people see: each page is HTML that works without script, by forms.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::{get, post},
};

use super::{
    app::App,
    caller::{Caller, Peer, RequestOrigin},
    entry::{Entrance, next},
    params::Params,
    problem::ApiError,
};
use crate::secret::Secret;

/// Every page.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/login", get(show_login).post(log_in))
        .route("/logout", post(log_out))
}

async fn show_login() -> Html<&'static str> {
    Html("<!doctype html><title>Postern</title>")
}

async fn log_in(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Extension(origin): Extension<RequestOrigin>,
    request: Request,
) -> Result<Response, ApiError> {
    let form = Params::form(request).await?;
    let entrance = Entrance {
        peer: &peer,
        origin: &origin,
    };
    let cookie = if let Some(code) = form.get("code") {
        entrance.by_code(&app, code).await?
    } else {
        let password = Secret::new(form.get("password").unwrap_or_default());
        let name = form.get("name").unwrap_or_default();
        entrance.by_password(&app, name, password).await?
    };
    Ok(leads(next(form.get("next")), cookie))
}

async fn log_out(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Extension(origin): Extension<RequestOrigin>,
    caller: Option<Extension<Caller>>,
) -> Result<Response, ApiError> {
    let entrance = Entrance {
        peer: &peer,
        origin: &origin,
    };
    let caller = caller.map(|Extension(caller)| caller);
    let cookie = entrance.leave(&app, caller.as_ref()).await?;
    Ok(leads("/login", cookie))
}

fn leads(to: &str, cookie: header::HeaderValue) -> Response {
    let mut response = Redirect::to(to).into_response();
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

//! The page `/login`, by a password or by a link of `postern admin login`; and `/logout`.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Redirect, Response},
};

use super::{
    shell::{shown, shown_with},
    templates::{Frame, LoginPage},
};
use crate::{
    admin::{
        app::App,
        caller::{Caller, Peer, RequestOrigin},
        entry::{Entrance, next},
        params::Params,
        problem::ApiError,
    },
    secret::Secret,
};

pub(super) async fn show(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["next", "code"])?;
    let page = page(&app, &params);
    Ok(shown(&page))
}

fn page(app: &App, params: &Params) -> LoginPage {
    LoginPage {
        frame: Frame::empty(app, "login", "Log in"),
        next: next(params.get("next")).to_owned(),
        code: params.get("code").map(str::to_owned),
        name: params.get("name").unwrap_or_default().to_owned(),
        has_users: !app.settings().users.is_empty(),
    }
}

pub(super) async fn enter(
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
    let entered = if let Some(code) = form.get("code") {
        entrance.by_code(&app, code).await
    } else {
        let password = Secret::new(form.get("password").unwrap_or_default());
        let name = form.get("name").unwrap_or_default();
        entrance.by_password(&app, name, password).await
    };
    match entered {
        Ok(cookie) => Ok(leads(next(form.get("next")), cookie)),
        Err(refusal) => {
            let page = page(&app, &form);
            let page = LoginPage {
                frame: Frame {
                    alert: Some(refusal.detail.clone()),
                    ..page.frame
                },
                // One that was refused is good for nothing.
                code: None,
                ..page
            };
            let mut response = shown_with(&refusal, &page);
            if let Some(seconds) = refusal.retry_after {
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Ok(response)
        }
    }
}

pub(super) async fn leave(
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

fn leads(to: &str, cookie: HeaderValue) -> Response {
    let mut response = Redirect::to(to).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

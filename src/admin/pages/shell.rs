//! What is common to all pages: what stands around them, how they are made, what a refusal is for a person.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{Html, IntoResponse as _, Redirect, Response},
};

use super::{
    changing,
    templates::{Frame, ProblemPage, VERBS},
};
use crate::admin::{
    app::App,
    caller::{Caller, Proof},
    params::Params,
    problem::ApiError,
    rights::is_for_programs,
    settings::Role,
};

impl Frame {
    /// Around a page of this caller.
    pub(super) fn of(
        app: &App,
        caller: &Caller,
        page: &'static str,
        title: impl Into<String>,
    ) -> Self {
        Self {
            who: caller.name.clone(),
            role: caller.role.as_str(),
            is_operator: caller.role >= Role::Operator,
            is_admin: caller.role >= Role::Admin,
            is_session: matches!(caller.proof, Proof::Session(_)),
            ..Self::empty(app, page, title)
        }
    }

    /// Around a page of nobody.
    pub(super) fn empty(app: &App, page: &'static str, title: impl Into<String>) -> Self {
        Self {
            page,
            title: title.into(),
            hostname: app.settings().hostname.clone(),
            ..Self::default()
        }
    }

    /// With what was done, as [`done`] has written it.
    pub(super) fn noticing(self, params: &Params) -> Self {
        Self {
            notice: params.get("done").and_then(noticed),
            ..self
        }
    }
}

/// A page.
pub(super) fn shown(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the page cannot be made: {error}"),
        )
        .into_response(),
    }
}

/// A page that says why it was refused.
pub(super) fn shown_with(refusal: &ApiError, page: &impl Template) -> Response {
    let mut response = shown(page);
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or_default();
    }
    response
}

/// A refusal is a page for a person; headers that go with it stay.
pub(in crate::admin) async fn dress(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let is_person = !is_for_programs(request.uri().path());
    let mut response = next.run(request).await;
    let extensions = response.extensions_mut();
    let caller = extensions.remove::<Caller>();
    let Some(refusal) = extensions.remove::<ApiError>().filter(|_| is_person) else {
        return response;
    };
    let heading = match refusal.status {
        404 => "There is nothing here",
        403 => "You may not do that",
        500.. => "That did not work",
        _ => "That was refused",
    };
    let frame = match caller {
        Some(caller) if caller.role >= Role::Viewer => Frame::of(&app, &caller, "problem", heading),
        _ => Frame::empty(&app, "problem", heading),
    };
    let page = ProblemPage {
        frame: Frame {
            alert: Some(refusal.detail.clone()),
            ..frame
        },
    };
    let mut dressed = shown_with(&refusal, &page);
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            dressed.headers_mut().insert(name, value.clone());
        }
    }
    dressed
}

/// Leads back to a page, which says what was done: its path, what, and with how many.
pub(super) fn done(path: &str, what: &str, count: u64) -> Response {
    let (path, part) = path.split_once('#').unwrap_or((path, ""));
    let sign = if path.contains('?') { '&' } else { '?' };
    let part = if part.is_empty() {
        String::new()
    } else {
        format!("#{part}")
    };
    Redirect::to(&format!("{path}{sign}done={what}-{count}{part}")).into_response()
}

/// What is said when something else than a verb was done.
const DONE: [(&str, &str); 5] = [
    (
        "reload",
        "The configuration was read again and is in force.",
    ),
    (
        "acknowledge",
        "It is looked after: nobody is reminded of it any more.",
    ),
    ("learn", "Learning is on."),
    ("unlearn", "Learning is off."),
    (
        "capture",
        "What it says from now on is written down. It stands here as soon as it connects.",
    ),
];

/// See [`done`]. Only what is known is said: anybody may write such a link.
fn noticed(text: &str) -> Option<String> {
    let (what, count) = text.split_once('-')?;
    let count: u64 = count.parse().ok()?;
    if let Some((_, said)) = DONE.iter().find(|(word, _)| *word == what) {
        return Some((*said).to_owned());
    }
    if let Some(said) = changing::noticed(what, count) {
        return Some(said);
    }
    let verb = VERBS.iter().find(|verb| verb.word == what)?;
    Some(match count {
        0 => format!("No message was there to {what}."),
        1 => format!("1 message {}.", verb.done),
        _ => format!("{count} messages {}.", verb.done),
    })
}

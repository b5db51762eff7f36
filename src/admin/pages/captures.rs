//! The page `/captures/ID`: what a device says and is told, as it comes.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse as _, Response},
};

use super::{filters, shell::shown, templates::Frame};
use crate::{
    admin::{
        api::{captures::one, part::Named},
        app::App,
        caller::Caller,
        params::Params,
        problem::ApiError,
    },
    listener::captures::{CaptureView, CapturedLine, CapturedSession, Speaker},
};

/// Sessions of a page, the latest ones,
const SESSIONS: usize = 10;
/// and lines of each, so that what a stranger says makes no page large. The text has all.
const LINES: usize = 100;

#[derive(Debug, Template)]
#[template(path = "capture.html")]
struct CapturePage {
    frame: Frame,
    capture: CaptureView,
}

impl CapturePage {
    /// The latest first.
    fn sessions(&self) -> impl Iterator<Item = &CapturedSession> {
        self.capture.sessions.iter().rev().take(SESSIONS)
    }

    fn lines(session: &CapturedSession) -> impl Iterator<Item = &CapturedLine> {
        session.lines.iter().take(LINES)
    }

    fn left_out(session: &CapturedSession) -> usize {
        session.lines.len().saturating_sub(LINES)
    }

    fn earlier(&self) -> usize {
        self.capture.sessions.len().saturating_sub(SESSIONS)
    }

    fn mark(line: &CapturedLine) -> &'static str {
        match line.from {
            Speaker::Client => "C",
            Speaker::Postern => "S",
            Speaker::Note => "#",
        }
    }
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::of(query.as_deref(), &["done", "export"])?;
    let capture = one(&app, &id)?;
    if params.get("export").is_some() {
        let name = format!("attachment; filename=\"{}.txt\"", capture.id);
        let headers = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CONTENT_DISPOSITION, name.as_str()),
        ];
        return Ok((headers, capture.text()).into_response());
    }
    let title = format!("Conversations with {}", capture.address);
    Ok(shown(&CapturePage {
        frame: Frame::of(&app, &caller, "capture", title).noticing(&params),
        capture,
    }))
}

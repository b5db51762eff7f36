//! `GET /events`: what changes, as it changes (server-sent events).
//!
//! At most four a second are told, those of one object as one; whoever comes back says what he heard last, and hears what came since,
//! or that he is to load anew.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{interval, sleep},
};

use super::{
    part::TheApp,
    pieces::{BodyPiece, GONE_AFTER, Pieces},
};
use crate::admin::{
    app::App,
    caller::{Caller, Proof},
    problem::{ApiError, ProblemDetails},
    sessions::WindowSessions,
    settings::Role,
};

/// Between two pieces.
const PACE: Duration = Duration::from_millis(250);
/// So often something is said, so that proxies do not think it dead.
const ALIVE: Duration = Duration::from_secs(15);
/// So often it is asked whether the login still holds.
const ASKED: Duration = Duration::from_secs(1);

/// An event as it is read from the stream.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "for the description alone")]
struct ServerEvent {
    /// For `Last-Event-ID`.
    id: String,
    /// `status`, `message`, `connector`, `incident`, `device`, `proposal`, `reset`.
    event: String,
    /// JSON: what changed, by its id.
    data: String,
}

/// What changes, as it changes: server-sent events, at most four a second. The stream ends with the login.
#[utoipa::path(get, path = "/api/v1/events", tag = "gateway",
    params(("Last-Event-ID" = Option<String>, Header, description = "The number that was heard last: what came since follows, or `reset`")),
    responses(
        (status = 200, description = "Events `status`, `message`, `connector`, `incident`, `device`, `proposal`, `reset`; a comment every 15 s",
            body = ServerEvent, content_type = "text/event-stream"),
        (status = 503, description = "There are 50 streams already", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDetails, content_type = "application/problem+json"),
    ))]
pub(super) async fn stream(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let last = request.headers().get("last-event-id");
    // What is no number of ours is not known any more.
    let last = last.map(|last| {
        let number = last.to_str().ok().and_then(|last| last.parse().ok());
        number.unwrap_or(u64::MAX)
    });
    let Ok(permit) = Arc::clone(&app.streams).try_acquire_owned() else {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "there are 50 streams already",
        ));
    };
    let (pieces, body) = mpsc::channel(4);
    // Before the header goes out, so that nothing falls between.
    let listener = app.feed.listen(last);
    app.spawn(tell(Arc::clone(&app), caller, listener, pieces, permit));
    let mut response = Body::new(Pieces(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // nginx holds an answer back otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

async fn tell(
    app: Arc<App>,
    caller: Caller,
    mut listener: crate::admin::feed::Listening,
    pieces: mpsc::Sender<BodyPiece>,
    permit: OwnedSemaphorePermit,
) {
    let _permit = permit;
    let (mut alive, mut asked) = (interval(ALIVE), interval(ASKED));
    loop {
        let piece = tokio::select! {
            piece = listener.next(&app.feed) => Some(piece),
            _ = alive.tick() => Some(":\n\n".to_owned()),
            _ = asked.tick() => None,
            () = pieces.closed() => return,
        };
        if !is_in(&app.sessions, &app, &caller) {
            return;
        }
        let Some(piece) = piece else { continue };
        let sent = pieces
            .send_timeout(Ok(Bytes::from(piece)), GONE_AFTER)
            .await;
        if sent.is_err() {
            return;
        }
        sleep(PACE).await;
    }
}

/// Whether the login still holds.
fn is_in(sessions: &WindowSessions, app: &App, caller: &Caller) -> bool {
    if app.is_shut() {
        return false;
    }
    let settings = app.settings();
    match caller.proof {
        Proof::Session(of) => sessions.find(&of, &settings, false).is_some(),
        Proof::Token(of) => settings
            .tokens
            .iter()
            .any(|token| token.hash == of && token.role >= Role::Viewer && token.is_good()),
        Proof::Proxy | Proof::Uid => true,
    }
}

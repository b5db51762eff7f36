//! `GET /events`: what changes, as it changes (server-sent events).
//!
//! At most four a second are told, those of one object as one; whoever comes back says what he heard last, and hears what came since,
//! or that he is to load anew.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use http_body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{interval, sleep},
};

use super::part::TheApp;
use crate::admin::{
    app::App,
    caller::{Caller, Proof},
    problem::ApiError,
    sessions::WindowSessions,
};

/// Between two pieces.
const PACE: Duration = Duration::from_millis(250);
/// So often something is said, so that proxies do not think it dead.
const ALIVE: Duration = Duration::from_secs(15);

/// The stream. It ends with the login.
pub(super) async fn stream(
    State(app): TheApp,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let last = request.headers().get("last-event-id");
    let last = last
        .and_then(|last| last.to_str().ok())
        .and_then(|last| last.parse().ok());
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
    pieces: mpsc::Sender<Bytes>,
    permit: OwnedSemaphorePermit,
) {
    let _permit = permit;
    let mut alive = interval(ALIVE);
    loop {
        let piece = tokio::select! {
            piece = listener.next(&app.feed) => piece,
            _ = alive.tick() => ":\n\n".to_owned(),
            () = pieces.closed() => return,
        };
        if !is_in(&app.sessions, &app, &caller) || pieces.send(Bytes::from(piece)).await.is_err() {
            return;
        }
        sleep(PACE).await;
    }
}

/// Whether the login still holds.
fn is_in(sessions: &WindowSessions, app: &App, caller: &Caller) -> bool {
    let settings = app.settings();
    match caller.proof {
        Proof::Session(of) => sessions.find(&of, &settings, false).is_some(),
        Proof::Token => settings
            .tokens
            .iter()
            .any(|token| token.name == caller.name),
        Proof::Proxy | Proof::Uid => true,
    }
}

/// What comes through a channel, as a body.
pub(super) struct Pieces(pub(super) mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

//! A body that comes piece by piece from a task, which is held up by whoever reads slowly: nothing is gathered in memory.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

/// Whoever reads nothing for so long has gone.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(30);

/// A part of the body; a fault breaks it off, so that nobody takes a part for all.
pub(super) type BodyPiece = io::Result<Bytes>;

/// See the module.
pub(super) struct Pieces(pub(super) mpsc::Receiver<BodyPiece>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

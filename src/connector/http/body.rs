//! The body of a request, handed to the connection in small pieces, and the note that the last octet is gone.
//!
//! It answers one question: can the upstream have the whole request? Before the last octet it cannot, and then
//! nothing was done; afterwards silence means doubt. It is careful on that side: the last piece counts as gone when the connection
//! asks for it, although a few octets before it may still wait to be written.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The connection holds back at most sixteen pieces that it has not written.
const PIECE: usize = 8 * 1024;

const UNDER_WAY: u8 = 0;
const SENT: u8 = 1;
const CUT: u8 = 2;

/// How far a request is.
#[derive(Debug, Clone)]
pub(super) struct BodyProgress(Arc<AtomicU8>);

impl BodyProgress {
    /// Of a request without a body: it is whole as it stands.
    pub(super) fn whole() -> Self {
        Self(Arc::new(AtomicU8::new(SENT)))
    }

    /// Ends it: the last octet does not leave any more. False: it has left.
    pub(super) fn cut(&self) -> bool {
        self.change(CUT)
    }

    fn begin() -> Self {
        Self(Arc::new(AtomicU8::new(UNDER_WAY)))
    }

    /// The last octet leaves. False: the request was cut, so it must not.
    fn finish(&self) -> bool {
        self.change(SENT)
    }

    fn change(&self, to: u8) -> bool {
        match self
            .0
            .compare_exchange(UNDER_WAY, to, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(is) => is == to,
        }
    }
}

/// A body that tells when its last octet was taken.
#[derive(Debug)]
pub(super) struct Counted {
    inner: reqwest::Body,
    held: Bytes,
    progress: BodyProgress,
}

impl Counted {
    /// The progress is done with the last octet; where there is none, from the beginning.
    pub(super) fn new(inner: reqwest::Body) -> (Self, BodyProgress) {
        let progress = if inner.is_end_stream() {
            BodyProgress::whole()
        } else {
            BodyProgress::begin()
        };
        let this = Self {
            inner,
            held: Bytes::new(),
            progress: progress.clone(),
        };
        (this, progress)
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let cut = || Poll::Ready(Some(Err(io::Error::other("the time was over").into())));
        while self.held.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None if self.progress.finish() => return Poll::Ready(None),
                None => return cut(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
            }
        }
        let most = self.held.len().min(PIECE);
        let piece = self.held.split_to(most);
        if self.is_end_stream() && !self.progress.finish() {
            return cut();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_octet_is_noted_and_no_other() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let (mut body, progress) = Counted::new(vec![7; length].into());
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut seen = 0;
            while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
                seen += frame.unwrap().into_data().unwrap().len();
                let is_sent = progress.0.load(Ordering::Relaxed) == SENT;
                assert_eq!(is_sent, seen == length, "{seen}");
                assert_eq!(body.size_hint().exact(), Some((length - seen) as u64));
            }
            assert_eq!(seen, length);
            assert!(!progress.cut(), "too late");
        }
        assert!(!BodyProgress::whole().cut());
    }

    #[test]
    fn what_was_cut_does_not_end() {
        let (mut body, progress) = Counted::new(vec![7; PIECE + 1].into());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let first = Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(first, Poll::Ready(Some(Ok(_)))));
        assert!(progress.cut());
        let last = Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(last, Poll::Ready(Some(Err(_)))));
    }
}

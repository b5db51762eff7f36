//! The words of a dialogue: what is to be done, what was written, what the connection is good for afterwards.

use crate::smtp::client::Stage;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogueStep {
    /// Write what was appended to `out`, if anything, read a reply, give it to [`super::Dialogue::reply`].
    Read(Stage),
    /// Write the content, dots stuffed and the final dot behind it; then call [`super::Dialogue::content_sent`]. A reply that
    /// comes when a part of it is written goes to [`super::Dialogue::early_reply`].
    Content,
    /// Every recipient has its outcome.
    Done,
}

/// What of the last [`DialogueStep`] was written before a connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing.
    Nothing,
    /// Commands, or a part of the content.
    Commands,
    /// The last octet of the content, so that the message may have arrived.
    Dot,
}

/// Whether and how the connection can serve another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// As it is.
    AsItIs,
    /// After RSET.
    AfterReset,
    /// Not at all.
    Never,
}

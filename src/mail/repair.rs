//! Where the header ends, and what is added when From, Date or Message-ID are missing.

/// Where the header of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderEnd {
    /// The header is `buf[start..end]`; `start` is beyond 0 when a first mbox line (`From user date`) is dropped.
    pub start: usize,
    /// Exclusive; on a line border.
    pub end: usize,
    /// Where the body begins: behind the empty line, or at the first line that is neither a field nor a continuation.
    pub body: usize,
}

/// Looks for the end of the header in decoded lines (CRLF). `None`: not in there yet. With `complete` (no more is to come) there
/// is always an answer. `from` is where the last look stopped, moved on by the call, so that the work stays linear.
pub fn header_end(buf: &[u8], from: &mut usize, complete: bool) -> Option<HeaderEnd> {
    let _ = (buf, from, complete);
    todo!()
}

//! Whether mail can be taken in: the store says it, a session answers by it.

/// Whether a store works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It takes mail.
    Fine,
    /// The disk is full, or has less left than `limits.free_disk`: no mail is taken in (452 4.3.1), what was sent is recorded.
    Full,
    /// The last write failed: 451 4.3.0.
    Failing,
}

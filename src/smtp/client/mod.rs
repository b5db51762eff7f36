//! The side that sends: reply parsing and the dialogue; bytes in, steps out.
//!
//! `connector::smtp` brings sockets, TLS and time, so every reply that an upstream could give can be
//! played in memory. The conversation has two halves: [`opening`] up to the login, then one [`dialogue`] a delivery.

pub mod capabilities;
pub mod class;
mod command;
pub mod dialogue;
pub mod mask;
pub mod opening;
pub mod reply;
pub mod turns;

/// Where the conversation stands: it names a limit of time and, in texts, the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The 220 of the beginning.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH and its continuations.
    Auth,
    /// RSET, MAIL or RCPT.
    Envelope,
    /// DATA.
    Data,
    /// The content itself.
    Content,
    /// The final dot.
    Dot,
    /// QUIT.
    Quit,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Greeting => "greeting",
            Stage::Hello => "EHLO",
            Stage::StartTls => "STARTTLS",
            Stage::Auth => "AUTH",
            Stage::Envelope => "MAIL/RCPT",
            Stage::Data => "DATA",
            Stage::Content => "the message",
            Stage::Dot => "the final dot",
            Stage::Quit => "QUIT",
        })
    }
}

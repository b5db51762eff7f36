//! Where a session stands: between which commands, in which transaction, how far into the content or the login.

use std::{collections::HashSet, sync::Arc};

use bytes::BytesMut;

use crate::{
    mail::{
        address::Address,
        message::{MessageId, Origin},
        recipient::{Recipient, ReportWish},
        reply::Reply,
    },
    policy::{archive::Archive, quota::QuotaTally, redirect::Redirected},
    route::RouteName,
    smtp::data::Decoder,
};

#[derive(Debug)]
pub(super) enum Phase {
    /// Not greeted yet.
    Fresh,
    /// Between commands.
    Command,
    /// Greeted with 554; so many commands since.
    Refused(u32),
    /// Inside AUTH.
    Auth(Exchange),
    /// The driver checks this user's password.
    Verifying(String),
    /// The driver makes an id, for DATA or for the first of some chunks.
    Opening(Option<ChunkHead>),
    /// Inside DATA.
    Data(Box<Incoming>),
    /// Inside a chunk.
    Chunk(Box<Chunk>),
    /// The driver makes it durable; whether the session ends after that.
    Storing { id: MessageId, close: bool },
    /// The driver does the handshake; whether the greeting is still to come.
    Handshake { greet: bool },
    /// Over.
    Closed,
}

/// What BDAT announces.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkHead {
    /// Octets, of the wire.
    pub(super) size: u64,
    pub(super) is_last: bool,
}

/// A chunk on its way in.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) head: ChunkHead,
    /// Octets that are still to come.
    pub(super) left: u64,
    pub(super) goal: ChunkGoal,
}

/// What becomes of the octets of a chunk.
#[derive(Debug)]
pub(super) enum ChunkGoal {
    Message(Box<Incoming>),
    /// They are read, so that they are no commands, and dropped; then this is said.
    Nothing(Reply),
}

/// From MAIL to the end of the content.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) given: Option<Address>,
    pub(super) sender: Option<Address>,
    pub(super) rewrite: Option<usize>,
    pub(super) eight_bit: bool,
    /// `SMTPUTF8`.
    pub(super) utf8: bool,
    /// `RET=` and `ENVID=`.
    pub(super) dsn: Option<ReportWish>,
    pub(super) recipients: Vec<Recipient>,
    pub(super) seen: HashSet<Address>,
    /// Those that others stand for.
    pub(super) redirected: Redirected,
    pub(super) routed: Vec<(Recipient, RouteName)>,
    /// Of `SIZE=` (RFC 1870).
    pub(super) size: Option<u64>,
    /// The largest message that any of the recipients' routes takes, in octets: a larger one would reach nobody.
    pub(super) route_size_limit: u64,
    /// What it holds of the quotas.
    pub(super) tally: QuotaTally,
    /// The routes whose jobs are held, and who holds them.
    pub(super) held: Vec<(RouteName, String)>,
    /// What came in chunks so far, where the last is still to come.
    pub(super) chunks: Option<Box<Incoming>>,
}

/// What the next line of the client is.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The PLAIN response.
    Plain,
    /// The name, for LOGIN.
    Name,
    /// The password, for LOGIN.
    Password { user: String },
    /// Whatever is said to the challenge of CRAM-MD5.
    Digest,
    /// Who it is, for EXTERNAL, or nothing.
    External,
}

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) id: MessageId,
    pub(super) origin: Origin,
    pub(super) decoder: Decoder,
    /// Decoded: the raw header until it is judged, then body that is not handed on yet.
    pub(super) kept: BytesMut,
    /// How far the end of the header was looked for.
    pub(super) looked: usize,
    /// Octets of the header that came, and where the body begins, once that is known.
    pub(super) header_octets: (u64, u64),
    /// It was needed that a name may stand without its quotes.
    pub(super) has_unquoted_name: bool,
    /// The header that leaves, once judged.
    pub(super) header: Option<Vec<u8>>,
    /// The answer, when it is decided already; the rest is read and dropped.
    pub(super) refused: Option<Reply>,
    /// Who gets a copy.
    pub(super) archives: Vec<Arc<Archive>>,
    /// Pieces went out.
    pub(super) spooled: bool,
}

impl Incoming {
    pub(super) fn new(id: MessageId, origin: Origin, decoder: Decoder) -> Self {
        Self {
            id,
            origin,
            decoder,
            kept: BytesMut::new(),
            looked: 0,
            header_octets: (0, 0),
            has_unquoted_name: false,
            header: None,
            refused: None,
            archives: Vec::new(),
            spooled: false,
        }
    }

    /// Octets so far.
    pub(super) fn size(&self) -> u64 {
        self.decoder.size()
    }

    /// Keeps the first refusal; says whether a spool file must go.
    pub(super) fn refuse(&mut self, reply: Reply) -> bool {
        self.refused.get_or_insert(reply);
        self.kept = BytesMut::new();
        std::mem::take(&mut self.spooled)
    }
}

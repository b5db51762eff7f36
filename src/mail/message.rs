//! A message as it is held between acceptance and delivery: id, envelope, origin, header, body.
//!
//! `headers` and `mailboxes` look inside. A large body is a handle here; `queue::body` has it.

use std::{fmt, future, io, net::SocketAddr, pin::Pin, str::FromStr, sync::Arc, time::SystemTime};

use bytes::Bytes;
use ulid::Ulid;

use super::{
    address::Address,
    recipient::{Recipient, ReportWish},
};

/// Bodies up to this many octets stay in memory and in the store's own table; larger ones are files.
/// Measured: below it rows are faster and cheaper, above it files are.
pub const BODY_IN_MEMORY: usize = 64 * 1024;

/// The id of a message: 26 characters that sort by time of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Ulid);

impl MessageId {
    /// An id for a message that begins at `now`; `random` makes it unique within the millisecond.
    pub fn new(now: SystemTime, random: u128) -> Self {
        Self(Ulid::from_parts(millis(now), random))
    }

    /// The 16 octets of the id, big-endian, so that octet order is time order.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    /// Back from [`MessageId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Ulid::from_bytes(bytes))
    }
}

/// Makes ids in their order, which the clock may not keep.
#[derive(Debug, Default)]
pub struct Ids {
    /// Milliseconds since 1970.
    last: u64,
}

impl Ids {
    /// An id that sorts behind those before it: a clock that was set back does not put new mail before old.
    pub fn next(&mut self, now: SystemTime, random: u128) -> MessageId {
        let ms = millis(now);
        self.last = if ms < self.last {
            self.last.saturating_add(1)
        } else {
            ms
        };
        MessageId(Ulid::from_parts(self.last, random))
    }

    /// Behind everything of that time.
    pub fn follow(&mut self, at: SystemTime) {
        self.last = self.last.max(millis(at));
    }
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = &'static str;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() != 26 {
            return Err("a message id has 26 characters");
        }
        Ulid::from_string(&s.to_ascii_uppercase())
            .map(Self)
            .map_err(|_| "not a message id")
    }
}

/// Who the message is from and for, as SMTP said it (RFC 5321 §2.3.1), after rewriting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `None` is the null sender `<>`.
    pub sender: Option<Address>,
    /// Each once, in the order of the RCPT commands.
    pub recipients: Vec<Recipient>,
    /// The client declared `BODY=8BITMIME`.
    pub eight_bit: bool,
    /// What the client said of reports by DSN (RFC 3461), where it did.
    pub dsn: Option<ReportWish>,
}

/// Where the message came from; for `Received:`, routes, log and trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The listener's name; `"bounce"` for a report of our own making.
    pub listener: String,
    /// The client's address (after a PROXY header).
    pub peer: SocketAddr,
    /// The name of the `[[client]]` section that the address belongs to.
    pub client: Option<String>,
    /// The argument of HELO/EHLO; `"unknown"` when there was none.
    pub helo: String,
    /// The session was encrypted.
    pub tls: bool,
    /// The client said EHLO.
    pub esmtp: bool,
    /// The client said SMTPUTF8 in MAIL (RFC 6531 §3.4): addresses may be other than ASCII.
    pub utf8: bool,
    /// The `[[user]]` that logged in.
    pub user: Option<String>,
    /// When DATA began.
    pub at: SystemTime,
    /// What rules made of it on its way in, one each, for the log and for its life.
    pub rules: Vec<String>,
    /// It is a copy for an archive, of this message, and all else here is that one's.
    pub copy_of: Option<MessageId>,
}

/// One accepted message. What goes out is `header`, CRLF, `body`.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Sender and recipients.
    pub envelope: Envelope,
    /// Where it came from.
    pub origin: Origin,
    /// Complete fields, each ending in CRLF, without the empty line after them.
    pub header: Bytes,
    /// Everything after the empty line, lines ending in CRLF, dots not stuffed.
    pub body: Body,
}

impl Message {
    /// Octets of the whole content: header, empty line, body.
    pub fn size(&self) -> u64 {
        self.header.len() as u64 + 2 + self.body.len()
    }
}

/// The body, where it is.
#[derive(Debug, Clone)]
pub enum Body {
    /// Up to [`BODY_IN_MEMORY`] octets.
    Memory(Bytes),
    /// Where the queue keeps large ones.
    Stored(Arc<dyn BodyHandle>),
}

/// What comes when it has been read.
pub type Reading<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A body that is kept outside of memory.
#[allow(clippy::len_without_is_empty)] // `Body` has it
pub trait BodyHandle: fmt::Debug + Send + Sync {
    /// Its octets.
    fn len(&self) -> u64;
    /// A committed row names it: it stays when this value goes.
    fn keep(&self);
    /// Begins to read it.
    fn open(&self) -> Reading<'_, Box<dyn BodyReader>>;
}

/// A body that is being read.
pub trait BodyReader: Send {
    /// The next piece; `None` at the end. A body that is not as long as it should be is an error before its end.
    fn next(&mut self) -> Reading<'_, Option<Bytes>>;
}

impl BodyReader for Option<Bytes> {
    fn next(&mut self) -> Reading<'_, Option<Bytes>> {
        Box::pin(future::ready(Ok(self.take())))
    }
}

impl Body {
    /// Its octets.
    pub fn len(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::Stored(handle) => handle.len(),
        }
    }

    /// No octets at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins to read it; what is in memory is one piece. It may not be there any more.
    pub fn open(&self) -> Reading<'_, Box<dyn BodyReader>> {
        match self {
            Body::Memory(bytes) => {
                let all: Box<dyn BodyReader> = Box::new(Some(bytes.clone()));
                Box::pin(future::ready(Ok(all)))
            }
            Body::Stored(handle) => handle.open(),
        }
    }
}

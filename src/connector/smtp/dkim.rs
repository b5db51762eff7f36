//! Signs a message as it leaves (DKIM: RFC 6376, and RFC 8463 for Ed25519): which fields are covered, both forms that are hashed, and the
//! field that says so.
//!
//! The body is read once more for its hash, piece by piece. Nothing of the message is changed: what is made here stands above it.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use memchr::memchr_iter;

use crate::{
    connector::dkim::{self, DkimKey, DkimPair},
    mail::{
        headers::{Field, fields},
        message::{Body, Message},
    },
};

/// What is covered, whether or not it is there, by its name in small letters and as it is written: a field that is added later breaks the
/// signature. Not what others add on the way (Received, Return-Path).
const COVERED: [(&str, &str); 21] = [
    ("from", "From"),
    ("to", "To"),
    ("cc", "Cc"),
    ("subject", "Subject"),
    ("date", "Date"),
    ("message-id", "Message-ID"),
    ("reply-to", "Reply-To"),
    ("sender", "Sender"),
    ("mime-version", "MIME-Version"),
    ("content-type", "Content-Type"),
    ("content-transfer-encoding", "Content-Transfer-Encoding"),
    ("in-reply-to", "In-Reply-To"),
    ("references", "References"),
    ("list-id", "List-Id"),
    ("list-unsubscribe", "List-Unsubscribe"),
    ("list-unsubscribe-post", "List-Unsubscribe-Post"),
    ("list-help", "List-Help"),
    ("list-post", "List-Post"),
    ("list-subscribe", "List-Subscribe"),
    ("list-owner", "List-Owner"),
    ("list-archive", "List-Archive"),
];
/// Other fields of lists, whose names are not longer than this, are covered where they are there.
const LIST_NAME: usize = 60;
/// Octets of a line of the field.
const LINE: usize = 76;

/// What signs the mail of a connector.
#[derive(Debug)]
pub struct Signer {
    keys: Vec<LoadedKey>,
}

/// A key that was read.
#[derive(Debug)]
struct LoadedKey {
    key: DkimKey,
    pair: DkimPair,
}

impl Borrow<DkimKey> for LoadedKey {
    fn borrow(&self) -> &DkimKey {
        &self.key
    }
}

/// What stands above a message, and who says so.
#[derive(Debug, Default)]
pub struct Signatures {
    /// Complete fields.
    pub fields: Vec<u8>,
    /// `corp.example p2026, e2026`; empty where nobody signs.
    pub by: String,
}

impl Signer {
    /// Reads the keys. One whose value is not known here is left out: where a configuration is only looked at, nothing is sent.
    ///
    /// # Errors
    /// A sentence: which of them cannot be used.
    pub fn new(keys: &[DkimKey]) -> Result<Self, String> {
        let read = |key: &DkimKey| {
            let Some(secret) = &key.key else {
                return Ok(None);
            };
            let pair = DkimPair::read(secret)
                .map_err(|why| format!("the DKIM key {} {why}", key.record_name()))?;
            let key = key.clone();
            Ok(Some(LoadedKey { key, pair }))
        };
        let keys = keys.iter().map(read).filter_map(Result::transpose);
        let keys = keys.collect::<Result<_, String>>()?;
        Ok(Self { keys })
    }

    /// The fields to put above the message; none where no key signs for its From.
    ///
    /// # Errors
    /// The body cannot be read.
    pub async fn sign(&self, message: &Message, now: SystemTime) -> io::Result<Signatures> {
        let mut signatures = Signatures::default();
        let chosen = match dkim::domain_of_from(&message.header) {
            Some(domain) if leaves_as_it_is(&message.header) => {
                dkim::signing(&self.keys, &domain, now)
            }
            _ => Vec::new(),
        };
        if chosen.is_empty() {
            return Ok(signatures);
        }
        let hash = STANDARD.encode(hash_of(&message.body).await?);
        let (names, covered) = covered(&message.header);
        for LoadedKey { key, pair } in chosen {
            let unsigned = unsigned(key, pair.algorithm(), now, &names, &hash);
            let mut signed = covered.clone();
            relaxed_value(&mut signed, b"dkim-signature", value(&unsigned));
            let Some(signature) = pair.sign(&signed) else {
                continue;
            };
            let mut field = unsigned;
            wrapped(&mut field, &STANDARD.encode(signature));
            field.push_str("\r\n");
            signatures.fields.extend_from_slice(field.as_bytes());
            let by = &mut signatures.by;
            let _ = if by.is_empty() {
                write!(by, "{} {}", key.domain, key.selector)
            } else {
                write!(by, ", {}", key.selector)
            };
        }
        Ok(signatures)
    }
}

/// Every CR of the header stands before an LF, so that no line of it is made two on the way out.
fn leaves_as_it_is(header: &[u8]) -> bool {
    memchr_iter(b'\r', header).all(|at| header.get(at + 1) == Some(&b'\n'))
}

/// The names of `h=`, each once more than its field occurs, and the fields as they are hashed: of one name the last goes first
/// (RFC 6376 §5.4.2).
fn covered(header: &[u8]) -> (Vec<String>, Vec<u8>) {
    let mut found: BTreeMap<String, Vec<Field<'_>>> = BTreeMap::new();
    let known: BTreeSet<&str> = COVERED.iter().map(|(name, _)| *name).collect();
    for field in fields(header) {
        let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        if known.contains(name.as_str()) || is_of_a_list(&name) {
            found.entry(name).or_default().push(field);
        }
    }
    let (mut names, mut octets) = (Vec::new(), Vec::with_capacity(1024));
    let mut cover = |written: &str, occurrences: &[Field<'_>]| {
        for field in occurrences.iter().rev() {
            relaxed_value(
                &mut octets,
                written.to_ascii_lowercase().as_bytes(),
                field.value,
            );
            octets.extend_from_slice(b"\r\n");
            names.push(written.to_owned());
        }
        names.push(written.to_owned());
    };
    for (name, written) in COVERED {
        cover(written, &found.remove(name).unwrap_or_default());
    }
    for (name, occurrences) in &found {
        cover(name, occurrences);
    }
    (names, octets)
}

/// `list-…`, of characters that mean nothing in `h=`.
fn is_of_a_list(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    name.starts_with("list-") && name.len() <= LIST_NAME && name.bytes().all(is_plain)
}

/// The field up to `b=`, whose value is what it signs.
fn unsigned(
    key: &DkimKey,
    algorithm: &str,
    now: SystemTime,
    names: &[String],
    hash: &str,
) -> String {
    let (domain, selector) = (&key.domain, &key.selector);
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut field = format!(
        "DKIM-Signature: v=1; a={algorithm}; c=relaxed/relaxed; d={domain};\r\n\ts={selector}; t={seconds};\r\n\th="
    );
    let mut line = 3;
    for (place, name) in names.iter().enumerate() {
        if place > 0 {
            field.push(':');
            line += 1;
        }
        if line + name.len() > LINE && line > 1 {
            field.push_str("\r\n\t");
            line = 1;
        }
        field.push_str(name);
        line += name.len();
    }
    let _ = write!(field, ";\r\n\tbh={hash};\r\n\tb=");
    field
}

/// Base64 in lines that begin with a blank.
fn wrapped(field: &mut String, base64: &str) {
    for (place, line) in base64.as_bytes().chunks(LINE - 4).enumerate() {
        if place > 0 {
            field.push_str("\r\n\t ");
        }
        field.push_str(&String::from_utf8_lossy(line));
    }
}

fn value(field: &str) -> &[u8] {
    field
        .split_once(':')
        .map_or(b"", |(_, value)| value.as_bytes())
}

/// A field in the form `relaxed` (RFC 6376 §3.4.2), without the end of its line: unfolded, every run of blanks one, none at the ends.
fn relaxed_value(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(b':');
    let begin = out.len();
    let mut is_blank = false;
    for &octet in value {
        match octet {
            b'\r' | b'\n' => {}
            b' ' | b'\t' => is_blank = true,
            _ => {
                if std::mem::take(&mut is_blank) && out.len() > begin {
                    out.push(b' ');
                }
                out.push(octet);
            }
        }
    }
}

/// Of a body as it leaves.
async fn hash_of(body: &Body) -> io::Result<digest::Digest> {
    let mut hash = RelaxedBody::new();
    let mut reader = body.open().await?;
    while let Some(piece) = reader.next().await? {
        hash.feed(&piece);
    }
    Ok(hash.finish())
}

/// A body in the form `relaxed` (RFC 6376 §3.4.4), hashed piece by piece: no blanks at the end of a line, elsewhere each run of them one, no
/// empty lines at the end. Like the encoder that writes it, it takes a lone CR or LF for the end of a line.
struct RelaxedBody {
    hash: digest::Context,
    out: Vec<u8>,
    /// Ends of lines behind which nothing has come yet.
    ends: u64,
    /// Blanks behind which nothing has come yet.
    is_blank: bool,
    /// The last octet was a CR.
    is_cr: bool,
    is_empty: bool,
}

impl RelaxedBody {
    /// So much is hashed at once.
    const BLOCK: usize = 16 * 1024;

    fn new() -> Self {
        Self {
            hash: digest::Context::new(&digest::SHA256),
            out: Vec::new(),
            ends: 0,
            is_blank: false,
            is_cr: false,
            is_empty: true,
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some((&octet, after)) = rest.split_first() {
            let is_second = std::mem::take(&mut self.is_cr) && octet == b'\n';
            match octet {
                b'\n' if is_second => rest = after,
                b'\r' | b'\n' => {
                    self.is_cr = octet == b'\r';
                    self.ends += 1;
                    self.is_blank = false;
                    rest = after;
                }
                b' ' | b'\t' => {
                    self.is_blank = true;
                    rest = after;
                }
                _ => {
                    self.catch_up();
                    let is_odd = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
                    let end = rest.iter().position(is_odd).unwrap_or(rest.len());
                    let (text, after) = rest.split_at(end);
                    self.out.extend_from_slice(text);
                    rest = after;
                }
            }
            self.flush(Self::BLOCK);
        }
    }

    /// Something comes, so what stood before it counts.
    fn catch_up(&mut self) {
        for _ in 0..std::mem::take(&mut self.ends) {
            self.out.extend_from_slice(b"\r\n");
            self.flush(Self::BLOCK);
        }
        if std::mem::take(&mut self.is_blank) {
            self.out.push(b' ');
        }
        self.is_empty = false;
    }

    fn flush(&mut self, most: usize) {
        if self.out.len() > most {
            self.hash.update(&self.out);
            self.out.clear();
        }
    }

    fn finish(mut self) -> digest::Digest {
        if !self.is_empty {
            self.out.extend_from_slice(b"\r\n");
        }
        self.flush(0);
        self.hash.finish()
    }
}

#[cfg(test)]
mod tests;

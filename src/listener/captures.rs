//! Conversations that somebody wants to see: those of one address, for a time, in memory.
//!
//! What is said is bounded by the number of sessions, by their octets and by a day. Whether there is any is one look at a number.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;

use crate::mail::time::rfc3339;

/// The longest.
pub const LONGEST: Duration = Duration::from_hours(1);
/// Sessions of all captures together.
const SESSIONS: usize = 200;
/// Their octets.
const OCTETS: usize = 10 << 20;
/// Octets of one session.
const OF_A_SESSION: usize = 1 << 20;
/// Octets that are shown of a line.
const LINE: usize = 2_000;
/// Captures that are kept.
const CAPTURES: usize = 100;
const KEPT: Duration = Duration::from_hours(24);
/// What a line weighs beside its text.
const WEIGHT: usize = 64;

/// Who says a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The client.
    Client,
    /// We.
    Postern,
    /// Nobody: what there is to say of it.
    Note,
}

impl Speaker {
    fn mark(self) -> &'static str {
        match self {
            Self::Client => "C:",
            Self::Postern => "S:",
            Self::Note => "  #",
        }
    }
}

/// A line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CapturedLine {
    /// When.
    pub at: String,
    /// Who.
    pub from: Speaker,
    /// Odd octets as `\x00`, credentials as `***`.
    pub text: String,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CapturedSession {
    /// When it began.
    pub at: String,
    /// The version of TLS.
    pub tls: Option<String>,
    /// In order.
    pub lines: Vec<CapturedLine>,
    #[serde(skip)]
    number: u64,
    #[serde(skip)]
    octets: usize,
}

/// What was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CaptureView {
    /// `c1`.
    pub id: String,
    /// Of whom.
    pub address: String,
    /// When it ends, or ended.
    pub until: String,
    /// The oldest first.
    pub sessions: Vec<CapturedSession>,
}

/// One of those that there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CaptureSummary {
    /// `c1`.
    pub id: String,
    /// Of whom.
    pub address: String,
    /// When it ends, or ended.
    pub until: String,
    /// How many sessions there are of it.
    pub sessions: usize,
}

#[derive(Debug)]
struct CaptureEntry {
    number: u64,
    address: IpAddr,
    begun: Instant,
    until: Instant,
    ends: SystemTime,
    sessions: VecDeque<CapturedSession>,
    /// Lines for the one who asked, where a command did.
    told: Option<Vec<String>>,
}

#[derive(Debug, Default)]
struct CaptureBook {
    last: u64,
    entries: Vec<CaptureEntry>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Captures {
    /// How many are kept.
    kept: AtomicUsize,
    book: Mutex<CaptureBook>,
}

/// The session of a capture that a conversation goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recording {
    capture: u64,
    session: u64,
}

/// Reads the address, and says what is too long.
///
/// # Errors
/// A sentence for the operator.
pub fn bounded(address: &str, length: Duration) -> Result<(IpAddr, Duration), String> {
    let shown = crate::mail::text::shown_to(address, 60);
    let ip = address.parse::<IpAddr>();
    let ip = ip.map_err(|_| format!("{shown:?} is no address, such as 10.20.0.5"))?;
    if length.is_zero() || length > LONGEST {
        return Err("conversations are captured for an hour at most".to_owned());
    }
    Ok((ip.to_canonical(), length))
}

/// `c1`.
fn id(number: u64) -> String {
    format!("c{number}")
}

/// Odd octets as `\x00`, cut where it is too long.
pub(super) fn escaped(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len().min(LINE));
    for octet in octets.iter().take(LINE) {
        match octet {
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(char::from(*octet)),
            // Writing to a String cannot fail.
            other => {
                let _ = write!(out, "\\x{other:02x}");
            }
        }
    }
    if octets.len() > LINE {
        let _ = write!(out, "… ({} octets more)", octets.len() - LINE);
    }
    out
}

impl CaptureBook {
    fn tidy(&mut self, now: Instant) {
        self.entries
            .retain(|entry| now.saturating_duration_since(entry.begun) < KEPT);
        while self.entries.len() > CAPTURES {
            self.entries.remove(0);
        }
        loop {
            let sessions = self.entries.iter().flat_map(|entry| &entry.sessions);
            let (count, octets) =
                sessions.fold((0, 0), |(count, octets), s| (count + 1, octets + s.octets));
            if count <= SESSIONS && octets <= OCTETS {
                return;
            }
            let oldest = self
                .entries
                .iter_mut()
                .filter(|entry| !entry.sessions.is_empty())
                .min_by_key(|entry| entry.sessions.front().map(|session| session.number));
            match oldest {
                Some(entry) => drop(entry.sessions.pop_front()),
                None => return,
            }
        }
    }

    fn session(
        &mut self,
        at: Recording,
    ) -> Option<(&mut CapturedSession, &mut Option<Vec<String>>)> {
        let entry = self.entries.iter_mut().find(|e| e.number == at.capture)?;
        let session = entry.sessions.iter_mut().find(|s| s.number == at.session)?;
        Some((session, &mut entry.told))
    }
}

impl Captures {
    fn book(&self) -> MutexGuard<'_, CaptureBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins; its id. `told`: its lines are also kept for [`Captures::take_told`].
    pub fn begin(&self, address: IpAddr, length: Duration, told: bool) -> String {
        let now = Instant::now();
        let mut book = self.book();
        book.last += 1;
        let number = book.last;
        book.entries.push(CaptureEntry {
            number,
            address: address.to_canonical(),
            begun: now,
            until: now + length.min(LONGEST),
            ends: SystemTime::now() + length.min(LONGEST),
            sessions: VecDeque::new(),
            told: told.then(Vec::new),
        });
        book.tidy(now);
        self.kept.store(book.entries.len(), Ordering::Release);
        id(number)
    }

    /// Ends; what there is stays.
    pub fn end(&self, wanted: &str) {
        let now = Instant::now();
        let mut book = self.book();
        if let Some(entry) = book.entries.iter_mut().find(|e| id(e.number) == wanted)
            && entry.until > now
        {
            entry.until = now;
            entry.ends = SystemTime::now();
        }
    }

    /// Where a session that begins goes, if anybody wants it.
    pub(super) fn of(&self, peer: IpAddr) -> Option<Recording> {
        if self.kept.load(Ordering::Acquire) == 0 {
            return None;
        }
        let (peer, now) = (peer.to_canonical(), Instant::now());
        let mut book = self.book();
        book.last += 1;
        let session = book.last;
        let wants = |entry: &&mut CaptureEntry| entry.address == peer && now < entry.until;
        let entry = book.entries.iter_mut().rev().find(wants)?;
        let capture = entry.number;
        entry.sessions.push_back(CapturedSession {
            at: rfc3339(SystemTime::now()),
            tls: None,
            lines: Vec::new(),
            number: session,
            octets: 0,
        });
        book.tidy(now);
        self.kept.store(book.entries.len(), Ordering::Release);
        Some(Recording { capture, session })
    }

    /// It is encrypted now.
    pub(super) fn encrypted(&self, at: Recording, version: Option<&str>) {
        if let Some((session, _)) = self.book().session(at) {
            session.tls = version.map(|version| format!("TLSv{version}"));
        }
    }

    /// One more line.
    pub(super) fn say(&self, at: Recording, from: Speaker, text: String) {
        let mut book = self.book();
        let Some((session, told)) = book.session(at) else {
            return;
        };
        if session.octets > OF_A_SESSION {
            return;
        }
        session.octets += text.len() + WEIGHT;
        let is_full = session.octets > OF_A_SESSION;
        let mut line = CapturedLine {
            at: rfc3339(SystemTime::now()),
            from,
            text,
        };
        if is_full {
            line.from = Speaker::Note;
            "the rest of this session is left out".clone_into(&mut line.text);
        }
        if let Some(told) = told {
            told.push(written(&line));
        }
        session.lines.push(line);
        if is_full || session.lines.len().is_multiple_of(64) {
            book.tidy(Instant::now());
        }
    }

    /// All that are kept, the latest first.
    pub fn list(&self) -> Vec<CaptureSummary> {
        let mut book = self.book();
        book.tidy(Instant::now());
        self.kept.store(book.entries.len(), Ordering::Release);
        let entries = book.entries.iter().rev();
        entries
            .map(|entry| CaptureSummary {
                id: id(entry.number),
                address: entry.address.to_string(),
                until: rfc3339(entry.ends),
                sessions: entry.sessions.len(),
            })
            .collect()
    }

    /// One of them.
    pub fn show(&self, wanted: &str) -> Option<CaptureView> {
        let mut book = self.book();
        book.tidy(Instant::now());
        let entry = book.entries.iter().find(|e| id(e.number) == wanted)?;
        Some(CaptureView {
            id: id(entry.number),
            address: entry.address.to_string(),
            until: rfc3339(entry.ends),
            sessions: entry.sessions.iter().cloned().collect(),
        })
    }

    /// Lines that were said since the last call, where a command asked, and whether it is over. `None`: there is no such capture.
    pub fn take_told(&self, wanted: &str) -> Option<(Vec<String>, bool)> {
        let mut book = self.book();
        let entry = book.entries.iter_mut().find(|e| id(e.number) == wanted)?;
        let told = entry.told.as_mut().map(std::mem::take).unwrap_or_default();
        Some((told, Instant::now() >= entry.until))
    }
}

fn written(line: &CapturedLine) -> String {
    format!("{} {} {}", line.at, line.from.mark(), line.text)
}

impl CaptureView {
    /// As text.
    pub fn text(&self) -> String {
        let mut out = format!("# {} until {}\n", self.address, self.until);
        for session in &self.sessions {
            let tls = session.tls.as_deref().unwrap_or("without TLS");
            let _ = write!(out, "\n# session at {}, {tls}\n", session.at);
            for line in &session.lines {
                out.push_str(&written(line));
                out.push('\n');
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_escaped_and_cut() {
        assert_eq!(
            escaped(b"a\\\0\r\xe4 z~\x1b\x7f"),
            "a\\\\\\x00\\x0d\\xe4 z~\\x1b\\x7f"
        );
        let long = escaped(&[b'x'; 5_000]);
        assert!(
            long.len() < 2_100 && long.ends_with("(3000 octets more)"),
            "{long}"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let captures = Captures::default();
        let ip: IpAddr = "10.0.0.5".parse().unwrap();
        assert!(captures.of(ip).is_none());
        let id = captures.begin(ip, Duration::from_mins(15), true);
        assert!(captures.of("10.0.0.6".parse().unwrap()).is_none());
        let first = captures.of("::ffff:10.0.0.5".parse().unwrap()).unwrap();
        captures.say(first, Speaker::Client, "EHLO x".to_owned());
        captures.encrypted(first, Some("1.3"));
        let (told, over) = captures.take_told(&id).unwrap();
        assert!(
            told.len() == 1 && told[0].ends_with("C: EHLO x") && !over,
            "{told:?}"
        );
        assert!(captures.take_told(&id).unwrap().0.is_empty());
        let shown = captures.show(&id).unwrap();
        assert_eq!(shown.sessions[0].tls.as_deref(), Some("TLSv1.3"));
        assert!(shown.text().contains("C: EHLO x\n"), "{}", shown.text());
        // One session says no more than its part.
        for _ in 0..2_000 {
            captures.say(first, Speaker::Client, "x".repeat(1_000));
        }
        let shown = captures.show(&id).unwrap();
        assert!(shown.sessions[0].octets <= OF_A_SESSION + 2_000);
        assert_eq!(shown.sessions[0].lines.last().unwrap().from, Speaker::Note);
        for n in 0..300 {
            let one = captures.of(ip).unwrap();
            for _ in 0..if n < 290 { 1 } else { 128 } {
                captures.say(one, Speaker::Client, "y".repeat(2_000));
            }
        }
        let shown = captures.show(&id).unwrap();
        assert_eq!(shown.sessions.len(), SESSIONS);
        for _ in 0..20 {
            let one = captures.of(ip).unwrap();
            for _ in 0..512 {
                captures.say(one, Speaker::Client, "z".repeat(2_000));
            }
        }
        let octets = |shown: &CaptureView| shown.sessions.iter().map(|s| s.octets).sum::<usize>();
        let shown = captures.show(&id).unwrap();
        assert!(
            octets(&shown) <= OCTETS && shown.sessions.len() < 20,
            "{}",
            octets(&shown)
        );
        captures.end(&id);
        assert!(captures.of(ip).is_none() && captures.take_told(&id).unwrap().1);
        assert_eq!(captures.list()[0].sessions, shown.sessions.len());
        for _ in 0..200 {
            captures.begin(ip, Duration::from_secs(1), false);
        }
        assert_eq!(captures.list().len(), CAPTURES);
        let mut book = captures.book();
        book.tidy(Instant::now() + KEPT);
        assert!(book.entries.is_empty());
    }
}

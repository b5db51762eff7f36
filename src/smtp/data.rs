//! The content between 354 and the final dot, or in chunks: dots, line endings, size; both directions, cut anywhere.
//!
//! Smuggling lives here (CVE-2023-51764 and its kin), so what ends a message is decided
//! by one piece of code that can be tested against every cut. It knows nothing of commands and keeps no content.

use bytes::BufMut;

/// What a [`Decoder`] forgives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leniency {
    /// `<LF>.<LF>` ends the message (`lf_only = true`).
    pub lf_only: bool,
    /// A bare CR is a line ending instead of a fault.
    pub bare_cr: bool,
}

/// Bare CRs in a row that are taken as so many line endings ([`Leniency::bare_cr`]); more are a fault, since each is two octets
/// of content.
const LONGEST_RUN: usize = 1_000;

/// What makes a message unacceptable; reading goes on to the real end (RFC 5321 §4.1.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFault {
    /// CR without LF behind it, or behind the CRs that follow it.
    BareCr,
    /// An octet 0.
    Nul,
    /// A line that is one dot, but not framed by CRLF on both sides. More CRs before the CRLF in front of the dot are part of
    /// that line end; between the dot and its CRLF there may be none.
    FramedDot,
}

/// How the message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `<CRLF>.<CRLF>`.
    Strict,
    /// Another dot line, allowed by [`Leniency::lf_only`]: nothing behind it may be trusted.
    Loose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// However many CRs stood before the LF: text mode on Windows makes CR CR LF of what was CRLF already.
    Crlf,
    Lf,
    Cr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineState {
    /// The first octet of a line.
    Start,
    /// Behind a dot at the start of a line, which is not written yet.
    Dot,
    /// Behind so many CRs in a row; `dot` when all the line has is a dot.
    Cr { dot: bool, run: usize },
    /// Anywhere else.
    Text,
}

/// Wire to content: dots unstuffed, every line ending CRLF.
#[derive(Debug)]
pub struct Decoder {
    leniency: Leniency,
    /// Dots are stuffed, and one alone is the end; in chunks neither.
    is_dotted: bool,
    at: LineState,
    /// What ended the line before; the CRLF of the DATA command counts (RFC 5321 §4.1.1.4).
    before: Ending,
    fault: Option<ContentFault>,
    /// A bare CR was taken as a line end.
    bare_cr: bool,
    /// There was a dot line that only `lf_only` would have taken as the end.
    loose_dot: bool,
    taken: u64,
    given: u64,
}

impl Decoder {
    /// A decoder for the octets after 354.
    pub fn new(leniency: Leniency) -> Self {
        Self {
            leniency,
            is_dotted: true,
            at: LineState::Start,
            before: Ending::Crlf,
            fault: None,
            bare_cr: false,
            loose_dot: false,
            taken: 0,
            given: 0,
        }
    }

    /// A decoder for the octets of chunks (RFC 3030 §2), which end where [`Decoder::finish`] says: a dot is text.
    pub fn of_chunks(leniency: Leniency) -> Self {
        Self {
            is_dotted: false,
            ..Self::new(leniency)
        }
    }

    /// The last octet of the last chunk was taken: a line without an end gets one.
    pub fn finish(&mut self, out: &mut impl BufMut) {
        let before = out.remaining_mut();
        match self.at {
            LineState::Start => {}
            LineState::Text => out.put_slice(b"\r\n"),
            LineState::Dot => {
                if self.before != Ending::Crlf {
                    self.blame(ContentFault::FramedDot);
                }
                out.put_slice(b".\r\n");
            }
            LineState::Cr { dot, run } => {
                self.behind_crs(dot, run, Ending::Cr, out);
            }
        }
        self.at = LineState::Start;
        self.given += (before - out.remaining_mut()) as u64;
    }

    /// Takes octets from the front of `input`, appends content to `out`, and says how many it took. It takes all, or,
    /// when the message ended, those up to and including the end.
    pub fn decode(&mut self, input: &[u8], out: &mut impl BufMut) -> (usize, Option<End>) {
        let before = out.remaining_mut();
        let (taken, end) = self.run(input, out);
        self.taken += taken as u64;
        self.given += (before - out.remaining_mut()) as u64;
        (taken, end)
    }

    /// The first fault so far. What was decoded after it means nothing.
    pub fn fault(&self) -> Option<ContentFault> {
        self.fault
    }

    /// Whether a bare CR was taken as a line end.
    pub fn took_bare_cr(&self) -> bool {
        self.bare_cr
    }

    /// Whether `lf_only` would have ended it.
    pub fn had_loose_dot(&self) -> bool {
        self.loose_dot
    }

    /// Octets of the message so far: of the wire or of the content, whichever are more.
    pub fn size(&self) -> u64 {
        self.taken.max(self.given)
    }

    /// Octets of the content so far, as `SIZE` counts them (RFC 1870 §5).
    pub fn content_size(&self) -> u64 {
        self.given
    }

    fn run(&mut self, input: &[u8], out: &mut impl BufMut) -> (usize, Option<End>) {
        // `input[run..i]` is content that is not copied yet.
        let (mut run, mut i) = (0, 0);
        let mut usual = true;
        while let Some(&octet) = input.get(i) {
            match self.at {
                LineState::Start if usual && octet != b'.' => match plain_lines(&input[i..]) {
                    Some(0) => self.at = LineState::Text,
                    Some(octets) => {
                        i += octets;
                        self.before = Ending::Crlf;
                    }
                    // Looked at line by line from here on, so that nothing is searched twice.
                    None => usual = false,
                },
                LineState::Text => {
                    let rest = &input[i..];
                    let Some(found) = memchr::memchr3(b'\r', b'\n', 0, rest) else {
                        break;
                    };
                    i += found;
                    match rest[found] {
                        b'\r' if rest.get(found + 1) == Some(&b'\n') => {
                            // The usual case: the line stays part of the run.
                            i += 2;
                            self.line(Ending::Crlf);
                        }
                        b'\r' => {
                            out.put_slice(&input[run..i]);
                            i += 1;
                            run = i;
                            self.at = LineState::Cr { dot: false, run: 1 };
                        }
                        b'\n' => {
                            out.put_slice(&input[run..i]);
                            out.put_slice(b"\r\n");
                            i += 1;
                            run = i;
                            self.line(Ending::Lf);
                        }
                        _ => {
                            self.blame(ContentFault::Nul);
                            i += 1;
                        }
                    }
                }
                LineState::Start if octet == b'.' => {
                    out.put_slice(&input[run..i]);
                    i += 1;
                    run = i;
                    self.at = LineState::Dot;
                }
                LineState::Start => self.at = LineState::Text,
                LineState::Dot => match octet {
                    b'\r' => {
                        i += 1;
                        run = i;
                        self.at = LineState::Cr { dot: true, run: 1 };
                    }
                    b'\n' => {
                        i += 1;
                        run = i;
                        if let Some(end) = self.dot_line(Ending::Lf, out) {
                            return (i, Some(end));
                        }
                        self.line(Ending::Lf);
                    }
                    // The dot was stuffing (RFC 5321 §4.5.2).
                    _ if self.is_dotted => self.at = LineState::Text,
                    _ => {
                        out.put_slice(b".");
                        self.at = LineState::Text;
                    }
                },
                LineState::Cr { dot, run: crs } => {
                    if octet == b'\r' {
                        self.at = LineState::Cr {
                            dot,
                            run: crs.saturating_add(1),
                        };
                        i += 1;
                        run = i;
                        continue;
                    }
                    let ending = if octet == b'\n' {
                        i += 1;
                        Ending::Crlf
                    } else {
                        Ending::Cr
                    };
                    run = i;
                    if let Some(end) = self.behind_crs(dot, crs, ending, out) {
                        return (i, Some(end));
                    }
                }
            }
        }
        out.put_slice(&input[run..]);
        (input.len(), None)
    }

    /// A run of CRs is over: with an LF all of it is one line end, without one each CR was bare.
    fn behind_crs(
        &mut self,
        dot: bool,
        crs: usize,
        ending: Ending,
        out: &mut impl BufMut,
    ) -> Option<End> {
        let mut lines = usize::from(!dot);
        if ending == Ending::Cr {
            if !self.leniency.bare_cr || crs > LONGEST_RUN {
                self.blame(ContentFault::BareCr);
            } else {
                self.bare_cr = true;
                lines = crs - usize::from(dot);
            }
        }
        if dot {
            if ending == Ending::Crlf && crs > 1 {
                // `<CR><LF>.<CR><CR><LF>` ends no message (CVE-2023-51764), whatever reads it as one.
                self.blame(ContentFault::FramedDot);
            } else if let Some(end) = self.dot_line(ending, out) {
                return Some(end);
            }
        }
        for _ in 0..lines {
            out.put_slice(b"\r\n");
        }
        self.line(ending);
        None
    }

    fn line(&mut self, ending: Ending) {
        self.before = ending;
        self.at = LineState::Start;
    }

    /// A line that is one dot has ended.
    fn dot_line(&mut self, ending: Ending, out: &mut impl BufMut) -> Option<End> {
        match (self.before, ending) {
            (Ending::Crlf, Ending::Crlf) if self.is_dotted => Some(End::Strict),
            (Ending::Crlf, Ending::Crlf) => {
                out.put_slice(b".\r\n");
                None
            }
            (Ending::Crlf | Ending::Lf, Ending::Crlf | Ending::Lf) if self.leniency.lf_only => {
                Some(End::Loose)
            }
            (before, ending) => {
                // Of chunks, `lf_only` means nothing.
                self.loose_dot |= self.is_dotted && before != Ending::Cr && ending != Ending::Cr;
                self.blame(ContentFault::FramedDot);
                None
            }
        }
    }

    fn blame(&mut self, fault: ContentFault) {
        self.fault.get_or_insert(fault);
    }
}

/// Octets at the front of `input`, which begins a line, that are whole lines ending CRLF without a dot in front: nearly all of
/// nearly every message, found at the speed of a few searches. `None`: there is a NUL or a lone CR among them.
fn plain_lines(input: &[u8]) -> Option<usize> {
    let sure = sure_octets(input);
    let begin = memchr::memrchr(b'\n', &input[..sure]).map_or(0, |lf| lf + 1);
    let mut end = begin;
    let mut lines = 0;
    for lf in memchr::memchr_iter(b'\n', &input[begin..]).map(|at| begin + at) {
        if lf == 0 || input[lf - 1] != b'\r' {
            break;
        }
        end = lf + 1;
        lines += 1;
        if input.get(end) == Some(&b'.') {
            break;
        }
    }
    let found = &input[begin..end];
    let is_clean =
        memchr::memchr(0, found).is_none() && memchr::memchr_iter(b'\r', found).count() == lines;
    is_clean.then_some(end)
}

/// Octets at the front of `input` in which [`plain_lines`] finds nothing to stop at. Looked at in blocks, pair by pair and without a
/// branch, so that the compiler takes many at once.
fn sure_octets(input: &[u8]) -> usize {
    const BLOCK: usize = 256;
    if input.first() == Some(&b'\n') {
        return 0;
    }
    let others = input.get(1..).unwrap_or_default().chunks_exact(BLOCK);
    let is_plain = |(ones, others): &(&[u8], &[u8])| {
        0 == ones.iter().zip(*others).fold(0, |found, (one, other)| {
            let (nul, cr, lf) = (*one == 0, *one == b'\r', *one == b'\n');
            let (next_lf, dot) = (*other == b'\n', *other == b'.');
            found
                | u8::from(nul)
                | (u8::from(cr) ^ u8::from(next_lf))
                | (u8::from(lf) & u8::from(dot))
        })
    };
    let blocks = input.chunks_exact(BLOCK).zip(others).take_while(is_plain);
    blocks.count() * BLOCK
}

/// Content to wire: dots stuffed (RFC 5321 §4.5.2). No lone CR or LF ever leaves: each becomes CRLF.
#[derive(Debug)]
pub struct DotStuffer {
    start: bool,
    cr: bool,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self {
            start: true,
            cr: false,
        }
    }
}

impl DotStuffer {
    /// A stuffer at the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the wire form of the next piece of content.
    pub fn encode(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let (mut run, mut i) = (0, 0);
        let mut usual = true;
        while let Some(&octet) = chunk.get(i) {
            if self.cr {
                // The CR is not written yet: whatever follows, the line ends here.
                out.extend_from_slice(b"\r\n");
                self.cr = false;
                self.start = true;
                if octet == b'\n' {
                    i += 1;
                }
                run = i;
                continue;
            }
            if self.start {
                if octet == b'.' {
                    out.extend_from_slice(&chunk[run..i]);
                    out.push(b'.');
                    run = i;
                } else if usual {
                    match plain_lines(&chunk[i..]) {
                        Some(0) => {}
                        Some(octets) => {
                            i += octets;
                            continue;
                        }
                        None => usual = false,
                    }
                }
                self.start = false;
            }
            let rest = &chunk[i..];
            let Some(found) = memchr::memchr2(b'\r', b'\n', rest) else {
                break;
            };
            i += found;
            if rest[found] == b'\r' && rest.get(found + 1) == Some(&b'\n') {
                i += 2;
                self.start = true;
            } else {
                out.extend_from_slice(&chunk[run..i]);
                if rest[found] == b'\r' {
                    self.cr = true;
                } else {
                    out.extend_from_slice(b"\r\n");
                    self.start = true;
                }
                i += 1;
                run = i;
            }
        }
        out.extend_from_slice(&chunk[run..]);
    }

    /// Ends the message: CRLF when the last line has none, then the final dot.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.cr || !self.start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = (Vec<u8>, Option<ContentFault>, Option<End>, usize);

    fn decode(wire: &[u8], size: usize, leniency: Leniency) -> Outcome {
        let mut decoder = Decoder::new(leniency);
        let (mut out, mut at, mut end) = (Vec::new(), 0, None);
        for chunk in wire.chunks(size.max(1)) {
            let (taken, ended) = decoder.decode(chunk, &mut out);
            at += taken;
            if ended.is_some() {
                end = ended;
                break;
            }
            assert_eq!(taken, chunk.len(), "takes all until the end");
        }
        (out, decoder.fault(), end, at)
    }

    /// Every chunking must agree; then the content, fault and end are compared.
    fn check(
        wire: &str,
        leniency: Leniency,
        content: Option<&str>,
        fault: Option<ContentFault>,
        end: Option<(End, usize)>,
    ) {
        let whole = decode(wire.as_bytes(), wire.len(), leniency);
        for size in 1..=wire.len() {
            let mut cut = decode(wire.as_bytes(), size, leniency);
            if fault.is_some() {
                cut.0.clone_from(&whole.0);
            }
            assert_eq!(cut, whole, "{wire:?} in chunks of {size}");
        }
        if let Some(content) = content {
            assert_eq!(String::from_utf8_lossy(&whole.0), content, "{wire:?}");
        }
        assert_eq!(whole.1, fault, "{wire:?}");
        assert_eq!(whole.2.map(|e| (e, whole.3)), end, "{wire:?}");
    }

    const PLAIN: Leniency = Leniency {
        lf_only: false,
        bare_cr: false,
    };
    const DEVICE: Leniency = Leniency {
        lf_only: false,
        bare_cr: true,
    };
    const LF: Leniency = Leniency {
        lf_only: true,
        bare_cr: false,
    };

    #[test]
    fn content_and_ends() {
        let strict = |n| Some((End::Strict, n));
        check(".\r\nQUIT", PLAIN, Some(""), None, strict(3));
        check("a\r\n.\r\nQUIT", PLAIN, Some("a\r\n"), None, strict(6));
        check(
            "..x\r\n..\r\n.y\r\n.\r\n",
            PLAIN,
            Some(".x\r\n.\r\ny\r\n"),
            None,
            strict(16),
        );
        check(
            "a\nb\n\r\n.\r\n",
            PLAIN,
            Some("a\r\nb\r\n\r\n"),
            None,
            strict(9),
        );
        check(
            "a\r\n. \r\n.\t\r\n .\r\n.\r\n",
            PLAIN,
            Some("a\r\n \r\n\t\r\n .\r\n"),
            None,
            strict(18),
        );
        check(
            "a\n..b\r\n.\r\n",
            PLAIN,
            Some("a\r\n.b\r\n"),
            None,
            strict(10),
        );
        check("a\rb\r\n.\r\n", DEVICE, Some("a\r\nb\r\n"), None, strict(8));
        check(
            "a\r\rb\r\n.\r\n",
            DEVICE,
            Some("a\r\n\r\nb\r\n"),
            None,
            strict(9),
        );
        check("no end", PLAIN, Some("no end"), None, None);
    }

    /// The content of these chunks, however each of them is cut, and the fault.
    fn chunks(wire: &str, leniency: Leniency) -> (String, Option<ContentFault>) {
        let decode = |size: usize| {
            let mut decoder = Decoder::of_chunks(leniency);
            let mut out = Vec::new();
            for piece in wire.as_bytes().chunks(size) {
                assert_eq!(
                    decoder.decode(piece, &mut out),
                    (piece.len(), None),
                    "{wire:?}"
                );
            }
            decoder.finish(&mut out);
            assert!(!decoder.had_loose_dot(), "{wire:?}");
            assert_eq!(decoder.content_size(), out.len() as u64, "{wire:?}");
            (String::from_utf8(out).unwrap(), decoder.fault())
        };
        let whole = decode(wire.len().max(1));
        for size in 1..=wire.len() {
            let cut = decode(size);
            assert_eq!(cut.1, whole.1, "{wire:?} in pieces of {size}");
            if whole.1.is_none() {
                assert_eq!(cut.0, whole.0, "{wire:?} in pieces of {size}");
            }
        }
        whole
    }

    #[test]
    fn in_chunks_a_dot_is_text() {
        for (wire, content) in [
            ("", ""),
            ("a\r\n", "a\r\n"),
            ("no end", "no end\r\n"),
            ("a\nb\n", "a\r\nb\r\n"),
            (".\r\n", ".\r\n"),
            (".", ".\r\n"),
            ("a\r\n.\r\nQUIT\r\n", "a\r\n.\r\nQUIT\r\n"),
            ("a\r\n..\r\n.b\r\n...", "a\r\n..\r\n.b\r\n...\r\n"),
            ("a\r\n.\r\n.\r\n.", "a\r\n.\r\n.\r\n.\r\n"),
            ("a\r\r\n.\r\n", "a\r\n.\r\n"),
            ("a\r\n.x\ny", "a\r\n.x\r\ny\r\n"),
        ] {
            assert_eq!(chunks(wire, PLAIN), (content.to_owned(), None), "{wire:?}");
        }
    }

    #[test]
    fn in_chunks_what_could_be_read_as_an_end_is_a_fault() {
        for (wire, fault) in [
            ("a\n.\n", ContentFault::FramedDot),
            ("a\n.\r\n", ContentFault::FramedDot),
            ("a\r\n.\n", ContentFault::FramedDot),
            ("a\n.", ContentFault::FramedDot),
            ("a\r\n.\r\r\n", ContentFault::FramedDot),
            ("a\r.\r\n", ContentFault::BareCr),
            ("a\r\n.\r", ContentFault::BareCr),
            ("a\r", ContentFault::BareCr),
            ("a\rb", ContentFault::BareCr),
            ("a\r\n\0.\r\n", ContentFault::Nul),
            ("\0", ContentFault::Nul),
        ] {
            assert_eq!(chunks(wire, PLAIN).1, Some(fault), "{wire:?}");
            // What a device is forgiven with its DATA is no end of a chunk.
            let lf_only = Leniency {
                lf_only: false,
                ..LF
            };
            assert_eq!(chunks(wire, lf_only).1, Some(fault), "{wire:?}");
        }
        assert_eq!(chunks("a\rb\r", DEVICE), ("a\r\nb\r\n".to_owned(), None));
        assert_eq!(chunks("a\r.\r", DEVICE).1, Some(ContentFault::FramedDot));
    }

    #[test]
    fn smuggling_never_ends_a_message() {
        for (sequence, fault) in [
            ("\n.\n", ContentFault::FramedDot),
            ("\n.\r\n", ContentFault::FramedDot),
            ("\r\n.\n", ContentFault::FramedDot),
            ("\r.\r", ContentFault::BareCr),
            ("\r.\n", ContentFault::BareCr),
            ("\n.\r", ContentFault::BareCr),
            ("\r.\r\n", ContentFault::BareCr),
            ("\r\n.\r", ContentFault::BareCr),
            ("\r\n.\r\r\n", ContentFault::FramedDot),
            ("\r\r\n.\r\r\n", ContentFault::FramedDot),
            ("\r\n.\r\r\r\n", ContentFault::FramedDot),
            ("\r\r\n.\n", ContentFault::FramedDot),
            ("\r\r\n.\r\rx", ContentFault::BareCr),
            ("\r\r.\r\n", ContentFault::BareCr),
            ("\r\n\0.\r\n", ContentFault::Nul),
            ("\r\r\n\0.\r\n", ContentFault::Nul),
            ("\r\0\n.\r\n", ContentFault::BareCr),
            ("\r\n.\0\r\n", ContentFault::Nul),
        ] {
            let wire = format!("A{sequence}MAIL FROM:<a@b>\r\n.\r\nX");
            let end = Some((End::Strict, wire.len() - 1));
            check(&wire, PLAIN, None, Some(fault), end);
        }
        for first in [".\n", ".\r", "\n.\n", "\r.\r\n"] {
            let wire = format!("{first}A\r\n.\r\nX");
            let seen = decode(wire.as_bytes(), 1, PLAIN);
            assert!(seen.1.is_some(), "{first:?}");
            assert_eq!(seen.3, wire.len() - 1, "{first:?}");
        }
        // A bare CR is a line at device level, but it still frames no dot.
        for sequence in [
            "\r.\r",
            "\r.\r\n",
            "\r\n.\rx",
            "\r.\n",
            "\r\n.\r\r\n",
            "\r\r.\r\n",
        ] {
            let wire = format!("A{sequence}B\r\n.\r\n");
            let end = Some((End::Strict, wire.len()));
            check(&wire, DEVICE, None, Some(ContentFault::FramedDot), end);
        }
    }

    #[test]
    fn any_run_of_crs_before_an_lf_is_one_line_end() {
        let end = |n| Some((End::Strict, n));
        let long = "\r".repeat(LONGEST_RUN * 3);
        for leniency in [PLAIN, DEVICE, LF] {
            for crs in ["\r", "\r\r", "\r\r\r", &long] {
                let wire = format!("A: b{crs}\n{crs}\n..c{crs}\nd\r\n.\r\nQUIT");
                let size = wire.len() - 4;
                check_some(&wire, leniency, "A: b\r\n\r\n.c\r\nd\r\n", end(size));
                // It may stand right before the dot line, too.
                let wire = format!("a{crs}\n.\r\nQUIT");
                check_some(&wire, leniency, "a\r\n", end(wire.len() - 4));
            }
        }
        // A dot line that ends so is no end; the CRLF in it frames the next one.
        for leniency in [PLAIN, DEVICE, LF] {
            let wire = "a\r\n.\r\r\n.\r\n";
            check(
                wire,
                leniency,
                None,
                Some(ContentFault::FramedDot),
                end(wire.len()),
            );
        }
    }

    /// As [`check`] without a fault, in chunks of a few sizes.
    fn check_some(wire: &str, leniency: Leniency, content: &str, end: Option<(End, usize)>) {
        for size in [1, 2, 3, 7, 1000, wire.len()] {
            let (out, fault, found, at) = decode(wire.as_bytes(), size, leniency);
            assert_eq!((out.as_slice(), fault), (content.as_bytes(), None));
            assert_eq!(found.map(|e| (e, at)), end, "in chunks of {size}");
        }
    }

    #[test]
    fn a_run_of_bare_crs_is_so_many_lines_within_reason() {
        let wire = format!("a{}b\r\n.\r\n", "\r".repeat(LONGEST_RUN));
        let content = format!("a{}b\r\n", "\r\n".repeat(LONGEST_RUN));
        check_some(&wire, DEVICE, &content, Some((End::Strict, wire.len())));
        let mut decoder = Decoder::new(DEVICE);
        let mut out = Vec::new();
        decoder.decode(&b"\r".repeat(100 * LONGEST_RUN), &mut out);
        decoder.decode(b"b\r\n.\r\n", &mut out);
        assert_eq!(decoder.fault(), Some(ContentFault::BareCr));
        assert!(out.len() < 10, "{} octets of content", out.len());
    }

    #[test]
    fn lf_only_clients() {
        check(
            "a\nb\n.\nMAIL",
            LF,
            Some("a\r\nb\r\n"),
            None,
            Some((End::Loose, 6)),
        );
        check(
            "a\r\n.\r\nMAIL",
            LF,
            Some("a\r\n"),
            None,
            Some((End::Strict, 6)),
        );
        check(
            "a\n.\r\nMAIL",
            LF,
            Some("a\r\n"),
            None,
            Some((End::Loose, 5)),
        );
    }

    /// Every message of up to 7 octets of this alphabet, in every chunk size: ends exactly at the first literal
    /// `\r\n.\r\n`, the CRLF of the DATA command counted.
    #[test]
    fn the_end_is_the_literal_sequence() {
        let alphabet = b"\r\n.a";
        for n in 0..4usize.pow(7) {
            let wire: Vec<u8> = (0..7).map(|k| alphabet[n / 4usize.pow(k) % 4]).collect();
            let framed = [b"\r\n", &wire[..]].concat();
            let expected = memchr::memmem::find(&framed, b"\r\n.\r\n").map(|at| at + 3);
            for (size, leniency) in [(1, PLAIN), (2, DEVICE), (3, PLAIN)] {
                let (_, _, end, at) = decode(&wire, size, leniency);
                assert_eq!(end.map(|_| at), expected, "{wire:?}");
            }
        }
    }

    #[test]
    fn decode_undoes_encode_for_every_chunking() {
        let pieces: [&[u8]; 5] = [b"\r\n", b".", b"..", b"a", b"\x80b"];
        for n in 0..5usize.pow(5) {
            let mut content: Vec<u8> = (0..5)
                .flat_map(|k| pieces[n / 5usize.pow(k) % 5].to_vec())
                .collect();
            content.extend_from_slice(b"\r\n");
            for size in [1, 2, 3, content.len()] {
                let (mut stuffer, mut wire) = (DotStuffer::new(), Vec::new());
                for chunk in content.chunks(size) {
                    stuffer.encode(chunk, &mut wire);
                }
                stuffer.finish(&mut wire);
                for size in [1, 2, wire.len()] {
                    let (out, fault, end, at) = decode(&wire, size, PLAIN);
                    assert_eq!((out.as_slice(), fault), (content.as_slice(), None));
                    assert_eq!((end, at), (Some(End::Strict), wire.len()));
                }
            }
        }
    }

    #[test]
    fn plain_lines_are_found_the_same_in_blocks_and_one_by_one() {
        /// One by one.
        fn slowly(input: &[u8]) -> Option<usize> {
            let mut end = 0;
            loop {
                let rest = &input[end..];
                let Some(lf) = rest.iter().position(|octet| *octet == b'\n') else {
                    break;
                };
                if lf == 0 || rest[lf - 1] != b'\r' || end > 0 && rest[0] == b'.' {
                    break;
                }
                end += lf + 1;
            }
            let found = &input[..end];
            let count = |octet| found.split(|o| *o == octet).count();
            (count(0) == 1 && count(b'\r') == count(b'\n')).then_some(end)
        }
        let mut random = fastrand::Rng::with_seed(8);
        for round in 0..3_000 {
            let mut text = Vec::new();
            while text.len() < 1_200 {
                text.extend(std::iter::repeat_n(b'x', random.usize(0..90)));
                text.extend_from_slice(b"\r\n");
            }
            for _ in 0..round % 3 {
                let at = random.usize(0..text.len());
                text[at] = *random.choice(b"\r\n.\0x".iter()).unwrap();
            }
            let at = random.usize(0..4);
            assert_eq!(plain_lines(&text[at..]), slowly(&text[at..]), "{round}");
        }
    }

    #[test]
    fn the_encoder_lets_no_lone_cr_or_lf_out() {
        for (content, wire) in [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
            ("a\n.\nb\r\n", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r.\rb\r\n", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\n.\r\nb", "a\r\n..\r\nb\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
        ] {
            for size in 1..=content.len().max(1) {
                let (mut stuffer, mut out) = (DotStuffer::new(), Vec::new());
                for chunk in content.as_bytes().chunks(size) {
                    stuffer.encode(chunk, &mut out);
                }
                stuffer.finish(&mut out);
                assert_eq!(String::from_utf8_lossy(&out), wire, "{content:?}");
            }
        }
    }

    #[test]
    fn counts_what_it_drops() {
        let mut decoder = Decoder::new(PLAIN);
        let mut out = Vec::new();
        decoder.decode(&b".\n".repeat(1000), &mut out);
        assert_eq!((decoder.size(), out.len()), (2000, 0));
    }
}

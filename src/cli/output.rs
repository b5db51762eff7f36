//! How commands print: tables, times, sizes, and text from mail made safe for a terminal.
//!
//! Apart so that every command looks alike and none forgets to escape. It decides nothing about what is shown.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::exit::Failure;

/// Text that came from mail or from an upstream, at most this many octets on a terminal.
pub const MOST: usize = 200;

/// Makes text from outside harmless: control characters, ESC and characters that change the reading direction are
/// written as `\u{…}`, and what is longer than [`MOST`] is cut.
pub fn safe(text: &str) -> String {
    cut(text, MOST)
}

/// As [`safe`], cut at `most` octets.
pub fn cut(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let harmful = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        let mark = out.len();
        if harmful {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
        if out.len() > most {
            out.truncate(mark);
            while out.len() + '…'.len_utf8() > most && out.pop().is_some() {}
            out.push('…');
            break;
        }
    }
    out
}

/// `2026-11-23 23:10:04Z`.
pub fn human(at: SystemTime) -> String {
    OffsetDateTime::from(at)
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second]Z"
        ))
        .unwrap_or_default()
}

/// RFC 3339 in UTC, for programs.
pub fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at)
        .replace_nanosecond(0)
        .unwrap_or_else(|_| OffsetDateTime::from(at))
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// `45s`, `12m`, `3h05m`, `2d04h`.
pub fn span(length: Duration) -> String {
    let s = length.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m", s / 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How long ago, or nothing at all if it lies ahead.
pub fn since(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}

/// `in 4m` or `now`.
pub fn ahead(at: SystemTime, now: SystemTime) -> String {
    match at.duration_since(now) {
        Ok(wait) if wait.as_secs() > 0 => format!("in {}", span(wait)),
        _ => "now".to_owned(),
    }
}

/// `812 B`, `14 KiB`, `3.2 MiB`.
pub fn size(octets: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * 1024;
    match octets {
        0..KIB => format!("{octets} B"),
        KIB..MIB => format!("{} KiB", octets / KIB),
        _ => format!("{:.1} MiB", octets as f64 / MIB as f64),
    }
}

/// `1 message`, `3 messages`.
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// Columns under their heads, parted by two blanks; the last one is not padded.
pub fn table(out: &mut dyn Write, heads: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = heads.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads: Vec<String> = heads.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A value for programs, indented, with a line end.
pub fn json(value: &serde_json::Value) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// A line on standard output.
pub fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// A line on standard error; when nobody listens there, nothing can be done about it.
pub fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The time a command looks at.
pub fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside() {
        fn check(input: &str, expected: &str) {
            assert_eq!(safe(input), expected);
        }
        check("plain äö", "plain äö");
        check("a\x1b[31mb", "a\\u{1b}[31mb");
        check("a\r\nb\t", "a\\u{d}\\u{a}b\\u{9}");
        check(
            "x\u{202e}y\u{200f}\u{2066}",
            "x\\u{202e}y\\u{200f}\\u{2066}",
        );
        for text in ["\u{1b}".repeat(500), "ä".repeat(500), "a".repeat(201)] {
            let cut = safe(&text);
            assert!(cut.len() <= MOST && cut.ends_with('…'), "{}", cut.len());
        }
        assert_eq!(safe(&"a".repeat(200)).len(), 200);
    }

    #[test]
    fn lengths_of_time() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (3900, "1h05m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn times() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_475_404_123);
        assert_eq!(human(at), "2026-11-23 23:10:04Z");
        assert_eq!(rfc3339(at), "2026-11-23T23:10:04Z");
    }

    #[test]
    fn tables_line_up() {
        let mut out = Vec::new();
        table(
            &mut out,
            &["A", "LONG", "Z"],
            &[vec!["ääää".into(), "x".into(), String::new()]],
        )
        .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A     LONG  Z\nääää  x\n");
    }

    #[test]
    fn sizes() {
        assert_eq!(
            [size(1), size(2048), size(36_700_160)],
            ["1 B", "2 KiB", "35.0 MiB"]
        );
    }
}

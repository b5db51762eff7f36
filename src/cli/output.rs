//! How commands print: tables, lengths of time, sizes, JSON. Every command looks alike; what is shown is the command's own affair.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::SystemTime,
};

use serde::Serialize;

use super::exit::CommandError;
use crate::mail::text;
pub use crate::mail::time::{ahead, since, span};

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

/// Columns under their heads, two blanks apart; the last one is not padded.
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

/// A value for programs: indented, keys in alphabetical order, with a line end.
pub fn json(value: &(impl Serialize + ?Sized)) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let value = serde_json::to_value(value).map_err(io::Error::from)?;
    let value = serde_json::to_string_pretty(&value).map_err(io::Error::from)?;
    out.write_all(text::json(&value).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// A line on standard output.
pub fn line(text: impl std::fmt::Display) -> Result<(), CommandError> {
    writeln!(
        io::stdout().lock(),
        "{}",
        text::shown_lines(&text.to_string())
    )?;
    Ok(())
}

/// Lines on standard output, together.
pub fn lines(text: &[u8]) -> Result<(), CommandError> {
    let text = String::from_utf8_lossy(text);
    io::stdout()
        .lock()
        .write_all(text::shown_lines(&text).as_bytes())?;
    Ok(())
}

/// A line on standard error; when nobody listens there, nothing can be done about it.
pub fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(
        io::stderr().lock(),
        "{}",
        text::shown_lines(&text.to_string())
    );
}

/// The time a command looks at.
pub fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

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

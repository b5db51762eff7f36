//! Which lines a section takes up, with the comments that are its own.
//!
//! A comment belongs to the header that it touches from above, else to the key that it touches from below; one behind a blank line
//! belongs to nobody and stays. What is put in with one blank line above and taken out with the one above leaves no trace.

use std::ops::Range;

use super::{
    layout::Layout,
    lexis::{line_end, line_start, newline},
};

/// Behind the section that ends with this piece, and behind the comments that touch it.
pub(super) fn tail(layout: &Layout<'_>, last: usize) -> usize {
    let end = layout.end(last);
    let next = layout.start(last + 1);
    let mut at = end;
    while at < next && is_comment(layout.text, at) {
        at = line_end(layout.text, at);
    }
    // They touch the next header, and are its own.
    if at == next && last + 1 < layout.pieces.len() {
        return end;
    }
    at
}

/// From the comments that touch the header of a piece.
pub(super) fn head(layout: &Layout<'_>, first: usize) -> usize {
    let floor = first.checked_sub(1).map_or(0, |before| layout.end(before));
    let mut at = layout.start(first);
    while let Some(above) = line_above(layout.text, at, floor)
        && is_comment(layout.text, above)
    {
        at = above;
    }
    at
}

/// What goes when the pieces of this range go: with the comments of theirs and the blank line above.
pub(super) fn whole(layout: &Layout<'_>, pieces: &Range<usize>) -> Range<usize> {
    let floor = pieces
        .start
        .checked_sub(1)
        .map_or(0, |before| layout.end(before));
    let mut start = head(layout, pieces.start);
    if let Some(above) = line_above(layout.text, start, floor)
        && is_blank(layout.text, above)
    {
        start = above;
    }
    lines(layout.text, start..tail(layout, pieces.end - 1))
}

/// Whole lines, so that a file without a line end at its end has none afterwards.
pub(super) fn lines(text: &str, range: Range<usize>) -> Range<usize> {
    let is_open = range.end == text.len() && !text.ends_with('\n');
    let before = text.get(..range.start).unwrap_or_default();
    let start = match before.strip_suffix('\n') {
        Some(rest) if is_open => rest.strip_suffix('\r').unwrap_or(rest).len(),
        _ => range.start,
    };
    start..range.end
}

/// Puts whole lines (without the last line end) in at the start of a line, or at the end of the text.
pub(super) fn put(text: &str, at: usize, lines: &str) -> String {
    let newline = newline(text);
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    if before.is_empty() || before.ends_with('\n') {
        format!("{before}{lines}{newline}{after}")
    } else {
        format!("{before}{newline}{lines}{after}")
    }
}

/// Puts a section in, behind one blank line.
pub(super) fn put_section(text: &str, at: usize, section: &str) -> String {
    if text.is_empty() {
        return format!("{section}\n");
    }
    put(text, at, &format!("{}{section}", newline(text)))
}

/// Takes a range out.
pub(super) fn cut(text: &str, range: &Range<usize>) -> String {
    let before = text.get(..range.start).unwrap_or_default();
    let after = text.get(range.end..).unwrap_or_default();
    format!("{before}{after}")
}

/// Puts something in the place of a range.
pub(super) fn replace(text: &str, range: &Range<usize>, by: &str) -> String {
    let before = text.get(..range.start).unwrap_or_default();
    let after = text.get(range.end..).unwrap_or_default();
    format!("{before}{by}{after}")
}

fn line_above(text: &str, at: usize, floor: usize) -> Option<usize> {
    (at > floor).then(|| line_start(text, at - 1))
}

fn line(text: &str, at: usize) -> &str {
    text.get(at..line_end(text, at)).unwrap_or_default().trim()
}

fn is_comment(text: &str, at: usize) -> bool {
    line(text, at).starts_with('#')
}

fn is_blank(text: &str, at: usize) -> bool {
    at < text.len() && line(text, at).is_empty()
}

//! How values stand on a page: `{{ value|filter }}` in the templates.
//!
//! Text from mail goes through [`shown`], so that nothing in it turns the text around it or hides; what then becomes of `<` and `&`
//! is askama's. `window.js` writes the same values the same way when they change.

#![allow(
    unreachable_pub,
    clippy::inline_always,
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "`filter_fn` wants a filter so, and makes it so"
)]

use std::{
    fmt::{Display, Write as _},
    time::SystemTime,
};

use askama::{Result, Values, filters::Safe};

use super::assets;
use crate::{
    mail::{text, time::rfc3339},
    view::MemberStateView,
};

/// Text from outside, at most so many octets of it.
#[askama::filter_fn]
pub(super) fn shown(value: impl Display, _: &dyn Values, most: usize) -> Result<String> {
    Ok(text::shown_to(&value.to_string(), most))
}

/// As [`shown`], in its own lines: sentences with words from outside in them.
#[askama::filter_fn]
pub(super) fn lines(value: impl Display, _: &dyn Values) -> Result<String> {
    Ok(text::shown_lines(&value.to_string()).into_owned())
}

/// The path of an asset.
#[askama::filter_fn]
pub(super) fn asset(stem: impl Display, _: &dyn Values) -> Result<String> {
    Ok(assets::path(&stem.to_string()))
}

/// An icon; a word beside it says the same.
#[askama::filter_fn]
pub(super) fn icon(name: impl Display, _: &dyn Values) -> Result<Safe<String>> {
    Ok(Safe(drawn(&name.to_string())))
}

fn drawn(name: &str) -> String {
    format!(
        "<svg class=\"icon\" aria-hidden=\"true\"><use href=\"{}#{name}\"/></svg>",
        assets::path("icons")
    )
}

/// A state: word, icon and colour.
#[askama::filter_fn]
pub(super) fn state(word: impl Display, _: &dyn Values) -> Result<Safe<String>> {
    let word: String = word.to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == ' ';
    let word: String = word.chars().filter(|c| is_plain(*c)).collect();
    let class = word.replace(' ', "-");
    Ok(Safe(format!(
        "<span class=\"state {class}\">{}<span>{word}</span></span>",
        drawn(&class)
    )))
}

/// How another gateway is: as [`state`], in words of a person.
#[askama::filter_fn]
pub(super) fn member(state: &MemberStateView, _: &dyn Values) -> Result<Safe<String>> {
    let word = match state {
        MemberStateView::Alive => "at work",
        MemberStateView::Silent => "silent",
        MemberStateView::Draining => "ending",
        MemberStateView::Apart => "was away",
        MemberStateView::Gone => "taken over",
    };
    let class = word.replace(' ', "-");
    Ok(Safe(format!(
        "<span class=\"state {class}\">{}<span>{word}</span></span>",
        drawn(&class)
    )))
}

/// What became of a proposal: as [`state`], but one that is open waits, which an open connector does not.
#[askama::filter_fn]
pub(super) fn progress(word: impl Display, _: &dyn Values) -> Result<Safe<String>> {
    let (word, drawn_as) = match word.to_string().as_str() {
        "open" => ("open", "waiting"),
        "applied" => ("applied", "done"),
        _ => ("dropped", "dropped"),
    };
    Ok(Safe(format!(
        "<span class=\"state {drawn_as}\">{}<span>{word}</span></span>",
        drawn(drawn_as)
    )))
}

/// The state of an incident: one that is open is nothing good, as an open connector is.
#[askama::filter_fn]
pub(super) fn attended(word: impl Display, _: &dyn Values) -> Result<Safe<String>> {
    let word = word.to_string();
    let class = match word.as_str() {
        "open" => "unmet",
        "acknowledged" => "met",
        _ => "recovered",
    };
    Ok(Safe(format!(
        "<span class=\"state {class}\">{}<span>{}</span></span>",
        drawn(class),
        text::shown_to(&word, 20).replace(['<', '>', '&'], "")
    )))
}

/// As [`lines`]: words of ours, with commands and keys between backticks.
#[askama::filter_fn]
pub(super) fn coded(value: impl Display, _: &dyn Values) -> Result<Safe<String>> {
    Ok(Safe(with_code(&text::shown_lines(&value.to_string()))))
}

fn with_code(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        let part = part
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        if at % 2 == 0 {
            out.push_str(&part);
        } else {
            let _ = write!(out, "<code>{part}</code>");
        }
    }
    out
}

/// A time as [`crate::mail::time::rfc3339`] writes it. The script makes it local.
#[askama::filter_fn]
pub(super) fn when(time: impl Display, _: &dyn Values) -> Result<Safe<String>> {
    Ok(Safe(at(&time.to_string())))
}

fn at(time: &str) -> String {
    let is_time = time.len() >= 20
        && time
            .bytes()
            .all(|b| b.is_ascii_digit() || b"-:.TZ".contains(&b));
    let (Some(day), Some(hour), true) = (time.get(..10), time.get(11..19), is_time) else {
        return "–".to_owned();
    };
    format!(
        "<time datetime=\"{time}\" title=\"{day} {hour} UTC\">{day} {hour}<span class=\"zone\"> UTC</span></time>"
    )
}

/// The same, of a time that nobody has written yet.
#[askama::filter_fn]
pub(super) fn moment(time: &SystemTime, _: &dyn Values) -> Result<Safe<String>> {
    Ok(Safe(at(&rfc3339(*time))))
}

/// A number with its thousands apart.
#[askama::filter_fn]
pub(super) fn count(number: impl Display, _: &dyn Values) -> Result<String> {
    Ok(apart(&number.to_string()))
}

fn apart(digits: &str) -> String {
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The path of a connector's page.
#[askama::filter_fn]
pub(super) fn at_connector(name: impl Display, _: &dyn Values) -> Result<String> {
    Ok(connector_path(&name.to_string()))
}

/// See [`at_connector`]. One may be called `new`: written so, it is not the page for a new one.
pub(super) fn connector_path(name: &str) -> String {
    if name == "new" {
        return "/connectors/%6Eew".to_owned();
    }
    format!("/connectors/{}", path_part(name))
}

/// Octets.
#[askama::filter_fn]
pub(super) fn size(octets: &u64, _: &dyn Values) -> Result<String> {
    Ok(sized(*octets))
}

fn sized(octets: u64) -> String {
    const KB: u64 = 1 << 10;
    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;
    match octets {
        0..KB => format!("{octets} B"),
        KB..MB => tenths(octets, KB, "KB"),
        MB..GB => tenths(octets, MB, "MB"),
        _ => tenths(octets, GB, "GB"),
    }
}

fn tenths(octets: u64, unit: u64, name: &str) -> String {
    let tenths = (octets * 10 + unit / 2) / unit;
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", apart(&(tenths / 10).to_string()))
    }
}

/// Seconds in their two largest units.
#[askama::filter_fn]
pub(super) fn span(seconds: &u64, _: &dyn Values) -> Result<String> {
    Ok(spanned(*seconds))
}

/// A name or an address as a part of a path.
pub(super) fn path_part(name: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    encoded.replace('+', "%20")
}

/// See [`span`].
pub(super) fn spanned(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |more: u64, unit: &str, less: u64, small: &str| match less {
        0 => format!("{more} {unit}"),
        _ => format!("{more} {unit} {less} {small}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min"),
        3_600..86_400 => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_out_and_nothing_is_markup() {
        assert_eq!(
            with_code("Run `postern queue drop <ID>` & wait."),
            "Run <code>postern queue drop &lt;ID&gt;</code> &amp; wait."
        );
        assert_eq!(with_code("<b>`<i>"), "&lt;b&gt;<code>&lt;i&gt;</code>");
    }

    #[test]
    fn numbers_are_readable() {
        let numbers: Vec<String> = ["0", "999", "1000", "1234567"].map(apart).into();
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let sizes: Vec<String> = [0, 303, 4_300, 1 << 20, 36 << 20, 5 << 30, 5 << 40]
            .map(sized)
            .into();
        assert_eq!(
            sizes,
            [
                "0 B", "303 B", "4.2 KB", "1.0 MB", "36 MB", "5.0 GB", "5,120 GB"
            ]
        );
        let spans: Vec<String> = [5, 60, 3_600, 7_260, 90_000, 172_800].map(spanned).into();
        assert_eq!(
            spans,
            ["5 s", "1 min", "1 h", "2 h 1 min", "1 d 1 h", "2 d"]
        );
    }
}

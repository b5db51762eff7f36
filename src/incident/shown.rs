//! An incident as it is shown: its row with the words of its kind. Text from outside comes out as one line without addresses.

use super::catalogue::IncidentKind;
use crate::{
    mail::{
        cause::{self, Cause},
        text::shown_to,
        time::rfc3339,
    },
    view::{IncidentView, OpenIncidents, ToldView},
    window::incidents::{IncidentRow, OutboxRow},
};

/// Octets of one line of evidence.
const LINE: usize = 500;

/// What it is called: `i42`.
pub fn id(number: i64) -> String {
    format!("i{number}")
}

/// The number of what is called so.
pub fn number(id: &str) -> Option<i64> {
    let digits = id.strip_prefix('i').unwrap_or(id);
    digits.parse().ok().filter(|number| *number > 0)
}

/// With what was told of it.
pub fn view(row: &IncidentRow, told: &[OutboxRow]) -> IncidentView {
    let kind = IncidentKind::parse(&row.kind);
    let text = kind.map(IncidentKind::text);
    // What it is stands before what it may be.
    let cause = row.cause.as_deref().and_then(cause::named);
    let causes = match cause {
        Some(cause) => vec![cause.says.to_owned()],
        None => text
            .map_or(&[][..], |text| text.causes)
            .iter()
            .map(|cause| (*cause).to_owned())
            .collect(),
    };
    let usual = text.map_or("", |text| text.remedy);
    let remedy = match cause {
        Some(cause) => format!(
            "{}. {usual}",
            cause.fix_for(row.object.split('/').next().unwrap_or_default())
        ),
        None => usual.to_owned(),
    };
    IncidentView {
        id: id(row.id),
        kind: row.kind.clone(),
        object: row.object.clone(),
        severity: row.severity.clone(),
        state: row.state.clone(),
        opened_at: rfc3339(row.opened),
        last_seen_at: rfc3339(row.seen),
        recovered_at: row.recovered.map(rfc3339),
        count: row.count,
        cause: row.cause.clone(),
        title: kind.map_or_else(|| row.kind.clone(), |kind| kind.title(&row.object)),
        evidence: row.evidence.clone(),
        causes,
        remedy,
        note: row.note.clone(),
        told: told.iter().map(of_outbox).collect(),
    }
}

fn of_outbox(row: &OutboxRow) -> ToldView {
    ToldView {
        channel: row.channel.clone(),
        transition: row.transition.clone(),
        at: row.at.map(rfc3339),
        result: row.result.clone(),
    }
}

/// By severity.
pub fn counts(open: &[(String, u64)]) -> OpenIncidents {
    let of = |word: &str| {
        let found = open.iter().find(|(severity, _)| severity == word);
        found.map_or(0, |(_, count)| *count)
    };
    OpenIncidents {
        critical: of("critical"),
        warning: of("warning"),
        info: of("info"),
    }
}

/// A reply or an error as evidence: one line, bounded, and of each address the domain alone.
pub fn evidence(said: &str) -> String {
    let shown = shown_to(&without_addresses(said), LINE);
    // The word at the end is short, and says the most.
    match (Cause::of(&shown), Cause::of(said)) {
        (None, Some(cause)) => format!("{shown} [{cause}]"),
        _ => shown,
    }
}

/// `somebody@corp.example` becomes `…@corp.example`.
fn without_addresses(text: &str) -> String {
    // What may stand in a local part without quotes (RFC 5322 §3.2.3), and beyond ASCII.
    let is_local =
        |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.…".contains(c) || !c.is_ascii();
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('@').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            out.push_str(part);
            break;
        }
        let kept = match part.strip_suffix('"').and_then(|quoted| quoted.rfind('"')) {
            Some(begin) => part.get(..begin).unwrap_or_default(),
            None => part.trim_end_matches(is_local),
        };
        out.push_str(kept);
        out.push_str(if kept.len() < part.len() { "…@" } else { "@" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_names_no_address_and_is_one_line() {
        for (said, expected) in [
            (
                "550 5.1.1 <kim.lee+x@corp.example>: no such user",
                "550 5.1.1 <…@corp.example>: no such user",
            ),
            ("a@b.c, d@e.f", "…@b.c, …@e.f"),
            ("\"Kim Lee\"@corp.example is gone", "…@corp.example is gone"),
            ("to=\"x\" \"a b\"@c.d", "to=\"x\" …@c.d"),
            ("grüße@corp.example", "…@corp.example"),
            ("…@corp.example", "…@corp.example"),
            ("@channel hello @all", "@channel hello @all"),
            ("no address", "no address"),
            ("o'hara@x.y", "…@x.y"),
            ("a@b@c.d", "…@…@c.d"),
            ("one\r\ntwo\u{1b}[2J", "one\\u{d}\\u{a}two\\u{1b}[2J"),
        ] {
            assert_eq!(evidence(said), expected, "{said}");
        }
        assert!(evidence(&"x".repeat(10_000)).len() < 600);
    }

    #[test]
    fn ids_read_back() {
        assert_eq!(number(&id(42)), Some(42));
        assert_eq!(number("42"), Some(42));
        for wrong in ["", "i", "i0", "i-1", "x42", "i4 2"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}

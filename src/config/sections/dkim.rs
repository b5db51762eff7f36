//! `[[dkim]]`: the keys that sign mail. Each is read here, so that one that could not sign is an error before there is mail.
//!
//! What they sign, the connector knows; which of them signs when, `connector::dkim`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{context::Context, secret};
use crate::{
    config::{
        diagnostic::Span,
        settings::Secrets,
        table::{At, Table},
        values::{self, Fault, fault, plain},
    },
    connector::dkim::{DkimKey, DkimPair, record_name, runs_out},
    mail::{address::Domain, time::day},
};

const DAY: Duration = Duration::from_hours(24);
/// Keys that run out within this are spoken of.
const SOON: Duration = Duration::from_hours(30 * 24);

/// The keys, each with its section.
pub(super) struct DkimKeys {
    all: Vec<(DkimKey, Span)>,
    /// There are sections, right or wrong.
    header: Option<Span>,
}

impl DkimKeys {
    pub(super) fn list(&self) -> Vec<DkimKey> {
        self.all.iter().map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn are_there(&self) -> bool {
        self.header.is_some()
    }

    /// Says so where nothing signs with them.
    pub(super) fn check_use(&self, context: Context<'_>, is_used: bool) {
        if let (Some(header), false) = (&self.header, is_used) {
            context.warning(
                header,
                fault!("no connector signs, so that this key has no effect";
                    "write dkim = true in a [[connector]] with type = \"smtp\"; Exchange Online signs what goes by graph itself"),
            );
        }
    }
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> DkimKeys {
    let mut keys = DkimKeys {
        all: Vec::new(),
        header: None,
    };
    for table in root.tables("dkim") {
        let header = table.span.clone();
        keys.header.get_or_insert(header.clone());
        if let Some(key) = one(context, &table) {
            let mut known = keys.all.iter();
            if let Some((_, first)) = known
                .find(|(known, _)| known.domain == key.domain && known.selector == key.selector)
            {
                table.error(
                    "selector",
                    fault!(
                        "{} is already in line {}",
                        key.record_name(),
                        context.source.line(first);
                        "another key has another selector"
                    ),
                );
            }
            keys.all.push((key, header));
        }
        table.finish();
    }
    if context.secrets != Secrets::Ignore {
        doubt_dates(context, &keys.all, SystemTime::now());
    }
    keys
}

fn one(context: Context<'_>, table: &Table<'_>) -> Option<DkimKey> {
    table.requires("domain", "domain = \"corp.example\"");
    table.requires("selector", "selector = \"p2026\"");
    table.requires(
        "key",
        "key = { file = \"p2026.key\" }, a file that `postern dkim new` wrote",
    );
    let domain = table.parsed("domain", |text| {
        let domain = values::domain(text)?;
        if domain.is_literal() {
            return Err(
                fault!("an address has no keys"; "write a domain, such as \"corp.example\""),
            );
        }
        Ok(domain)
    });
    let selector = table.parsed("selector", values::selector);
    let key = secret::read_lines(context, table, "key");
    if let Some(given) = &key
        && given.known
        && let Err(why) = DkimPair::read(&given.secret)
    {
        context.error(
            &given.span,
            Fault::new(format!("this key {why}"), why.remedy()),
        );
    }
    let from = table.day("active_from").map(|from| from.value);
    // Its last day is a whole one.
    let last = table.day("active_until");
    let until = last.as_ref().and_then(|last| last.value.checked_add(DAY));
    if let (Some(from), Some(At { value, span })) = (from, &last)
        && *value < from
    {
        context.error(
            span,
            fault!("this key would never sign: `active_until` is before `active_from`"),
        );
    }
    let (domain, selector) = (domain?.value, selector?);
    let name = record_name(&domain, &selector.value);
    if name.len() > values::LONGEST_NAME {
        context.error(
            &selector.span,
            fault!(
                "{} cannot be published: a name has at most {} octets",
                plain(&name),
                values::LONGEST_NAME
            ),
        );
    }
    Some(DkimKey {
        domain,
        selector: selector.value,
        // Of one that is known to the unit only nothing is read.
        key: key.map(|given| given.known.then_some(given.secret))?,
        from,
        until,
    })
}

/// Says of each domain that its mail is not signed any more, or will not be soon.
fn doubt_dates(context: Context<'_>, all: &[(DkimKey, Span)], now: SystemTime) {
    let domains: BTreeMap<&Domain, &Span> =
        all.iter().map(|(key, span)| (&key.domain, span)).collect();
    let keys: Vec<&DkimKey> = all.iter().map(|(key, _)| key).collect();
    for (domain, span) in domains {
        let Some(end) = runs_out(&keys, domain, now) else {
            continue;
        };
        let message = if end <= now {
            format!("mail from {domain} has not been signed since {}", day(end))
        } else if end.duration_since(now).is_ok_and(|left| left < SOON) {
            format!("mail from {domain} will not be signed from {} on", day(end))
        } else {
            continue;
        };
        context.warning(
            span,
            Fault::new(
                message,
                "make the next key with `postern dkim new`, publish its record, and add its [[dkim]] beside this one",
            ),
        );
    }
}

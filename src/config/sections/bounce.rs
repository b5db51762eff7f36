//! `[bounce]`: who is told when a message has failed, waits or was delivered, from which address, and of what.

use std::time::Duration;

use crate::{
    config::{
        table::Table,
        values::{self, Fault},
    },
    delivery::BounceSettings,
    mail::address::Address,
};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// `None` only when no mailbox can be made of the host name, which was checked to be a domain.
pub(super) fn read(root: &Table<'_>, hostname: &str) -> Option<BounceSettings> {
    let postmaster = || Address::parse(&format!("postmaster@{hostname}")).ok();
    let table = root.table("bounce");
    let from = table.parsed("from", visible).map(|from| from.value);
    let bounce = BounceSettings {
        to_sender: table.flag("to_sender"),
        is_from_given: from.is_some(),
        from: from.or_else(postmaster)?,
        copy_to: table.list_or_default("copy_to", values::address),
        delay_notice: table.parsed_or_default("delay_notice", delay).flatten(),
        full_limit: table.size("full_limit"),
        hostname: hostname.to_owned(),
    };
    table.finish();
    Some(bounce)
}

/// It stands in every report, and a report has to reach everybody.
fn visible(text: &str) -> Result<Address, Fault> {
    let address = values::address(text)?;
    if address.needs_utf8() {
        return Err(Fault::new(
            "the address of reports is ASCII: no report could leave by a server without SMTPUTF8 (RFC 6531)",
            "write from = \"postmaster@corp.example\"",
        ));
    }
    Ok(address)
}

/// Longer than a moment, and not `off`.
fn delay(text: &str) -> Result<Option<Duration>, Fault> {
    if text == "off" {
        return Ok(None);
    }
    let wait = values::duration(text)?;
    if !(SHORTEST..=LONGEST).contains(&wait) {
        return Err(Fault::new(
            "between 1s and 365d, or \"off\"",
            "write delay_notice = \"4h\", or leave it out",
        ));
    }
    Ok(Some(wait))
}

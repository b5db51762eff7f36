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
    let from = table.parsed("from", values::address).map(|from| from.value);
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

//! `[bounce]`: who is told when a message has failed, and from which address.

use crate::{
    config::{table::Table, values},
    delivery::BounceSettings,
    mail::address::Address,
};

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
        hostname: hostname.to_owned(),
    };
    table.finish();
    Some(bounce)
}

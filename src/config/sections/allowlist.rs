//! `[allowlist]`: what may pass at all, and which senders then get no bounce.

use super::context::Context;
use crate::{
    config::{diagnostic::Span, table::Table, values::fault},
    mail::pattern::Pattern,
    policy::Allowlist,
};

/// `None`: an error was reported.
pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Option<Allowlist> {
    let table = root.table("allowlist");
    let senders = table.patterns("senders");
    let recipients = table.patterns("recipients");
    let header_recipients = table.flag("header_recipients");
    if table.is_present() {
        table.requires(
            "senders",
            "senders = [\"corp.example\"]; [\"*\"] is anybody, [] is nobody",
        );
        table.requires(
            "recipients",
            "recipients = [\"corp.example\"]; [\"*\"] is anybody, [] is nobody",
        );
    } else if !root.has("allowlist") {
        context.whole(
            fault!("there is no [allowlist]: it says which mail may pass";
                "add\n[allowlist]\nsenders = [\"corp.example\"]\nrecipients = [\"corp.example\"]"),
        );
    }
    table.finish();
    Some(Allowlist {
        senders: senders?,
        recipients: recipients?,
        header_recipients,
    })
}

/// Where anybody may send, but not to anybody: not every sender gets its bounces.
pub(super) fn note_strangers(context: Context<'_>, allowlist: &Allowlist, place: Option<&Span>) {
    let is_open = |list: &[Pattern]| list.iter().any(Pattern::is_of_any_domain);
    if let Some(place) = place
        && is_open(&allowlist.senders)
        && !allowlist.recipients.iter().any(Pattern::is_anything)
    {
        context.note(place, fault!(
            "with `*` as the domain anybody may be the sender: a bounce goes to a sender only where `recipients` admits it, and always to `copy_to`";
            "name the domains of your senders, or write [bounce] copy_to = [\"…\"]"));
    }
}

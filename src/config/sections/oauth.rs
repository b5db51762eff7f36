//! The `oauth` table of smtp: who gives tokens, and for which mailbox.

use super::{
    cloud,
    context::Context,
    google,
    microsoft::{self, For},
    token::{self, Reach},
};
use crate::{
    config::{
        table::{At, Table},
        values::{fault, is_plain},
    },
    connector::{oauth::Settings, services},
};

/// The `oauth` table: where tokens come from, and the mailbox.
pub(super) fn read(
    context: Context<'_>,
    table: &Table<'_>,
    reach: Reach<'_>,
    host: Option<&str>,
) -> Option<(Settings, String)> {
    table.requires("provider", "provider = \"microsoft\"");
    let provider = table.choice_if("provider", ["microsoft", "google"])?.value;
    table.set_kind(provider);
    let is_microsoft = provider == "microsoft";
    let is_free = is_microsoft && host.is_some_and(services::is_communication);
    let mailbox = if is_free {
        username(table)
    } else {
        token::mailbox(table)
    };
    if is_microsoft {
        table.requires("mailbox", "mailbox = \"printer@corp.example\"");
        let settings = microsoft::read(context, table, reach, cloud::read(table), For::Smtp(host));
        return Some((settings?, mailbox?.value));
    }
    google::read(context, table, reach, mailbox)
}

/// `mailbox` where it is the name of an SMTP username.
fn username(table: &Table<'_>) -> Option<At<String>> {
    table.parsed("mailbox", |text| {
        if text.is_empty() || text.len() > 1000 || !text.chars().all(is_plain) {
            return Err(fault!("this cannot be the name of an SMTP username"));
        }
        Ok(text.to_owned())
    })
}

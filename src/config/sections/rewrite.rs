//! `[[rewrite]]`: what gives a message another sender, before the lists are asked.

use super::context::Context;
use crate::{
    config::{
        table::{At, Table, bare},
        values::{self, fault},
    },
    policy::rewrite::{ReplyTo, Rewrite},
};

pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Vec<Rewrite> {
    let mut rewrites = Vec::new();
    for table in root.tables("rewrite") {
        table.requires("senders", "senders = [\"*@localhost\"]");
        table.requires("to", "to = \"noreply@corp.example\"");
        let senders = table.list("senders", |text| {
            let pattern = values::pattern(text)?;
            if pattern.is_null() {
                return Err(fault!(
                    "the null sender is never rewritten: a bounce must stay one"
                ));
            }
            Ok(pattern)
        });
        if let Some(At { span, .. }) = &senders
            && table.is_empty_list("senders")
        {
            context.error(span, fault!("a rewrite without senders rewrites nothing"));
        }
        let to = table.parsed("to", values::address);
        let reply_to = table.choice("reply_to", [ReplyTo::Original, ReplyTo::Keep]);
        table.finish();
        if let (Some(senders), Some(to)) = (senders, to) {
            rewrites.push(Rewrite {
                senders: bare(senders.value),
                to: to.value,
                reply_to,
            });
        }
    }
    rewrites
}

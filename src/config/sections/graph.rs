//! The keys of `type = "graph"`, and the hosts it will open connections to.
//!
//! Who logs in is read by `microsoft`; this is where the mail goes and how large it may be. It sends nothing.

use super::{
    cloud,
    context::Context,
    microsoft::{self, For},
    token::{self, Reach},
};
use crate::{
    config::{
        table::Table,
        values::{self, fault},
    },
    connector::{
        Rate, Settings, Upload,
        graph::{self, Large},
    },
};

pub(super) fn read(
    context: Context<'_>,
    table: &Table<'_>,
    reach: Reach<'_>,
) -> Option<graph::Settings> {
    let cloud = cloud::read(table);
    let given = cloud::graph_url(table);
    let graph = given.as_ref().map(|given| given.value.url.as_str());
    let oauth = microsoft::read(context, table, reach, cloud, For::Graph(graph));
    let mailbox = token::mailbox(table).map(|mailbox| mailbox.value);
    let mime_limit = table.size("mime_limit");
    let large_messages = table.choice("large_messages", [Large::Upload, Large::Refuse]);
    let upload_rate = table.parsed_or_default("upload_rate", values::upload)?;
    if upload_rate.exceeds(Upload::OF_MAILBOX) {
        table.warning(
            "upload_rate",
            fault!("Exchange Online takes 150 MB in 5 minutes from a mailbox and refuses more";
                "write upload_rate = \"150MB/5min\""),
        );
    }
    let max_connections = table.number("max_connections") as usize;

    // base64 makes 4 of 3 octets, and Graph takes no request above 4 MB.
    if mime_limit > 3 << 20 {
        table.warning(
            "mime_limit",
            fault!("Graph takes no request above 4 MB, which is 3 MiB of a message";
                "write mime_limit = \"3MB\"; anything larger is uploaded"),
        );
    }
    let span = table
        .place("graph_url")
        .or_else(|| table.place("cloud"))
        .unwrap_or_else(|| table.span.clone());
    let upload_host = cloud.upload_host().filter(|_| !table.has("graph_url"));
    let url = match given {
        Some(given) => given.value,
        None => cloud::web(cloud.graph()).ok()?,
    };
    reach.outbound.check(context, &span, &url.host);
    if large_messages == Large::Upload && cloud.lacks_uploads() && !table.has("graph_url") {
        context.note(&table.place("large_messages").unwrap_or_else(|| span.clone()), fault!(
            "according to Microsoft's documentation this cloud has no upload sessions, so a message with a large attachment cannot be sent";
            "write large_messages = \"refuse\": the device is told at once, and the route's next connector is tried"));
    }
    if large_messages == Large::Upload {
        match upload_host {
            Some(host) => reach.outbound.check(context, &span, host),
            None if !reach.outbound.allows_all() => context.note(&span, fault!(
                "Graph names the host of uploads only when there is a large message, and then it must be in [outbound] `allowed_hosts`";
                "add it there, or write large_messages = \"refuse\"")),
            None => {}
        }
    }
    Some(graph::Settings {
        oauth: oauth?,
        graph_url: url.url,
        mailbox,
        mime_limit,
        large_messages,
        upload_rate: Some(upload_rate),
        max_connections,
    })
}

/// What Exchange Online allows a mailbox, and refuses beyond it.
pub(super) fn doubt(table: &Table<'_>, settings: &Settings, quota: (u64, Rate)) {
    let (concurrent, rate) = quota;
    if settings.max_concurrent as u64 > concurrent {
        table.warning(
            "max_concurrent",
            fault!("Exchange Online takes 4 requests at once for a mailbox and refuses the fifth";
                "write max_concurrent = 4"),
        );
    }
    if settings.rate.is_some_and(|given| given.exceeds(rate)) {
        table.warning(
            "rate",
            fault!("Exchange Online takes 30 messages a minute from a mailbox and refuses more";
                "write rate = \"30/min\""),
        );
    }
}

//! The keys of `type = "graph"`, and the hosts it will open connections to.
//!
//! Apart from `oauth`, which reads who logs in: this is where the mail goes and how large it may be. It sends nothing.

use super::{
    Ground, cloud,
    oauth::{self, For, Way},
    seconds,
};
use crate::{
    config::{
        table::Table,
        values::{self, Fault},
    },
    connector::{
        Upload,
        graph::{Large, Settings},
    },
};

pub(super) fn read(ground: Ground<'_>, table: &Table<'_>, way: Way<'_>) -> Option<Settings> {
    let cloud = cloud::read(table);
    let oauth = oauth::microsoft(ground, table, way, cloud, For::Graph);
    let given = cloud::graph_url(table);
    let mailbox = oauth::mailbox(table).map(|mailbox| mailbox.value);
    let mime_limit = table.size("mime_limit", ("1KB", "35MiB"), 3_000_000);
    let large_messages = table
        .choice(
            "large_messages",
            &[("upload", Large::Upload), ("refuse", Large::Refuse)],
        )
        .map_or(Large::Upload, |large| large.value);

    let allowed = Upload {
        octets: 150_000_000,
        per: seconds(300),
    };
    let upload_rate = table
        .parsed(
            "upload_rate",
            "an upload rate such as \"150MB/5min\"",
            values::upload,
        )
        .map_or(allowed, |rate| rate.value);
    let per_window =
        |one: Upload, other: Upload| u128::from(one.octets) * u128::from(other.per.as_secs());
    if per_window(upload_rate, allowed) > per_window(allowed, upload_rate) {
        ground.source.warning(
            &table.place_or_header("upload_rate"),
            Fault::new(
                "Exchange Online takes 150 MB in 5 minutes of a mailbox and refuses more",
                "write upload_rate = \"150MB/5min\"",
            ),
        );
    }
    let max_connections = table.number("max_connections", 1..=1000, 16) as usize;

    // base64 makes 4 of 3 octets, and Graph takes no request above 4 MB.
    if mime_limit > 3 << 20 {
        ground.source.warning(
            &table.place_or_header("mime_limit"),
            Fault::new(
                "Graph takes no request above 4 MB, which is 3 MiB of a message",
                "write mime_limit = \"3MB\"; what is larger goes by upload",
            ),
        );
    }
    let span = table
        .place("graph_url")
        .or_else(|| table.place("cloud"))
        .unwrap_or_else(|| table.span.clone());
    let upload_host = cloud.upload_host().filter(|_| !table.has("graph_url"));
    let graph = match given {
        Some(given) => given.value,
        None => cloud::web(cloud.graph()).ok()?,
    };
    way.outbound.check(ground, &span, &graph.host);
    if large_messages == Large::Upload && cloud.lacks_uploads() && !table.has("graph_url") {
        ground.source.note(
            &table.place("large_messages").unwrap_or_else(|| span.clone()),
            Fault::new(
                "by Microsoft's documentation this cloud has no upload sessions, so a message with a large attachment cannot be sent",
                "write large_messages = \"refuse\": the device is told at once, and another connector of the route is taken",
            ),
        );
    }
    if large_messages == Large::Upload {
        match upload_host {
            Some(host) => way.outbound.check(ground, &span, host),
            None if !way.outbound.allows_all() => ground.source.note(
                &span,
                Fault::new(
                    "Graph names the host of uploads only when there is a large message, and then it must be in [outbound] `allowed_hosts`",
                    "add it there, or write large_messages = \"refuse\"",
                ),
            ),
            None => {}
        }
    }
    Some(Settings {
        oauth: oauth?,
        graph_url: graph.url,
        mailbox,
        mime_limit,
        large_messages,
        upload_rate: Some(upload_rate),
        max_connections,
    })
}

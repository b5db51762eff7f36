//! `[limits]`: what one client, one message and one session may take.

use crate::{
    config::{table::Table, values::fault},
    listener,
};

pub(super) struct LimitsSection {
    pub(super) listener: listener::Limits,
    pub(super) message_size: u64,
    pub(super) recipients: usize,
    pub(super) session_errors: u32,
    pub(super) received_headers: usize,
}

pub(super) fn read(root: &Table<'_>) -> LimitsSection {
    let table = root.table("limits");
    let limits = LimitsSection {
        message_size: table.size("message_size"),
        recipients: table.number("recipients") as usize,
        session_errors: table.number("session_errors") as u32,
        received_headers: table.number("received_headers") as usize,
        listener: listener::Limits {
            connections: table.number("connections") as usize,
            connections_per_client: table.number("connections_per_client") as usize,
            unlisted_connections: table.number("unlisted_connections") as usize,
            messages_per_minute: table.number("messages_per_minute") as u32,
            command_timeout: table.duration("command_timeout"),
            data_timeout: table.duration("data_timeout"),
            free_disk: table.size("free_disk"),
        },
    };
    if table.has("unlisted_connections")
        && limits.listener.unlisted_connections > limits.listener.connections
    {
        table.warning(
            "unlisted_connections",
            fault!(
                "there are never more than `connections`, {}, and a tenth of those is for networks of a [[client]]",
                limits.listener.connections
            ),
        );
    }
    table.finish();
    limits
}

//! What all that ask for tokens share, whoever gives them: how they are reached, one credential, one mailbox.

use super::{
    cloud::{self, Web},
    context::Context,
    files,
    outbound::Outbound,
};
use crate::{
    config::{
        table::{At, Table},
        values::{self, fault},
    },
    connector::{Proxy, http::HttpSettings},
};

/// How the connector reaches anything.
#[derive(Clone, Copy)]
pub(super) struct Reach<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) proxy: &'a Proxy,
}

impl Reach<'_> {
    /// With the table's own `ca_file`.
    pub(super) fn http(self, context: Context<'_>, table: &Table<'_>) -> HttpSettings {
        HttpSettings {
            proxy: self.proxy.clone(),
            ca_file: files::roots(context, table),
            allowed_hosts: self.outbound.allowed().to_vec(),
        }
    }
}

/// `mailbox`.
pub(super) fn mailbox(table: &Table<'_>) -> Option<At<String>> {
    let At { value, span } = table.parsed("mailbox", values::address)?;
    Some(At {
        value: value.to_string(),
        span,
    })
}

/// An error for every credential but the first.
pub(super) fn only_one_credential(table: &Table<'_>, given: &[&'static str]) {
    let Some((first, rest)) = given.split_first() else {
        return;
    };
    for key in rest {
        table.error(key, fault!("one credential is enough: `{key}` stands beside `{first}`"; "keep the one that is meant"));
    }
}

/// The whole URL where tokens are.
pub(super) fn token_url(table: &Table<'_>) -> Option<At<Web>> {
    table.parsed("token_url", cloud::web)
}

//! Where a managed identity gets its tokens: the metadata service of a virtual machine, Azure's hosting, or the agent of Azure Arc.
//!
//! What is written is read by `oauth`; this is what the machine says of itself, in the environment (as Azure's own
//! libraries read it) and by the agent that is installed. It asks nobody.

use std::path::Path;

use super::{
    cloud::{self, Web},
    context::Context,
};
use crate::{
    config::table::Table,
    connector::{
        is_loopback,
        oauth::{Azure, arc},
    },
    secret::Secret,
};

/// The agent of Azure Arc, and where it listens (learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication).
const AGENT: &str = "/opt/azcmagent/bin/himds";
const AGENT_URL: &str = "http://127.0.0.1:40342/metadata/identity/oauth2/token";

/// Who gives tokens here.
pub(super) fn host(context: Context<'_>, table: &Table<'_>) -> Azure {
    if let Some(given) = cloud::login_url(table) {
        // On this machine there is nobody but the agent.
        return if is_loopback(&given.value.host) {
            Azure::Arc(arc::TOKENS.into())
        } else {
            Azure::Machine
        };
    }
    let var = |name: &str| context.env.vars.get(name).filter(|value| !value.is_empty());
    match (var("IDENTITY_ENDPOINT"), var("IDENTITY_HEADER")) {
        (Some(_), Some(header)) => Azure::Hosting(Secret::new(header.as_str())),
        (Some(url), None) if var("IMDS_ENDPOINT").is_some() && agent(url).is_some() => {
            Azure::Arc(arc::TOKENS.into())
        }
        _ if Path::new(AGENT).exists() => Azure::Arc(arc::TOKENS.into()),
        _ => Azure::Machine,
    }
}

/// Where, if it is not the metadata service, and `login_url` says nothing.
pub(super) fn endpoint(context: Context<'_>, table: &Table<'_>) -> Option<Web> {
    if table.has("login_url") {
        return None;
    }
    let url = context.env.vars.get("IDENTITY_ENDPOINT");
    match host(context, table) {
        Azure::Machine => None,
        Azure::Hosting(_) => local(url?),
        Azure::Arc(_) => url.and_then(|url| agent(url)).or_else(|| local(AGENT_URL)),
    }
}

fn agent(url: &str) -> Option<Web> {
    local(url).filter(|web| is_loopback(&web.host))
}

/// A URL of this machine, which has no TLS.
fn local(url: &str) -> Option<Web> {
    let parsed = reqwest::Url::parse(url.trim()).ok()?;
    let host = parsed.host_str()?.trim_matches(['[', ']']).to_owned();
    let fine = matches!(parsed.scheme(), "http" | "https") && parsed.query().is_none();
    fine.then(|| Web {
        url: parsed.as_str().trim_end_matches('/').to_owned(),
        host,
    })
}

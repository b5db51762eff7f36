//! Client networks.
use ipnet::IpNet;

use crate::mail::pattern::Pattern;

/// How much is forgiven (`design.md` §4); `smtp::server::tolerance` spells out what each level means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToleranceLevel {
    /// Nothing.
    Strict,
    /// What old but sane clients do.
    #[default]
    Standard,
    /// And what is only safe on a trusted network.
    Device,
}

/// One `[[client]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Where it connects from; the longest prefix over all clients applies.
    pub networks: Vec<IpNet>,
    /// Narrows the allowlist.
    pub senders: Option<Vec<Pattern>>,
    /// Narrows the allowlist.
    pub recipients: Option<Vec<Pattern>>,
    /// Do not offer STARTTLS.
    pub hide_starttls: bool,
    /// `<LF>.<LF>` ends DATA.
    pub lf_only: bool,
    /// How much is forgiven.
    pub tolerance: ToleranceLevel,
    /// May not send without AUTH.
    pub require_auth: bool,
    /// AUTH is offered always, any name and password will do, and grant nothing.
    pub any_credentials: bool,
    /// Log every command and reply.
    pub transcript: bool,
}

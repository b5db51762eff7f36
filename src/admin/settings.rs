//! `[admin]`, `[[admin_user]]`, `[[admin_token]]` as they were checked.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;

use crate::secret::Secret;

/// What somebody may do; each may do all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `/metrics`.
    Metrics,
    /// Looks.
    Viewer,
    /// Acts on mail and connectors.
    Operator,
    /// Changes who may send, and the configuration.
    Admin,
}

impl Role {
    /// From the least on.
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Viewer, Self::Operator, Self::Admin];

    /// The word in the configuration and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// Where the window is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowPlace {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// A socket that systemd hands over, by its name.
    Inherited(String),
}

/// What the page does with changes of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteConfig {
    /// Nothing.
    Off,
    /// Keeps them as proposals, which a command on the machine applies.
    Propose,
    /// Writes them into the file.
    Write,
}

/// How much of the content of mail is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownContent {
    /// Nothing.
    None,
    /// Its subject, to operators.
    Subject,
    /// All of it, to admins.
    All,
}

/// `[[admin_user]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUser {
    /// To log in with.
    pub name: String,
    /// An argon2id hash.
    pub password: Secret,
    /// What it may do.
    pub role: Role,
}

/// `[[admin_token]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// In the audit.
    pub name: String,
    /// SHA-256 over the token.
    pub hash: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// Where it may come from; empty: anywhere.
    pub networks: Vec<IpNet>,
    /// The first moment at which it is no longer good.
    pub expires: Option<SystemTime>,
}

impl AdminToken {
    /// Whether it has not expired.
    pub fn is_good(&self) -> bool {
        self.expires.is_none_or(|end| SystemTime::now() < end)
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSettings {
    /// Where it listens.
    pub place: WindowPlace,
    /// PEM files: chain and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Names that a `Host` may be, in lower case, `hostname` among them.
    pub hosts: Vec<String>,
    /// The machine's name, for links.
    pub hostname: String,
    /// Who may say where a request comes from, and who has logged in.
    pub trusted_proxies: Vec<IpNet>,
    /// So may who comes by the Unix socket.
    pub trusts_unix: bool,
    /// The header in which a proxy says who has logged in; empty: none.
    pub user_header: String,
    /// The header in which it says that one's groups; empty: none.
    pub groups_header: String,
    /// The role of each group; `*`: of everybody.
    pub groups: Vec<(String, Role)>,
    /// Who may read the metrics without a login.
    pub metrics: Vec<IpNet>,
    /// Whether the page may change the configuration.
    pub write_config: WriteConfig,
    /// How much of mail it shows.
    pub content: ShownContent,
    /// How long a login lasts.
    pub session: Duration,
    /// How long the audit is kept.
    pub keep_audit: Duration,
    /// Who may log in.
    pub users: Vec<AdminUser>,
    /// Programs that may.
    pub tokens: Vec<AdminToken>,
}

impl WindowSettings {
    /// Whether what this peer says of others is believed.
    pub fn is_trusted(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }

    /// Whether nobody but this machine can reach it.
    pub fn is_local(&self) -> bool {
        match &self.place {
            WindowPlace::Tcp(address) => address.ip().to_canonical().is_loopback(),
            WindowPlace::Unix(_) => true,
            WindowPlace::Inherited(_) => false,
        }
    }

    /// A user of that name.
    pub fn user(&self, name: &str) -> Option<&AdminUser> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The highest role of these groups.
    pub fn role_of(&self, groups: &[&str]) -> Option<Role> {
        let of = self
            .groups
            .iter()
            .filter(|(group, _)| group == "*" || groups.iter().any(|own| own == group));
        of.map(|(_, role)| *role).max()
    }
}

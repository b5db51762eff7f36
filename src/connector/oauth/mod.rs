//! Access tokens for graph and for smtp's XOAUTH2: fetched, cached, renewed early, one renewal in flight.
//!
//! Apart because two connectors need the same token and neither should know where it comes from. It sends no mail.

use std::path::{Path, PathBuf};

use super::http::HttpSettings;
use crate::secret::Secret;

mod answer;
pub mod arc;
mod claims;
mod codes;
mod proof;
mod refresh;
mod source;

pub use claims::Claims;
pub(crate) use claims::EXCHANGE;
pub use source::{Token, TokenSource, TokenStore};

/// How tokens are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The token endpoint (of the metadata service for a managed identity).
    pub token_url: String,
    /// What the token is for; the resource for a managed identity.
    pub scope: String,
    /// Who asks.
    pub grant: Grant,
    /// How to get there.
    pub http: HttpSettings,
}

/// Where a managed identity lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Azure {
    /// On a virtual machine of Azure: its metadata service (IMDS).
    Machine,
    /// In Azure's hosting (App Service, Container Apps, Functions): the value of `IDENTITY_HEADER`.
    Hosting(Secret),
    /// On a machine elsewhere, by the agent of Azure Arc: the directory of its keys.
    Arc(PathBuf),
}

/// Who asks for a token, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Microsoft client credentials with a client secret.
    ClientSecret {
        /// Application (client) id.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// `client_auth = "basic"`: in the Authorization header, both halves form-urlencoded.
        basic: bool,
    },
    /// Microsoft client credentials with a certificate (PS256 assertion, `x5t#S256`).
    Certificate {
        /// Application (client) id.
        client_id: String,
        /// PEM certificate.
        certificate: PathBuf,
        /// PEM key.
        key: PathBuf,
    },
    /// A managed identity.
    ManagedIdentity {
        /// Of a user-assigned identity.
        client_id: Option<String>,
        /// Who gives its tokens.
        host: Azure,
    },
    /// A federated token file (workload identity); re-read at every request.
    Federated {
        /// Application (client) id.
        client_id: String,
        /// The token file.
        file: PathBuf,
    },
    /// Google service account with domain-wide delegation (RS256 JWT with `sub`).
    GoogleServiceAccount {
        /// The JSON key file.
        file: PathBuf,
        /// Whose mailbox.
        subject: String,
    },
    /// A refresh token; a rotated one is kept before it is used.
    RefreshToken {
        /// Client id.
        client_id: String,
        /// Client secret, if the client has one.
        client_secret: Option<Secret>,
        /// The configured token.
        refresh_token: Secret,
    },
}

impl Grant {
    /// The endpoint may give another refresh token, which has to be kept.
    pub(super) fn rotates(&self) -> bool {
        matches!(self, Grant::RefreshToken { .. })
    }

    /// The application's certificate and its key.
    pub(super) fn certificate(&self) -> Option<(&Path, &Path)> {
        match self {
            Grant::Certificate {
                certificate, key, ..
            } => Some((certificate, key)),
            _ => None,
        }
    }
}

//! What a connector has that ends on a day that is known: certificates of its own, the roots that it trusts, and a client secret whose day the
//! file says.
//!
//! It reads the files and judges nothing: who shows it says how near the end is. When a refresh token ends depends on its last use, which the
//! store remembers; it is not looked up here.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    Settings,
    dkim::{self, DkimKey},
    keypair,
    oauth::Grant,
};
use crate::mail::address::Domain;

/// Microsoft takes a refresh token for so long after its last use (learn.microsoft.com/entra/identity-platform/refresh-tokens).
pub const REFRESH_TOKEN: Duration = Duration::from_hours(90 * 24);
/// Whose refresh tokens those are.
const MICROSOFT: [&str; 3] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
];

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialEnd {
    /// The key that says it: `certificate`, `client_certificate`, `client_secret`, `ca_file`; `dkim` with the domain whose mail is not signed
    /// any more then.
    pub kind: Cow<'static, str>,
    /// Where it is kept, if it is in a file.
    pub file: Option<PathBuf>,
    /// When it begins, where that is known.
    pub begins: Option<SystemTime>,
    /// When it ends.
    pub ends: SystemTime,
}

/// All of it that can be read. Of two files with roots the one whose first root ends sooner.
pub fn ends(settings: &Settings) -> Vec<CredentialEnd> {
    let [client, application, roots, token_roots] = settings.kind.certificate_files();
    let mut all = Vec::new();
    for (kind, file) in [("client_certificate", client), ("certificate", application)] {
        let Some(file) = file else { continue };
        if let Ok(validity) = keypair::validity(file) {
            all.push(CredentialEnd {
                kind: kind.into(),
                file: Some(file.to_owned()),
                begins: Some(validity.begins()),
                ends: validity.ends(),
            });
        }
    }
    let oauth = settings.kind.oauth();
    let secret = oauth.and_then(|oauth| oauth.secret_ends);
    all.extend(secret.map(|ends| CredentialEnd {
        kind: "client_secret".into(),
        file: None,
        begins: None,
        ends,
    }));
    let roots = roots.into_iter().chain(token_roots);
    let roots = roots.filter_map(|file| Some((keypair::roots(file)?.ends(), file)));
    all.extend(roots.min().map(|(ends, file)| CredentialEnd {
        kind: "ca_file".into(),
        file: Some(file.to_owned()),
        begins: None,
        ends,
    }));
    all.extend(signing_ends(settings.kind.dkim().unwrap_or_default()));
    all
}

/// When the dates of the keys of a domain run out.
fn signing_ends(keys: &[DkimKey]) -> Vec<CredentialEnd> {
    let domains: BTreeSet<&Domain> = keys.iter().map(|key| &key.domain).collect();
    let now = SystemTime::now();
    let ends = domains.into_iter().filter_map(|domain| {
        Some(CredentialEnd {
            kind: format!("dkim {domain}").into(),
            file: None,
            begins: None,
            ends: dkim::runs_out(keys, domain, now)?,
        })
    });
    ends.collect()
}

/// Whether it has a refresh token that ends some time after its last use.
pub fn has_ending_refresh_token(settings: &Settings) -> bool {
    settings.kind.oauth().is_some_and(|oauth| {
        let host = reqwest::Url::parse(&oauth.token_url);
        let host = host.ok().and_then(|url| url.host_str().map(str::to_owned));
        matches!(oauth.grant, Grant::RefreshToken { .. })
            && host.is_some_and(|host| MICROSOFT.contains(&host.as_str()))
    })
}

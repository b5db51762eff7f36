//! The `oauth` table with `provider = "google"`.
//!
//! Apart from `oauth`, since it shares no credential with Microsoft's.

use std::path::Path;

use super::{
    Ground, cloud, files,
    oauth::{Way, one_of, token_url},
    secret,
};
use crate::{
    config::{
        Secrets,
        diagnostic::Span,
        read_bounded,
        table::{At, Table},
        values::{self, Fault, plain},
    },
    connector::oauth::{Grant, Settings},
};

/// A service account for one mailbox, or a refresh token.
#[expect(clippy::too_many_lines, reason = "every key of this way to a token")]
pub(super) fn read(
    ground: Ground<'_>,
    table: &Table<'_>,
    way: Way<'_>,
    mailbox: Option<At<String>>,
) -> Option<(Settings, String)> {
    let given_url = token_url(table);
    let span = table.place_or_header("token_url");
    let token_url = match given_url {
        Some(given) => given.value,
        None => cloud::web("https://oauth2.googleapis.com/token").ok()?,
    };
    way.outbound.check(ground, &span, &token_url.host);
    let scope = table.text("scope", "a scope").map_or_else(
        || "https://mail.google.com/".to_owned(),
        |scope| scope.value.to_owned(),
    );
    let http = way.http(ground, table);
    let account = table.parsed("service_account_file", "a path", files::path);
    let subject = table.parsed("subject", "an address", values::address);
    let client_id = table.parsed("client_id", "a client id", |text| {
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Fault::new(
                "this is not a client id",
                "it ends with .apps.googleusercontent.com",
            ));
        }
        Ok(text.to_owned())
    });
    let client_secret = secret::read(ground, table, "client_secret");
    let refresh_token = secret::read(ground, table, "refresh_token");
    let given: Vec<_> = ["service_account_file", "refresh_token"]
        .into_iter()
        .filter(|key| table.has(key))
        .collect();
    one_of(ground, table, &given);
    let settings = |grant| Settings {
        token_url: token_url.url.clone(),
        scope: scope.clone(),
        grant,
        http: http.clone(),
    };
    match given.first().copied() {
        Some("service_account_file") => {
            for key in ["client_id", "client_secret"] {
                if let Some(span) = table.place(key) {
                    ground.source.error(
                        &span,
                        Fault::from(format!(
                            "`{key}` goes with a refresh token; the file of a service account says who it is"
                        )),
                    );
                }
            }
            table.requires("subject", "subject = \"printer@corp.example\", the mailbox");
            let At { value, span } = account?;
            let file = ground.path(&value);
            ground.files.borrow_mut().push(file.clone());
            check_service_account(ground, &file, &span);
            let subject = subject?.value.to_string();
            if let Some(other) = mailbox
                .as_ref()
                .filter(|mailbox| !mailbox.value.eq_ignore_ascii_case(&subject))
            {
                ground.source.error(
                    &other.span,
                    Fault::new(
                        "the token is for `subject`, and Gmail takes it for that mailbox alone",
                        "leave `mailbox` out",
                    ),
                );
            }
            let grant = Grant::GoogleServiceAccount {
                file,
                subject: subject.clone(),
            };
            Some((settings(grant), subject))
        }
        Some(_) => {
            for (key, example) in [
                ("mailbox", "mailbox = \"printer@corp.example\""),
                ("client_id", "client_id = \"…\""),
                ("client_secret", "client_secret = { env = \"NAME\" }"),
            ] {
                table.requires(key, example);
            }
            if let Some(span) = table.place("subject") {
                ground.source.error(
                    &span,
                    Fault::from(
                        "`subject` is for a service account; a refresh token knows whose it is",
                    ),
                );
            }
            let grant = Grant::RefreshToken {
                client_id: client_id?.value,
                client_secret: Some(client_secret?.secret),
                refresh_token: refresh_token?.secret,
            };
            Some((settings(grant), mailbox?.value))
        }
        None => {
            ground.source.error(
                &table.span,
                Fault::new(
                    "nothing here proves who asks for tokens",
                    "add service_account_file and subject, or client_id, client_secret and refresh_token",
                ),
            );
            None
        }
    }
}

/// The JSON key file that the Google console gives.
fn check_service_account(ground: Ground<'_>, path: &Path, span: &Span) {
    if ground.secrets == Secrets::Ignore {
        return;
    }
    let shown = plain(&path.to_string_lossy());
    let octets = match read_bounded(path, 1 << 20) {
        Ok(octets) => octets,
        Err(why) => {
            return ground
                .source
                .error(span, Fault::from(format!("{shown} cannot be read: {why}")));
        }
    };
    let value: serde_json::Value = serde_json::from_slice(&octets).unwrap_or_default();
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
    let has_keys = text("client_email").is_some()
        && text("private_key").is_some_and(|key| key.contains("PRIVATE KEY-----"));
    if text("type") != Some("service_account") || !has_keys {
        ground.source.error(
            span,
            Fault::new(
                format!("{shown} is not the key of a service account"),
                "it is the JSON file that the Google console gives under Keys, with \"type\": \"service_account\"",
            ),
        );
    }
    files::warn_readable(ground, path, span);
}

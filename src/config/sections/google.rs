//! The `oauth` table with `provider = "google"`.
//!
//! It shares no credential with Microsoft's.

use std::path::{Path, PathBuf};

use super::{
    cloud,
    context::Context,
    files, secret,
    token::{Reach, only_one_credential},
};
use crate::{
    config::{
        diagnostic::Span,
        file::read_bounded,
        settings::Secrets,
        table::{At, Table},
        values::{self, fault, plain},
    },
    connector::oauth::{Grant, Settings},
    mail::address::Address,
};

/// A service account for one mailbox, or a refresh token.
pub(super) fn read(
    context: Context<'_>,
    table: &Table<'_>,
    reach: Reach<'_>,
    mailbox: Option<At<String>>,
) -> Option<(Settings, String)> {
    let span = table.place_or_header("token_url");
    let token_url = table.parsed_or_default("token_url", cloud::web)?;
    reach.outbound.check(context, &span, &token_url.host);
    let scope = table.parsed_or_default("scope", |text| Ok(text.to_owned()))?;
    let http = reach.http(context, table);
    let account = table.parsed("service_account_file", files::path);
    let subject = table.parsed("subject", values::address);
    let client_id = table.parsed("client_id", |text| {
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(
                fault!("this is not a client id"; "it ends with .apps.googleusercontent.com"),
            );
        }
        Ok(text.to_owned())
    });
    let client_secret = secret::read(context, table, "client_secret");
    let refresh_token = secret::read(context, table, "refresh_token");
    let given: Vec<_> = ["service_account_file", "refresh_token"]
        .into_iter()
        .filter(|key| table.has(key))
        .collect();
    only_one_credential(table, &given);
    let (grant, mailbox) = match given.first().copied() {
        Some("service_account_file") => {
            let At { value, span } = account?;
            service_account(
                context,
                table,
                context.path(&value),
                &span,
                subject,
                mailbox,
            )?
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
                context.error(
                    &span,
                    fault!("`subject` is for a service account; a refresh token already belongs to one mailbox"),
                );
            }
            let grant = Grant::RefreshToken {
                client_id: client_id?.value,
                client_secret: Some(client_secret?.secret),
                refresh_token: refresh_token?.secret,
            };
            (grant, mailbox?.value)
        }
        None => {
            context.error(
                &table.span,
                fault!("there is no credential to ask for tokens with";
                    "add service_account_file and subject, or client_id, client_secret and refresh_token"),
            );
            return None;
        }
    };
    let settings = Settings {
        token_url: token_url.url,
        scope,
        grant,
        secret_ends: None,
        rotation: None,
        http,
    };
    Some((settings, mailbox))
}

/// The file of a service account, which speaks for one mailbox.
fn service_account(
    context: Context<'_>,
    table: &Table<'_>,
    file: PathBuf,
    span: &Span,
    subject: Option<At<Address>>,
    mailbox: Option<At<String>>,
) -> Option<(Grant, String)> {
    for key in ["client_id", "client_secret"] {
        if let Some(span) = table.place(key) {
            context.error(&span, fault!("`{key}` goes with a refresh token; a service account's file already says who it is"));
        }
    }
    table.requires("subject", "subject = \"printer@corp.example\", the mailbox");
    context.files.borrow_mut().push(file.clone());
    check_service_account(context, &file, span);
    let subject = subject?.value.to_string();
    if let Some(other) = mailbox.filter(|mailbox| !mailbox.value.eq_ignore_ascii_case(&subject)) {
        context.error(
            &other.span,
            fault!("the token is for `subject`, and Gmail takes it for that mailbox alone";
                "leave `mailbox` out"),
        );
    }
    let grant = Grant::GoogleServiceAccount {
        file,
        subject: subject.clone(),
    };
    Some((grant, subject))
}

/// The JSON key file that the Google console gives.
fn check_service_account(context: Context<'_>, path: &Path, span: &Span) {
    if context.secrets == Secrets::Ignore {
        return;
    }
    let shown = plain(&path.to_string_lossy());
    let octets = match read_bounded(path, 1 << 20) {
        Ok(octets) => octets,
        Err(why) => {
            return context.error(span, fault!("{shown} cannot be read: {why}"));
        }
    };
    let value: serde_json::Value = serde_json::from_slice(&octets).unwrap_or_default();
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
    let has_keys = text("client_email").is_some()
        && text("private_key").is_some_and(|key| key.contains("PRIVATE KEY-----"));
    if text("type") != Some("service_account") || !has_keys {
        context.error(
            span,
            fault!("{shown} is not the key of a service account";
                "it is the JSON file that the Google console hands out under Keys, with \"type\": \"service_account\""),
        );
    }
    files::warn_readable(context, path, span);
}

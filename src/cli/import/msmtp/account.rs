//! `msmtprc`: commands of accounts, what an account takes over from others, and commands that have no counterpart.
//!
//! What a setting means for a connector is known elsewhere.

use std::collections::BTreeMap;

use super::super::{
    draft::ImportDraft,
    files::SourceFile,
    note::{NotUnderstood, SourcePlace},
};

/// No more accounts are read.
const MOST: usize = 1000;

/// What an account says, by command.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    settings: BTreeMap<String, (String, SourcePlace)>,
}

/// Commands that are no settings of a way out, and why they are left out.
const LEFT_OUT: &[(&str, &str)] = &[
    ("logfile", "Postern keeps a log of its own"),
    ("logfile_time_format", "Postern keeps a log of its own"),
    ("syslog", "Postern keeps a log of its own"),
    (
        "tls_fingerprint",
        "a certificate is checked by its authority: name its own in `ca_file`",
    ),
    ("tls_crl_file", "lists of revoked certificates are not read"),
    (
        "tls_priorities",
        "TLS 1.2 and 1.3 with their usual ciphers are spoken",
    ),
    (
        "tls_min_dh_prime_bits",
        "TLS 1.2 and 1.3 with their usual ciphers are spoken",
    ),
    (
        "tls_host_override",
        "a certificate is checked for the name in `host`",
    ),
    (
        "dsn_notify",
        "reports are asked for by who sends, not by the gateway",
    ),
    (
        "dsn_return",
        "reports are asked for by who sends, not by the gateway",
    ),
    (
        "source_ip",
        "the system chooses the address that connections leave from",
    ),
    ("timeout", "Postern has a `timeout` for a whole delivery"),
    ("ntlmdomain", "NTLM is not spoken"),
    ("auto_from", "the sender is what the program says"),
    ("maildomain", "the sender is what the program says"),
    (
        "allow_from_override",
        "the sender is what the program says; a [[rewrite]] gives it another one",
    ),
    (
        "set_from_header",
        "a missing From is added; a [[rewrite]] replaces one",
    ),
    ("add_missing_from_header", "a missing From is added"),
    ("set_date_header", "a missing Date is added"),
    ("set_msgid_header", "a missing Message-ID is added"),
    ("add_missing_date_header", "a missing Date is added"),
    ("remove_bcc_headers", "Bcc is removed"),
    ("undisclosed_recipients", "To and Cc leave as they came"),
    (
        "from_full_name",
        "the name in From is what the program says",
    ),
];

/// Commands that decide where mail goes.
const DECIDES: &[(&str, &str)] = &[
    (
        "aliases",
        "local recipients are not looked up: write the full address",
    ),
    (
        "eval",
        "no command is run; write the setting that it printed",
    ),
    ("socket", "a connector speaks TCP"),
];

const KNOWN: &str = "host port tls tls_starttls tls_trust_file tls_cert_file tls_key_file tls_certcheck auth user password \
    passwordeval domain from proxy_host proxy_port protocol keepbcc";

/// The accounts of one file.
pub(super) fn read(
    source: &SourceFile,
    label: Option<&String>,
    draft: &mut ImportDraft,
) -> Result<Vec<(String, Account)>, NotUnderstood> {
    let mut defaults = Account::default();
    let mut accounts: Vec<(String, Account)> = Vec::new();
    let mut in_defaults = true;
    for (line, text) in (1..).zip(source.text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let place = SourcePlace {
            file: label.cloned(),
            line,
        };
        let (command, argument) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let argument = unquoted(argument.trim());
        match command {
            "defaults" => {
                defaults = Account::default();
                in_defaults = true;
            }
            "account" => {
                if accounts.len() >= MOST {
                    return Err(NotUnderstood::new(
                        Some(place),
                        "so many accounts are no msmtprc",
                    ));
                }
                in_defaults = false;
                let account = begin(argument, &defaults, &accounts, &place)?;
                accounts.push(account);
            }
            _ => {
                let is_known = KNOWN.split_whitespace().any(|known| known == command);
                if !is_known {
                    leave(command, argument, &place, draft)?;
                }
                let account = if in_defaults {
                    &mut defaults
                } else {
                    match accounts.last_mut() {
                        Some((_, account)) => account,
                        None => &mut defaults,
                    }
                };
                if is_known {
                    account
                        .settings
                        .insert(command.to_owned(), (argument.to_owned(), place));
                }
            }
        }
    }
    Ok(accounts)
}

/// `account x : y, z`.
fn begin(
    argument: &str,
    defaults: &Account,
    accounts: &[(String, Account)],
    place: &SourcePlace,
) -> Result<(String, Account), NotUnderstood> {
    let (name, parents) = argument.split_once(':').unwrap_or((argument, ""));
    let name = name.trim();
    if name.is_empty() {
        return Err(NotUnderstood::new(
            Some(place.clone()),
            "an account has a name",
        ));
    }
    let mut account = defaults.clone();
    for parent in parents
        .split(',')
        .map(str::trim)
        .filter(|parent| !parent.is_empty())
    {
        let found = accounts.iter().find(|(known, _)| known == parent);
        let Some((_, parent)) = found else {
            return Err(NotUnderstood::new(
                Some(place.clone()),
                "it names an account that was not defined before",
            ));
        };
        account.settings.extend(parent.settings.clone());
    }
    Ok((name.to_owned(), account))
}

fn leave(
    command: &str,
    argument: &str,
    place: &SourcePlace,
    draft: &mut ImportDraft,
) -> Result<(), NotUnderstood> {
    let row = |table: &[(&str, &'static str)]| {
        table
            .iter()
            .find(|(known, _)| *known == command)
            .map(|(_, why)| *why)
    };
    if let Some(why) = row(DECIDES) {
        if !argument.is_empty() {
            draft.lacks(command, Some(place.clone()), why);
        }
    } else if let Some(why) = row(LEFT_OUT) {
        if !matches!(argument, "off" | "") || command == "allow_from_override" {
            draft.leaves(command, Some(place.clone()), why);
        }
    } else if command
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    {
        // What it is called is not repeated: a slip may have put a password there.
        draft.leaves("a command", Some(place.clone()), "it is not known here");
    } else {
        return Err(NotUnderstood::new(
            Some(place.clone()),
            "this is no command of msmtp; a msmtprc is expected",
        ));
    }
    Ok(())
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(text)
}

impl Account {
    pub(super) fn text(&self, command: &str) -> Option<&str> {
        self.settings.get(command).map(|(text, _)| text.as_str())
    }

    pub(super) fn place(&self, command: &str) -> Option<SourcePlace> {
        self.settings.get(command).map(|(_, place)| place.clone())
    }

    /// An empty argument is `on`.
    pub(super) fn is_on(&self, command: &str, otherwise: bool) -> bool {
        self.text(command)
            .map_or(otherwise, |text| text.is_empty() || text == "on")
    }
}

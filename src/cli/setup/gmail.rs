//! `postern setup gmail`: a service account for one mailbox of a Workspace, or the refresh token of one mailbox.

use std::path::{Path, PathBuf};

use super::{
    super::exit::{CommandError, Ended, Exit},
    credential,
    dialog::{Dialog, FlagQuestion},
    draft::{ConfigDraft, ConnectorKey},
    flags::{SetupFlags, address},
    staging::{Audience, NewFile},
    writing::SetupPlace,
};

/// What the delegation names, beside the client ID.
const SCOPE: &str = "https://mail.google.com/";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The mailbox that sends
    #[arg(long, value_name = "ADDRESS")]
    mailbox: Option<String>,
    /// The JSON key of a service account; it is copied to DIR/NAME.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["client_id", "client_secret_file", "refresh_token_file"])]
    service_account: Option<PathBuf>,
    /// Without a service account: the ID of an OAuth client
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A file that holds its secret; it is copied to DIR/NAME-client-secret
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// A file that holds the refresh token; it is copied to DIR/NAME-refresh-token
    #[arg(long, value_name = "FILE")]
    refresh_token_file: Option<PathBuf>,
    #[command(flatten)]
    common: SetupFlags,
}

pub(super) fn run(config: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let dialog = Dialog::of_process();
    let common = &arguments.common;
    let place = SetupPlace::find(config, common.out.as_deref())?;
    let question = FlagQuestion {
        flag: "--mailbox ADDRESS",
        words: "Mailbox that sends",
        default: None,
    };
    let mailbox = dialog.value(&question, arguments.mailbox.as_deref(), address)?;
    let name = common.name(dialog, "gmail")?;
    let mut connector = vec![
        ConnectorKey::Text("type", "smtp".to_owned()),
        ConnectorKey::Text("service", "Gmail".to_owned()),
        ConnectorKey::Text("auth", "xoauth2".to_owned()),
        ConnectorKey::Table("connector.oauth"),
        ConnectorKey::Text("provider", "google".to_owned()),
    ];
    let (keys, files, delegated) = match account(dialog, arguments)? {
        Some(path) => by_account(&place, &name, &path, &mailbox.to_string())?,
        None => by_token((&place, dialog), arguments, &name, &mailbox.to_string())?,
    };
    connector.extend(keys);
    let hostname = if place.is_beside {
        None
    } else {
        common.hostname(dialog)?
    };
    let site = common.site(dialog, (name, hostname), Some(&mailbox), place.is_beside)?;
    let draft = ConfigDraft {
        kind: "gmail",
        site,
        connector,
        collapse: None,
        bounce_from: Some(mailbox.to_string()),
    };
    place.write(&draft, &files)?;
    if let Some(client_id) = delegated {
        place.say(format_args!(
            "\nIn the admin console of the Workspace: Security, API controls, Domain-wide delegation, Add new, with exactly these two:\n  \
             client ID  {client_id}\n  \
             scope      {SCOPE}"
        ))?;
    }
    place.next(&draft.site.name)?;
    Ok(Exit::Ok)
}

/// The file of the service account. `None`: it is a refresh token.
fn account(dialog: Dialog, arguments: &Arguments) -> Result<Option<PathBuf>, CommandError> {
    let by_token = arguments.client_id.is_some()
        || arguments.client_secret_file.is_some()
        || arguments.refresh_token_file.is_some();
    if by_token || arguments.service_account.is_some() {
        return Ok(arguments.service_account.clone());
    }
    if !dialog.asks() {
        return Err(CommandError::new(
            Exit::Usage,
            "--service-account FILE is missing, or --client-id, --client-secret-file and --refresh-token-file; nothing was written",
        ));
    }
    dialog.optional(
        "--service-account FILE",
        "JSON key of a service account (nothing: there is a refresh token)",
        None,
        |text| Ok(PathBuf::from(text)),
    )
}

/// Keys, files and, for a service account, its client ID.
type GmailGrant = (Vec<ConnectorKey>, Vec<NewFile>, Option<String>);

fn by_account(
    place: &SetupPlace,
    name: &str,
    path: &Path,
    mailbox: &str,
) -> Result<GmailGrant, CommandError> {
    let account = credential::service_account("--service-account", path)?;
    let file = format!("{name}.json");
    let keys = vec![
        ConnectorKey::File("service_account_file", file.clone()),
        ConnectorKey::Text("subject", mailbox.to_owned()),
    ];
    let mut files = Vec::new();
    if !place.has(&file, path) {
        files.push(NewFile {
            name: file,
            content: account.text,
            audience: Audience::Gateway,
        });
    }
    Ok((keys, files, Some(account.client_id)))
}

fn by_token(
    (place, dialog): (&SetupPlace, Dialog),
    arguments: &Arguments,
    name: &str,
    mailbox: &str,
) -> Result<GmailGrant, CommandError> {
    let question = FlagQuestion {
        flag: "--client-id ID",
        words: "Client ID of the OAuth client",
        default: None,
    };
    let client_id = dialog.value(&question, arguments.client_id.as_deref(), |text| {
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
            return Ok(text.to_owned());
        }
        Err("it ends with .apps.googleusercontent.com".to_owned())
    })?;
    let mut files = Vec::new();
    let mut keys = vec![ConnectorKey::Text("client_id", client_id)];
    for (key, suffix, flag, words, given) in [
        (
            "client_secret",
            "client-secret",
            "--client-secret-file",
            "Client secret",
            &arguments.client_secret_file,
        ),
        (
            "refresh_token",
            "refresh-token",
            "--refresh-token-file",
            "Refresh token",
            &arguments.refresh_token_file,
        ),
    ] {
        let content = match given {
            Some(path) => credential::line_of(flag, path)?,
            None => dialog.secret(&format!("{flag} FILE"), words)?,
        };
        let file = format!("{name}-{suffix}");
        keys.push(ConnectorKey::SecretIn(key, file.clone()));
        if !given
            .as_deref()
            .is_some_and(|given| place.has(&file, given))
        {
            files.push(NewFile {
                name: file,
                content: credential::as_file(&content),
                audience: Audience::Gateway,
            });
        }
    }
    keys.push(ConnectorKey::Text("mailbox", mailbox.to_owned()));
    Ok((keys, files, None))
}

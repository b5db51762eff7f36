//! `postern setup exchange`: first the key and a script for the administrator, then, by what that prints, the configuration.

use std::path::PathBuf;

use super::{
    super::{
        exit::{CommandError, Ended, Exit},
        output,
    },
    dialog::{self, Dialog, FlagQuestion},
    draft::{ConfigDraft, ConnectorKey},
    flags::{SetupFlags, SiteAnswers, address, each},
    lines::{PASSED_OVER, ThreeLines, guid, tenant},
    pair::{host_or_own, pair_files, script_file},
    script::{NewApplication, ScriptGround},
    staging::{NewFile, is_there},
    writing::SetupPlace,
};
use crate::mail::{address::Address, text::shown, unicode};

/// `--days`.
const DAYS: u32 = 730;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A mailbox that sends; may be given several times
    #[arg(long = "mailbox", value_name = "ADDRESS")]
    mailboxes: Vec<String>,
    /// Messages above 3 MB too, which takes the right to read these mailboxes (Mail.ReadWrite)
    #[arg(long)]
    large: bool,
    /// Any mailbox of the tenant, by a permission in Entra, in place of a role for these in Exchange
    #[arg(long)]
    every_mailbox: bool,
    /// Where the tenant is [default: global]
    #[arg(long, value_parser = ["global", "gcc-high", "dod", "china"])]
    pub(super) cloud: Option<String>,
    /// How long the certificate is good [default: 730]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(super) days: Option<u32>,
    /// Rewrite every sender to the mailbox
    #[arg(long)]
    collapse: bool,
    /// The directory (tenant) ID, as the script prints it
    #[arg(long, value_name = "ID")]
    pub(super) tenant_id: Option<String>,
    /// The application (client) ID, as the script prints it
    #[arg(long, value_name = "ID", requires = "tenant_id")]
    client_id: Option<String>,
    /// A new key and certificate for a connector that is there, and a script that adds it to the application
    #[arg(long, value_name = "CONNECTOR", conflicts_with_all = ["mailboxes", "large", "every_mailbox", "collapse", "client_id"])]
    pub(super) renew: Option<String>,
    #[command(flatten)]
    pub(super) common: SetupFlags,
}

/// All that is known but the IDs.
struct ExchangeAnswers {
    mailboxes: Vec<Address>,
    large: bool,
    every_mailbox: bool,
    cloud: String,
    days: u32,
    collapse: bool,
    /// For the certificate.
    host: String,
    site: SiteAnswers,
}

pub(super) fn run(config: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let ids = match (&arguments.tenant_id, &arguments.client_id) {
        (Some(tenant_id), Some(client_id)) => Some((
            read("--tenant-id", tenant_id, tenant)?,
            read("--client-id", client_id, guid)?,
        )),
        (None, None) => None,
        _ => {
            return Err(CommandError::new(
                Exit::Usage,
                "--client-id ID is missing beside --tenant-id; nothing was written",
            ));
        }
    };
    let dialog = Dialog::of_process();
    let is_given = config.clone();
    let place = SetupPlace::find(config, arguments.common.out.as_deref())?;
    let mut answers = ask(dialog, arguments, place.is_beside)?;
    let pair = kept_pair(&place, &answers.site.name)?;
    if let Some((tenant_id, client_id)) = ids {
        let files = if pair {
            Vec::new()
        } else {
            answers.added_pair(&tenant_id, &client_id)?
        };
        let is_new = !files.is_empty();
        place.write(&answers.draft(&tenant_id, &client_id), &files)?;
        if is_new {
            place.say(format_args!(
                "\nThe application does not know this certificate yet: have {}.ps1 run, or upload {0}.pem under Certificates & secrets.",
                answers.site.name
            ))?;
        }
        place.next(&answers.site.name)?;
        return Ok(Exit::Ok);
    }
    let name = answers.site.name.clone();
    if pair && dialog.asks() {
        place.say(format_args!(
            "{name}.key and {name}.pem are there, and are kept: what is asked for now is what their script printed."
        ))?;
    } else {
        let files = answers.first_files()?;
        let none = "00000000-0000-0000-0000-000000000000";
        place.rehearse(&answers.draft(none, none), &files)?;
        place.write_files(&files)?;
        place.say(format_args!(
            "\nHave {name}.ps1 run by whoever administers the tenant; there is no secret in it. It ends with three lines."
        ))?;
    }
    if dialog.asks()
        && let Some(lines) = wait_for_lines()?
    {
        if let Some(mailbox) = lines.mailbox {
            answers.mailboxes = vec![mailbox];
        }
        let (tenant_id, client_id) = (
            lines.tenant_id.unwrap_or_default(),
            lines.client_id.unwrap_or_default(),
        );
        place.write(&answers.draft(&tenant_id, &client_id), &[])?;
        place.next(&name)?;
        return Ok(Exit::Ok);
    }
    place.say(format_args!(
        "Then, with what they say:\n\n  {}",
        answers.again(is_given.as_deref(), arguments)
    ))?;
    Ok(Exit::Ok)
}

fn ask(
    dialog: Dialog,
    arguments: &Arguments,
    is_beside: bool,
) -> Result<ExchangeAnswers, CommandError> {
    let given = (!arguments.mailboxes.is_empty()).then(|| arguments.mailboxes.join(","));
    let addresses = |text: &str| each(text, address);
    let mut mailboxes = if arguments.every_mailbox {
        dialog
            .optional(
                "--mailbox ADDRESS",
                "Mailbox that sends (nothing: the From of each message)",
                given.as_deref(),
                addresses,
            )?
            .unwrap_or_default()
    } else {
        let question = FlagQuestion {
            flag: "--mailbox ADDRESS",
            words: "Mailboxes that send",
            default: None,
        };
        dialog.value(&question, given.as_deref(), addresses)?
    };
    let mut seen = Vec::new();
    mailboxes.retain(|one| {
        let key = unicode::lower(&one.to_string()).into_owned();
        let is_new = !seen.contains(&key);
        seen.push(key);
        is_new
    });
    let every_mailbox = dialog.yes(
        arguments.every_mailbox,
        "May it send as every mailbox of the tenant, by a permission in Entra, y or n",
    )?;
    let large = dialog.yes(
        arguments.large,
        "Messages above 3 MB too, which takes the right to read these mailboxes, y or n",
    )?;
    if arguments.collapse && mailboxes.len() != 1 {
        return Err(CommandError::new(
            Exit::Usage,
            "--collapse rewrites every sender to the mailbox, and so needs exactly one --mailbox; nothing was written",
        ));
    }
    let collapse = match mailboxes.len() {
        1 => dialog.yes(
            arguments.collapse,
            "Rewrite every sender to the mailbox, y or n",
        )?,
        _ => false,
    };
    let words = |flag, words, default: &str| FlagQuestion {
        flag,
        words,
        default: Some(default.to_owned()),
    };
    let cloud = dialog.value(
        &words(
            "--cloud CLOUD",
            "Where the tenant is: global, gcc-high, dod or china",
            "global",
        ),
        arguments.cloud.as_deref(),
        |text| match text {
            "global" | "gcc-high" | "dod" | "china" => Ok(text.to_owned()),
            _ => Err("it is global, gcc-high, dod or china".to_owned()),
        },
    )?;
    let days = days(dialog, arguments)?;
    let name = arguments.common.name(dialog, "exchange")?;
    let hostname = arguments.common.hostname(dialog)?;
    let host = host_or_own(hostname.clone());
    let site = arguments
        .common
        .site(dialog, (name, hostname), mailboxes.first(), is_beside)?;
    Ok(ExchangeAnswers {
        mailboxes,
        large,
        every_mailbox,
        cloud,
        days,
        collapse,
        host,
        site,
    })
}

/// `--days`.
pub(super) fn days(dialog: Dialog, arguments: &Arguments) -> Result<u32, CommandError> {
    let question = FlagQuestion {
        flag: "--days DAYS",
        words: "How many days the certificate is good",
        default: Some(DAYS.to_string()),
    };
    let given = arguments.days.map(|days| days.to_string());
    dialog.value(&question, given.as_deref(), |text| {
        let days = text.parse::<u32>().ok();
        days.filter(|days| (1..=3650).contains(days))
            .ok_or_else(|| "it is a number of days, from 1 to 3650".to_owned())
    })
}

impl ExchangeAnswers {
    fn addresses(&self) -> Vec<String> {
        self.mailboxes.iter().map(ToString::to_string).collect()
    }

    /// Key, certificate, and the script that makes the application.
    fn first_files(&self) -> Result<Vec<NewFile>, CommandError> {
        let name = &self.site.name;
        let (pair, mut files) = pair_files(name, &self.host, self.days)?;
        let script = ScriptGround {
            host: &self.host,
            cloud: &self.cloud,
            file: &format!("{name}.ps1"),
            pair: &pair,
        }
        .making(&NewApplication {
            connector: name,
            mailboxes: &self.addresses(),
            large: self.large,
            every_mailbox: self.every_mailbox,
        })?;
        files.push(script_file(name, script));
        Ok(files)
    }

    /// Key, certificate, and the script that makes them known to an application that somebody has made already.
    fn added_pair(&self, tenant_id: &str, client_id: &str) -> Result<Vec<NewFile>, CommandError> {
        let name = &self.site.name;
        let (pair, mut files) = pair_files(name, &self.host, self.days)?;
        let script = ScriptGround {
            host: &self.host,
            cloud: &self.cloud,
            file: &format!("{name}.ps1"),
            pair: &pair,
        }
        .adding(tenant_id, client_id)?;
        files.push(script_file(name, script));
        Ok(files)
    }

    fn draft(&self, tenant_id: &str, client_id: &str) -> ConfigDraft {
        let name = &self.site.name;
        let mut connector = vec![
            ConnectorKey::Text("type", "graph".to_owned()),
            ConnectorKey::Text("tenant_id", tenant_id.to_owned()),
            ConnectorKey::Text("client_id", client_id.to_owned()),
            ConnectorKey::File("certificate", format!("{name}.pem")),
            ConnectorKey::File("key", format!("{name}.key")),
            ConnectorKey::On("rotate"),
        ];
        if self.cloud != "global" {
            connector.push(ConnectorKey::Text("cloud", self.cloud.clone()));
        }
        let addresses = self.addresses();
        if let [one] = addresses.as_slice() {
            connector.push(ConnectorKey::Text("mailbox", one.clone()));
        }
        if !self.large {
            // It may not write the draft that a larger message is sent by.
            let refuse = "refuse".to_owned();
            connector.push(ConnectorKey::Text("large_messages", refuse));
        }
        let first = addresses.first().cloned();
        ConfigDraft {
            kind: "exchange",
            site: self.site.clone(),
            connector,
            collapse: first.clone().filter(|_| self.collapse),
            // Of several the first sends the bounces; the one mailbox of a connector does so by itself.
            bounce_from: first.filter(|_| addresses.len() > 1),
        }
    }

    /// The command that goes on, for whoever brings the three lines.
    fn again(&self, config: Option<&std::path::Path>, arguments: &Arguments) -> String {
        let site = &self.site;
        let mut words: Vec<String> = ["postern", "setup", "exchange"].map(str::to_owned).into();
        let mut add = |flag: &str, value: &str| {
            words.push(flag.to_owned());
            words.push(word(value));
        };
        if let Some(config) = config {
            add("-c", &config.to_string_lossy());
        }
        if let Some(out) = &arguments.common.out {
            add("--out", &out.to_string_lossy());
        }
        add("--tenant-id", "TENANT_ID");
        add("--client-id", "CLIENT_ID");
        for one in self.addresses() {
            add("--mailbox", &one);
        }
        if site.name != "exchange" {
            add("--name", &site.name);
        }
        if self.cloud != "global" {
            add("--cloud", &self.cloud);
        }
        if let Some(hostname) = &site.hostname {
            add("--hostname", hostname);
        }
        for network in &site.networks {
            add("--network", &network.to_string());
        }
        if !site.listen.is_empty() {
            add("--listen", &site.listen);
        }
        add("--senders", &site.senders.join(","));
        add("--recipients", &site.recipients.join(","));
        if let Some(proxy) = &site.proxy {
            add("--proxy", proxy);
        }
        for (flag, is_meant) in [
            ("--large", self.large),
            ("--every-mailbox", self.every_mailbox),
            ("--collapse", self.collapse),
        ] {
            if is_meant {
                words.push(flag.to_owned());
            }
        }
        words.join(" ")
    }
}

/// A word of a shell's command line.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn read<T>(
    flag: &str,
    text: &str,
    reader: impl Fn(&str) -> Result<T, String>,
) -> Result<T, CommandError> {
    reader(text).map_err(|why| {
        CommandError::new(
            Exit::Usage,
            format_args!("{flag}: {why}; nothing was written"),
        )
    })
}

/// Whether key and certificate are there; one without the other is an error.
fn kept_pair(place: &SetupPlace, name: &str) -> Result<bool, CommandError> {
    let [key, certificate] = ["key", "pem"].map(|end| place.path(&format!("{name}.{end}")));
    match (is_there(&key), is_there(&certificate)) {
        (false, false) => Ok(false),
        (true, true) => Ok(true),
        (has_key, _) => {
            let (there, not) = if has_key {
                (key, certificate)
            } else {
                (certificate, key)
            };
            Err(CommandError::new(
                Exit::CannotCreate,
                format_args!(
                    "{} is there without {}, and is not touched; nothing was written (--name gives the files other names)",
                    there.display(),
                    not.display()
                ),
            ))
        }
    }
}

/// Nothing: whoever sits there has ended the input.
fn wait_for_lines() -> Result<Option<ThreeLines>, CommandError> {
    output::complain(
        "\nThe three lines (Ctrl-D: later, the files stay; then this command again, or the one below):",
    );
    let mut lines = ThreeLines::default();
    for _ in 0..PASSED_OVER {
        let Some(line) = dialog::next_line()? else {
            return Ok(lines.has_ids().then_some(lines));
        };
        if line.trim().is_empty() {
            if lines.has_ids() {
                return Ok(Some(lines));
            }
            continue;
        }
        if let Err(why) = lines.take(&line) {
            output::complain(format_args!("{}: {why}", shown(&line)));
        }
        if lines.is_whole() {
            return Ok(Some(lines));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_goes_on_means_what_was_said() {
        for (text, expected) in [
            ("corp.example", "corp.example"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("o'brien@corp.example", "'o'\\''brien@corp.example'"),
            ("*", "'*'"),
            ("a b;c", "'a b;c'"),
            ("", "''"),
        ] {
            assert_eq!(word(text), expected);
        }
    }
}

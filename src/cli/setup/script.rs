//! The scripts for the tenant's administrator: the values of a set-up put into the two texts beside this file. Nothing secret is in
//! them, and nothing in a value can be anything but a value.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::super::exit::{CommandError, Exit};
use crate::{connector::newpair::NewPair, mail::text::hex};

/// Makes the application.
const MAKES: &str = include_str!("exchange.ps1");
/// Adds a certificate to one that is there.
const ADDS: &str = include_str!("add-certificate.ps1");

/// Where a tenant lives, by the word of the configuration: what the modules call it.
const CLOUDS: [(&str, &str, &str); 4] = [
    ("global", "Global", "O365Default"),
    ("gcc-high", "USGov", "O365USGovGCCHigh"),
    ("dod", "USGovDoD", "O365USGovDoD"),
    ("china", "China", "O365China"),
];

/// What an application is to be made for.
#[derive(Debug)]
pub(super) struct NewApplication<'a> {
    pub(super) connector: &'a str,
    pub(super) mailboxes: &'a [String],
    pub(super) large: bool,
    pub(super) every_mailbox: bool,
}

/// Where, and with which certificate.
#[derive(Debug)]
pub(super) struct ScriptGround<'a> {
    pub(super) host: &'a str,
    pub(super) cloud: &'a str,
    /// Its own name.
    pub(super) file: &'a str,
    pub(super) pair: &'a NewPair,
}

impl ScriptGround<'_> {
    /// The script that makes it.
    pub(super) fn making(&self, new: &NewApplication<'_>) -> Result<String, CommandError> {
        let mailboxes: Vec<String> = new.mailboxes.iter().map(|one| quoted(one)).collect();
        let line = match new.mailboxes {
            [one] => format!("mailbox = {}", toml::Value::from(one.as_str())),
            _ => "# mailbox: the From of each message".to_owned(),
        };
        let roles = if new.every_mailbox {
            "Application Administrator, Privileged Role Administrator (it grants a permission of Graph) and, to look at the mailboxes, Exchange Administrator"
        } else {
            "Application Administrator and Exchange Administrator"
        };
        let name = format!("Postern {} on {}", new.connector, self.host);
        self.filled(
            MAKES,
            &[
                ("ROLES", roles.to_owned()),
                ("NAME", quoted(&name)),
                ("MAILBOXES", mailboxes.join(", ")),
                ("LARGE", truth(new.large)),
                ("EVERY", truth(new.every_mailbox)),
                ("TAG", quoted(&format!("postern:{}", self.thumbprint()))),
                ("LINE", quoted(&line)),
            ],
        )
    }

    /// The script that adds the certificate to the application that is there.
    pub(super) fn adding(&self, tenant_id: &str, client_id: &str) -> Result<String, CommandError> {
        self.filled(
            ADDS,
            &[
                ("ROLES", "Application Administrator".to_owned()),
                ("CLIENT", quoted(client_id)),
                ("TENANT", quoted(tenant_id)),
            ],
        )
    }

    fn thumbprint(&self) -> String {
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &self.pair.der);
        hex(digest.as_ref()).to_ascii_uppercase()
    }

    fn filled(&self, text: &str, own: &[(&str, String)]) -> Result<String, CommandError> {
        let (_, graph, exchange) = CLOUDS
            .iter()
            .find(|(cloud, ..)| *cloud == self.cloud)
            .ok_or_else(|| CommandError::new(Exit::Software, "a cloud without its names"))?;
        let certificate = STANDARD.encode(&self.pair.der);
        let lines: Vec<String> = certificate
            .as_bytes()
            .chunks(100)
            .map(|line| format!("    '{}'", String::from_utf8_lossy(line)))
            .collect();
        let shared = [
            ("HOST", self.host.to_owned()),
            ("FILE", self.file.to_owned()),
            ("GRAPH", quoted(graph)),
            ("EXCHANGE", quoted(exchange)),
            (
                "KEYNAME",
                quoted(&format!("postern {} {}", self.host, self.thumbprint())),
            ),
            ("CERTIFICATE", lines.join(",\n")),
        ];
        let value = |name: &str| {
            let all = own.iter().chain(&shared);
            let mut found = all.filter(|(known, _)| *known == name);
            found.next().map(|(_, value)| value.as_str())
        };
        let filled = fill(text, value);
        let is_one_line =
            |(name, value): &(&str, String)| *name == "CERTIFICATE" || !value.contains('\n');
        // Windows PowerShell reads a file without a mark in the code page of the machine; a quote that is no apostrophe ends a text there.
        let is_plain = |c: char| c.is_ascii_graphic() || c == ' ' || c == '\n';
        if filled.chars().all(is_plain) && own.iter().chain(&shared).all(is_one_line) {
            return Ok(filled);
        }
        Err(CommandError::new(
            Exit::Usage,
            "the script for the administrator takes ASCII only, and each in one line: give --hostname, --name and --mailbox so; nothing was written",
        ))
    }
}

/// Puts a value in the place of each `@NAME@`; what stands in a value is looked at no more.
fn fill<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len() + 2048);
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('@') {
        out += before;
        let found = behind
            .split_once('@')
            .and_then(|(name, after)| Some((value(name)?, after)));
        rest = if let Some((value, after)) = found {
            out += value;
            after
        } else {
            out.push('@');
            behind
        };
    }
    out + rest
}

/// A text of PowerShell that is nothing but itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn truth(is: bool) -> String {
    if is { "$true" } else { "$false" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn pair() -> NewPair {
        NewPair {
            certificate_pem: String::new(),
            key_pem: Secret::new("-----BEGIN PRIVATE KEY-----hunter2"),
            der: (0..=255).collect(),
        }
    }

    fn made(host: &str, mailboxes: &[&str]) -> Result<String, CommandError> {
        let mailboxes: Vec<String> = mailboxes.iter().map(|one| (*one).to_owned()).collect();
        let pair = pair();
        let ground = ScriptGround {
            host,
            cloud: "global",
            file: "exchange.ps1",
            pair: &pair,
        };
        ground.making(&NewApplication {
            connector: "exchange",
            mailboxes: &mailboxes,
            large: true,
            every_mailbox: false,
        })
    }

    #[test]
    fn values_are_values_and_nothing_secret_is_there() {
        let text = made("relay", &["o'brien@corp.example", "@LINE@x@corp.example"]).unwrap();
        assert!(text.contains("$Mailboxes = @('o''brien@corp.example', '@LINE@x@corp.example')"));
        assert!(text.contains("$Large = $true\n"));
        assert!(text.contains("$Name = 'Postern exchange on relay'\n"));
        assert!(!text.contains("hunter2"));
        let left = ["@HOST@", "@NAME@", "@TAG@", "@CERTIFICATE@"];
        assert!(left.iter().all(|name| !text.contains(name)));
        let line = made("relay", &["o'brien@corp.example"]).unwrap();
        assert!(
            line.contains("$MailboxLine = 'mailbox = \"o''brien@corp.example\"'\n"),
            "{line}"
        );
    }

    #[test]
    fn what_is_not_ascii_is_refused() {
        for host in ["relay\u{2019}; Remove-Item", "relay\nRemove-Item", "\u{e4}"] {
            assert_eq!(made(host, &[]).unwrap_err().code, 64, "{host:?}");
        }
    }
}

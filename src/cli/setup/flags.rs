//! The flags that all kinds have, and what they come to: who may send by this gateway, as whom and to whom.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;

use super::{
    super::{
        exit::{CommandError, Exit},
        output,
    },
    dialog::{Dialog, FlagQuestion},
};
use crate::{
    config::{
        Environment,
        values::{self, Fault},
    },
    mail::address::Address,
};

#[derive(Debug, clap::Args)]
pub(super) struct SetupFlags {
    /// Name of the connector, and of the files [default: the kind]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A network whose devices may send; may be given several times [default: this machine alone]
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<String>,
    /// Where the gateway listens [default: 127.0.0.1:25, with --network 0.0.0.0:25]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Who may stand as sender: domains and addresses, with commas [default: the domain of the mailbox or of --from]
    #[arg(long, value_name = "PATTERNS")]
    senders: Option<String>,
    /// Whom mail may go to: domains and addresses, with commas; '*' is anybody [default: as the senders' domain]
    #[arg(long, value_name = "PATTERNS")]
    recipients: Option<String>,
    /// The full name of this machine [default: its own]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// The way out: http://HOST:PORT, socks5://HOST:PORT or none
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Where the files go [default: where the configuration is]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

/// What is known of the gateway.
#[derive(Debug, Clone)]
pub(super) struct SiteAnswers {
    pub(super) name: String,
    pub(super) networks: Vec<IpNet>,
    pub(super) listen: String,
    pub(super) senders: Vec<String>,
    pub(super) recipients: Vec<String>,
    /// A full one.
    pub(super) hostname: Option<String>,
    pub(super) proxy: Option<String>,
}

impl SetupFlags {
    /// Whether any of those is given that `setup exchange --renew` has no use for.
    pub(super) fn says_more_than_where(&self) -> bool {
        let texts = [
            &self.name,
            &self.listen,
            &self.senders,
            &self.recipients,
            &self.proxy,
        ];
        !self.networks.is_empty() || texts.iter().any(|given| given.is_some())
    }

    /// `--hostname`, as it was given.
    pub(super) fn hostname_given(&self) -> Option<String> {
        self.hostname.clone()
    }

    /// `--name`.
    pub(super) fn name(&self, dialog: Dialog, kind: &str) -> Result<String, CommandError> {
        let question = FlagQuestion {
            flag: "--name NAME",
            words: "Name of the connector",
            default: Some(kind.to_owned()),
        };
        dialog.value(&question, self.name.as_deref(), |text| {
            let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let is_name = text.len() <= 64
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(is_fine);
            is_name.then(|| text.to_owned()).ok_or_else(|| {
                "a name is 1 to 64 of the characters a-z A-Z 0-9 . _ - and begins with a letter or a digit"
                    .to_owned()
            })
        })
    }

    /// `--hostname`; of a machine that has no full name nothing.
    pub(super) fn hostname(&self, dialog: Dialog) -> Result<Option<String>, CommandError> {
        let read = |text: &str| {
            let name = values::domain(text).map_err(said)?.to_string();
            if values::is_full_name(&name) {
                return Ok(name);
            }
            Err("a full name has a dot, as in relay.corp.example".to_owned())
        };
        let own = Environment::of_process().hostname;
        let (flag, words) = ("--hostname NAME", "Full name of this machine");
        let given = self.hostname.as_deref();
        if values::is_full_name(&own) {
            let default = Some(own);
            let question = FlagQuestion {
                flag,
                words,
                default,
            };
            return dialog.value(&question, given, read).map(Some);
        }
        dialog.optional(flag, words, given, read)
    }

    /// All of them, for a gateway that sends for this domain. Beside a configuration only a connector and its route are made.
    pub(super) fn site(
        &self,
        dialog: Dialog,
        (name, hostname): (String, Option<String>),
        of: Option<&Address>,
        is_beside: bool,
    ) -> Result<SiteAnswers, CommandError> {
        if self.proxy.as_deref().is_some_and(has_login) {
            return Err(CommandError::new(
                Exit::Usage,
                "--proxy: a password does not belong on a command line, where every user of this machine can read it; give the proxy without it, and write it into `proxy` of the file afterwards",
            ));
        }
        let domain = of.map(|address| address.domain().to_string());
        let (networks, listen) = if is_beside {
            if !self.networks.is_empty() || self.listen.is_some() {
                output::complain(
                    "there is a configuration: --network and --listen are not used, its clients and listeners stay as they are",
                );
            }
            (Vec::new(), String::new())
        } else {
            self.reach(dialog)?
        };
        let senders = patterns(
            dialog,
            ("--senders PATTERNS", "Who may stand as sender"),
            domain.clone(),
            self.senders.as_deref(),
        )?;
        let recipients = patterns(
            dialog,
            ("--recipients PATTERNS", "Whom mail may go to"),
            domain.or_else(|| senders.first().filter(|text| !text.contains('@')).cloned()),
            self.recipients.as_deref(),
        )?;
        let proxy = dialog.optional(
            "--proxy URL",
            "Proxy on the way out",
            self.proxy.as_deref(),
            |text| {
                if has_login(text) {
                    return Err(
                        "a password does not belong here; write it into the file afterwards"
                            .to_owned(),
                    );
                }
                if text == "none" || text.starts_with("http://") || text.starts_with("socks5://") {
                    return Ok(text.to_owned());
                }
                Err("write it as in http://HOST:PORT, socks5://HOST:PORT or none".to_owned())
            },
        )?;
        Ok(SiteAnswers {
            name,
            networks,
            listen,
            senders,
            recipients,
            hostname,
            proxy,
        })
    }

    /// Who can reach it, and where.
    fn reach(&self, dialog: Dialog) -> Result<(Vec<IpNet>, String), CommandError> {
        let given = (!self.networks.is_empty()).then(|| self.networks.join(","));
        let networks = dialog
            .optional(
                "--network CIDR",
                "Networks whose devices may send, beside this machine",
                given.as_deref(),
                |text| each(text, |one| values::network(one).map_err(said)),
            )?
            .unwrap_or_default();
        let is_six =
            |network: &IpNet| matches!(network, IpNet::V6(_)) && !network.network().is_loopback();
        let default = if networks.is_empty() {
            "127.0.0.1:25"
        } else if networks.iter().any(is_six) {
            // A socket of IPv6 takes both.
            "[::]:25"
        } else {
            "0.0.0.0:25"
        };
        let question = FlagQuestion {
            flag: "--listen ADDRESS:PORT",
            words: "Where the gateway listens",
            default: Some(default.to_owned()),
        };
        let listen = dialog.value(&question, self.listen.as_deref(), |text| {
            let is_socket = text.strip_prefix("socket:").is_some_and(|n| !n.is_empty());
            if is_socket || text.parse::<SocketAddr>().is_ok() {
                return Ok(text.to_owned());
            }
            Err("write an address and a port, as in 127.0.0.1:25 or [::]:25".to_owned())
        })?;
        Ok((networks, listen))
    }
}

fn has_login(proxy: &str) -> bool {
    proxy
        .rsplit_once('@')
        .is_some_and(|(login, _)| login.rsplit("//").next().unwrap_or(login).contains(':'))
}

fn patterns(
    dialog: Dialog,
    (flag, words): (&str, &str),
    default: Option<String>,
    given: Option<&str>,
) -> Result<Vec<String>, CommandError> {
    let question = FlagQuestion {
        flag,
        words,
        default,
    };
    dialog.value(&question, given, |text| {
        each(text, |one| {
            values::pattern(one).map_err(said)?;
            Ok(one.to_owned())
        })
    })
}

/// What stands between commas.
pub(super) fn each<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let all = parts.map(read).collect::<Result<Vec<T>, String>>()?;
    if all.is_empty() {
        return Err("this says nothing".to_owned());
    }
    Ok(all)
}

/// An address of `--mailbox` or `--from`.
pub(super) fn address(text: &str) -> Result<Address, String> {
    let address = values::address(text).map_err(said)?;
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"\\".contains(c);
    if address.to_string().chars().all(is_plain) {
        return Ok(address);
    }
    Err("no mailbox has quotes, blanks or backslashes in its address".to_owned())
}

/// A fault as one sentence.
pub(super) fn said(fault: Fault) -> String {
    match fault.hint {
        Some(hint) => format!("{}; {hint}", fault.message),
        None => fault.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_of_a_proxy_is_seen_in_every_form() {
        for text in [
            "http://me:pw@proxy:3128",
            "me:pw@proxy:3128",
            "socks5://me:p@w@proxy:1080",
            "http://me:@proxy:3128",
        ] {
            assert!(has_login(text), "{text}");
        }
        for text in ["http://proxy:3128", "none", "socks5://[fd00::1]:1080"] {
            assert!(!has_login(text), "{text}");
        }
    }

    #[test]
    fn mailboxes_that_cannot_be_are_refused() {
        assert_eq!(
            address("O'Brien@Corp.Example").unwrap().to_string(),
            "O'Brien@corp.example"
        );
        for text in [
            "printer",
            "\"a b\"@corp.example",
            "a\nb@corp.example",
            "\u{2019}@corp.example",
            "<a@corp.example>",
        ] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }
}

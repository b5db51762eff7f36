//! `[incidents]` and `[[notify]]` to the settings of those who tell. Connects to nothing.

use std::time::Duration;

use super::{
    connector::Connectors,
    context::{Context, SectionNames},
    outbound::Outbound,
    secret,
    token::Reach,
};
use crate::{
    config::{
        table::{Table, bare},
        values::{self, Fault, fault, plain},
        words::nearest,
    },
    connector::is_loopback,
    incident::{
        catalogue::{IncidentKind, IncidentSeverity},
        settings::{Channel, ChannelUrl, ChannelWay, IncidentSettings},
    },
    route::ConnectorName,
    secret::Secret,
};

/// `expected`: the clients that must not be silent.
pub(super) fn read(
    context: Context<'_>,
    root: &Table<'_>,
    outbound: &Outbound,
    connectors: &Connectors,
    expected: Vec<(String, Duration)>,
) -> IncidentSettings {
    let table = root.table("incidents");
    let settings = IncidentSettings {
        open_after: table.duration("open_after"),
        recover_after: table.duration("recover_after"),
        remind: table.duration("remind"),
        channels: channels(context, root, outbound, connectors),
        expected,
    };
    table.finish();
    settings
}

fn channels(
    context: Context<'_>,
    root: &Table<'_>,
    outbound: &Outbound,
    connectors: &Connectors,
) -> Vec<Channel> {
    let mut names = SectionNames::new("notify");
    let mut all = Vec::new();
    for table in root.tables("notify") {
        let name = names.read(context, &table);
        let min_severity = table.choice("min_severity", IncidentSeverity::ALL);
        let kinds = kinds(&table);
        table.requires("type", "type = \"webhook\"");
        let Some(word) = table.parsed("type", type_of) else {
            continue;
        };
        table.set_kind(word.value);
        let reader = ChannelReader {
            context,
            table: &table,
            outbound,
            connectors,
        };
        if let Some(way) = reader.way(word.value) {
            all.push(Channel {
                name,
                min_severity,
                kinds,
                way,
            });
        }
        table.finish();
    }
    all
}

/// The one place where a type becomes known.
fn type_of(text: &str) -> Result<&'static str, Fault> {
    let known = ["webhook", "slack", "teams", "ntfy", "mail", "heartbeat"];
    known.into_iter().find(|word| *word == text).ok_or_else(|| {
        fault!("there is no channel type \"{}\"", plain(text);
            "the types are \"webhook\", \"slack\", \"teams\", \"ntfy\", \"mail\" and \"heartbeat\"")
    })
}

/// `None`: all.
fn kinds(table: &Table<'_>) -> Option<Vec<IncidentKind>> {
    let read = table.list("kinds", |text| {
        if text == "*" {
            return Ok(None);
        }
        let kind = IncidentKind::parse(text).ok_or_else(|| {
            let words = IncidentKind::all().map(IncidentKind::as_str);
            let hint = match nearest(text, words) {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => "write \"*\", or one such as \"connector_paused\"".to_owned(),
            };
            Fault::new(
                format!("there is no kind of incident \"{}\"", plain(text)),
                hint,
            )
        });
        kind.map(Some)
    })?;
    bare(read.value).into_iter().collect()
}

struct ChannelReader<'a> {
    context: Context<'a>,
    table: &'a Table<'a>,
    outbound: &'a Outbound,
    connectors: &'a Connectors,
}

impl ChannelReader<'_> {
    fn way(&self, word: &str) -> Option<ChannelWay> {
        let table = self.table;
        let secret = |key| secret::read(self.context, table, key).map(|given| given.secret);
        Some(match word {
            "webhook" => ChannelWay::Webhook {
                secret: secret("secret"),
                to: self.url()?,
            },
            "slack" => ChannelWay::Slack(self.url()?),
            "teams" => ChannelWay::Teams(self.url()?),
            "ntfy" => {
                table.requires("topic", "topic = \"postern\"");
                let (token, topic) = (secret("token"), table.parsed("topic", topic));
                ChannelWay::Ntfy {
                    to: self.url()?,
                    topic: topic?.value,
                    token,
                }
            }
            "mail" => self.mail()?,
            _ => ChannelWay::Heartbeat {
                every: table.duration("every"),
                to: self.url()?,
            },
        })
    }

    fn mail(&self) -> Option<ChannelWay> {
        let table = self.table;
        table.requires("to", "to = [\"ops@corp.example\"]");
        if let (true, Some(span)) = (table.is_empty_list("to"), table.place("to")) {
            self.context.error(
                &span,
                fault!("nobody would be told"; "write to = [\"ops@corp.example\"]"),
            );
        }
        let to = table.list("to", values::address);
        let named = table.parsed("connector", |name| self.connectors.names.lookup(name));
        Some(ChannelWay::Mail {
            to: bare(to?.value),
            connector: named.map(|at| ConnectorName::from(at.value.as_str())),
        })
    }

    fn url(&self) -> Option<ChannelUrl> {
        let table = self.table;
        table.requires("url", "url = { file = \"oncall.url\" }");
        let proxy = self.outbound.proxy_for(self.context, table);
        let reach = Reach {
            outbound: self.outbound,
            proxy: &proxy,
        };
        let http = reach.http(self.context, table);
        let given = secret::read(self.context, table, "url")?;
        // What is not to be read says nothing.
        let url = if given.known {
            match web(given.secret.reveal()) {
                Ok((url, host)) => {
                    self.outbound.check(self.context, &given.span, &host);
                    url
                }
                Err(fault) => {
                    self.context.error(&given.span, fault);
                    return None;
                }
            }
        } else {
            String::new()
        };
        Some(ChannelUrl {
            url: Secret::new(url),
            http,
        })
    }
}

fn topic(text: &str) -> Result<String, Fault> {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_fine) {
        return Ok(text.to_owned());
    }
    Err(
        fault!("this is not the name of a topic"; "it is 1 to 64 of the characters a-z A-Z 0-9 _ -; the server is the `url`"),
    )
}

/// The URL and its host; https, or http to this machine. It may be a secret as a whole, so no fault shows any of it.
fn web(text: &str) -> Result<(String, String), Fault> {
    let form = "write it as in \"https://hooks.example/services/…\"";
    let url =
        reqwest::Url::parse(text.trim()).map_err(|_| Fault::new("this is not a URL", form))?;
    let host = url
        .host_str()
        .map(|host| host.trim_matches(['[', ']']).to_owned())
        .filter(|host| !host.is_empty())
        .ok_or_else(|| Fault::new("this URL has no host", form))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&host) => {}
        "http" => {
            return Err(
                fault!("what is told would go over the network in the clear";
                "write https://; http:// is only for this machine itself"),
            );
        }
        _ => return Err(Fault::new("only https:// is known here", form)),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("a login does not belong in this URL", form));
    }
    Ok((url.into(), host))
}

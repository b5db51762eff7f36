//! WAYS OUT: the kinds there are. What a kind is, and how one is made, stands here and nowhere else, each fact as one `match`.
//!
//! When and whether to try again is decided by `delivery`; a connector makes one attempt and says what came
//! of it. It knows neither queue nor routes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    mail::{address::Address, tls::TlsFloor},
    route::ConnectorName,
};

pub mod capture;
mod deadline;
pub mod discard;
pub mod dkim;
mod endpoint;
pub mod examine;
pub mod expiry;
pub mod graph;
pub mod http;
mod interface;
pub mod keypair;
pub mod newpair;
pub mod oauth;
mod outbound;
pub mod services;
mod settings;
pub mod smtp;
mod tls;

pub use self::{
    deadline::{Deadline, MayBegin},
    endpoint::Endpoint,
    interface::{Connections, Connector, ExpectedMail, Learned, Memory, Recorder, Services},
    outbound::{Proxy, ProxyServer, is_loopback, names},
    settings::{Auth, LaneLimits, Pipelining, Rate, SmtpSettings, Tls, Upload, Verify},
    tls::client::{tls_config, tls_trouble},
};
pub use crate::smtp::client::class::{Class, Override};

/// One `[[connector]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: ConnectorName,
    /// Jobs at once; of a connector that has mailboxes for each of them.
    pub max_concurrent: usize,
    /// That was written out, and does not follow from something else.
    pub is_concurrency_given: bool,
    /// The longest time between two probes while it is closed.
    pub probe: Duration,
    /// Messages in any window of that length, at most; likewise.
    pub rate: Option<Rate>,
    /// For one whole delivery.
    pub timeout: Duration,
    /// Recipients of one job.
    pub max_recipients: usize,
    /// The kind and its own keys.
    pub kind: Kind,
}

impl Settings {
    /// In what it asks for more than the provider is known to take, a sentence each.
    pub fn asks_too_much(&self) -> Vec<String> {
        let mut said = Vec::new();
        if let Some((concurrent, rate)) = self.kind.mailbox_quota() {
            if self.max_concurrent as u64 > concurrent {
                said.push(format!("max_concurrent = {}: Exchange Online takes {concurrent} requests at once for a mailbox", self.max_concurrent));
            }
            if let Some(given) = self.rate.filter(|given| given.exceeds(rate)) {
                said.push(format!(
                    "rate = {}/{}s: Exchange Online takes {} messages in {} s of a mailbox",
                    given.count,
                    given.per.as_secs(),
                    rate.count,
                    rate.per.as_secs()
                ));
            }
        }
        match &self.kind {
            Kind::Graph(graph) => {
                if graph
                    .upload_rate
                    .is_some_and(|given| given.exceeds(Upload::OF_MAILBOX))
                {
                    said.push(
                        "upload_rate: Exchange Online takes 150 MB in 5 minutes of a mailbox"
                            .to_owned(),
                    );
                }
            }
            Kind::Smtp(smtp) => {
                let known = services::at(&smtp.host).and_then(services::Service::known_connections);
                if let Some(known) = known.filter(|known| smtp.max_connections > *known) {
                    said.push(format!(
                        "max_connections = {}: {} takes {known} of a mailbox at once",
                        smtp.max_connections, smtp.host
                    ));
                }
            }
            Kind::Capture { .. } | Kind::Discard => {}
        }
        said
    }

    /// Makes the connector. It connects to nothing yet.
    ///
    /// # Errors
    /// A sentence for people: which file or key cannot be used.
    pub fn build(&self, services: Services) -> Result<Arc<dyn Connector>, String> {
        let name = self.name.clone();
        Ok(match &self.kind {
            Kind::Smtp(smtp) => Arc::new(smtp::Smtp::new(
                name,
                self.max_recipients,
                smtp,
                smtp::Timeouts::default(),
                services,
            )?),
            Kind::Graph(graph) => Arc::new(graph::Graph::new(name, graph, services)?),
            Kind::Capture { directory } => Arc::new(capture::Capture::new(name, directory)?),
            Kind::Discard => Arc::new(discard::Discard::new(name)),
        })
    }

    /// The same without what is each gateway's own: who it says that it is, and its certificate.
    #[must_use]
    pub fn without_whose(&self) -> Self {
        let mut settings = self.clone();
        if let Kind::Smtp(smtp) = &mut settings.kind {
            smtp.helo.clear();
            smtp.own_addresses.clear();
            smtp.says_address = false;
            smtp.client_certificate = None;
        }
        settings
    }

    /// What all jobs of the connector are held to together, and those of each mailbox, where mailboxes are held to something of
    /// their own.
    pub fn limits(&self) -> (LaneLimits, Option<LaneLimits>) {
        let own = LaneLimits {
            concurrent: self.max_concurrent,
            rate: self.rate,
            upload: None,
        };
        match &self.kind {
            Kind::Graph(graph) => graph.limits(own),
            Kind::Smtp(_) | Kind::Capture { .. } | Kind::Discard => (own, None),
        }
    }
}

/// What kind of connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An SMTP smarthost.
    Smtp(Box<SmtpSettings>),
    /// Microsoft Graph.
    Graph(Box<graph::Settings>),
    /// `.eml` files in a directory.
    Capture {
        /// The directory.
        directory: PathBuf,
    },
    /// Accepts and drops.
    Discard,
}

impl Kind {
    /// How its tokens are asked for, if it has tokens.
    pub fn oauth(&self) -> Option<&oauth::Settings> {
        match self {
            Kind::Smtp(smtp) => smtp.oauth.as_ref().map(|(oauth, _)| oauth),
            Kind::Graph(graph) => Some(&graph.oauth),
            Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// Whether it depends on its upstream if it takes an address in UTF-8.
    pub fn may_lack_utf8(&self) -> bool {
        matches!(self, Self::Smtp(_))
    }

    /// The keys that sign its mail, where it signs any.
    pub fn dkim(&self) -> Option<&[dkim::DkimKey]> {
        match self {
            Kind::Smtp(smtp) => smtp.dkim.as_deref(),
            Kind::Graph(_) | Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// Connections at once, where those are what an upstream counts.
    pub fn max_connections(&self) -> Option<usize> {
        match self {
            Kind::Smtp(smtp) => Some(smtp.max_connections),
            Kind::Graph(graph) => Some(graph.max_connections),
            Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// Whether its upstream counts by mailbox.
    pub fn counts_by_mailbox(&self) -> bool {
        match self {
            Kind::Graph(_) => true,
            Kind::Smtp(_) | Kind::Capture { .. } | Kind::Discard => false,
        }
    }

    /// The one mailbox that all mail leaves from, where the connector has one.
    pub fn mailbox(&self) -> Option<Address> {
        let mailbox = match self {
            Kind::Smtp(smtp) => smtp.oauth.as_ref().map(|(_, mailbox)| mailbox),
            Kind::Graph(graph) => graph.mailbox.as_ref(),
            Kind::Capture { .. } | Kind::Discard => None,
        };
        mailbox.and_then(|mailbox| Address::parse(mailbox).ok())
    }

    /// Where its connections lead, as whom, and how many there may be, where it keeps any: what is found out about the upstream of
    /// one holds for another of which this is equal.
    pub fn upstream(&self) -> Option<String> {
        match self {
            Kind::Smtp(smtp) => Some(format!(
                "{}:{} {} {}",
                smtp.host,
                smtp.port,
                self.login().unwrap_or("-"),
                smtp.max_connections
            )),
            Kind::Graph(_) | Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// Whom it logs in as: the likeliest sender. It need not be an address.
    pub fn login(&self) -> Option<&str> {
        match self {
            Kind::Smtp(smtp) => match (&smtp.oauth, &smtp.login) {
                (Some((_, name)), _) | (None, Some((name, _))) => Some(name),
                (None, None) => None,
            },
            Kind::Graph(graph) => graph.mailbox.as_deref(),
            Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// Each message leaves from the mailbox of its From, which therefore has to be one.
    pub fn sends_as_from(&self) -> bool {
        match self {
            Kind::Graph(graph) => graph.mailbox.is_none(),
            Kind::Smtp(_) | Kind::Capture { .. } | Kind::Discard => false,
        }
    }

    /// Jobs at once and messages that the provider takes of one mailbox, where it is known to refuse more.
    pub fn mailbox_quota(&self) -> Option<(u64, Rate)> {
        match self {
            // learn.microsoft.com/graph/throttling-limits, and Exchange Online's limits.
            Kind::Graph(_) => Some((
                4,
                Rate {
                    count: 30,
                    per: Duration::from_mins(1),
                },
            )),
            Kind::Smtp(_) | Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// What it takes reaches somebody, so that it can carry an alarm.
    pub fn leads_to_people(&self) -> bool {
        match self {
            Kind::Smtp(_) | Kind::Graph(_) => true,
            Kind::Capture { .. } | Kind::Discard => false,
        }
    }

    /// Above this many octets it refuses a message, whatever happens.
    pub fn max_size(&self) -> Option<u64> {
        match self {
            Kind::Graph(graph) => graph.max_size(),
            Kind::Smtp(_) | Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// Its refresh token or its certificate may have been replaced, so that it needs a [`oauth::TokenStore`].
    pub fn needs_token_store(&self) -> bool {
        self.oauth().is_some_and(|oauth| oauth.grant.rotates())
    }

    /// Making one leaves nothing behind, so that `check` can do so to find a file that cannot be used.
    pub fn leaves_no_trace(&self) -> bool {
        match self {
            Kind::Smtp(_) | Kind::Graph(_) | Kind::Discard => true,
            // It makes its directory.
            Kind::Capture { .. } => false,
        }
    }

    /// The hosts that are spoken to before a message can leave, in the order in which they are.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let token = self.oauth().and_then(|oauth| {
            let is_metadata = matches!(oauth.grant, oauth::Grant::ManagedIdentity { .. });
            Some(Endpoint {
                is_metadata,
                ..Endpoint::of_url(&oauth.token_url)?
            })
        });
        let own = match self {
            Kind::Smtp(smtp) => Some(Endpoint {
                host: smtp.host.trim_matches(['[', ']']).to_owned(),
                port: smtp.port,
                url: None,
                is_metadata: false,
            }),
            Kind::Graph(graph) => Endpoint::of_url(&graph.graph_url),
            Kind::Capture { .. } | Kind::Discard => None,
        };
        token.into_iter().chain(own).collect()
    }

    /// Through which proxy it goes, if it goes anywhere.
    pub fn proxy(&self) -> Option<&Proxy> {
        match self {
            Kind::Smtp(smtp) => Some(&smtp.proxy),
            Kind::Graph(graph) => Some(&graph.oauth.http.proxy),
            Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// The least of TLS that is spoken with the server, where it is an SMTP server and TLS is spoken at all.
    pub fn tls_floor(&self) -> Option<TlsFloor> {
        match self {
            Kind::Smtp(smtp) => (smtp.tls != Tls::Off).then_some(smtp.tls_floor),
            Kind::Graph(_) | Kind::Capture { .. } | Kind::Discard => None,
        }
    }

    /// The client certificate of smtp, the application's, and the roots that are trusted in place of the system's or beside them; each
    /// where there is one.
    pub fn certificate_files(&self) -> [Option<&Path>; 4] {
        let oauth = self.oauth();
        let application = oauth.and_then(|oauth| oauth.grant.certificate());
        let token_roots = oauth.and_then(|oauth| oauth.http.ca_file.as_deref());
        let (client, roots) = match self {
            Kind::Smtp(smtp) => (smtp.client_certificate.as_ref(), smtp.ca_file.as_deref()),
            Kind::Graph(_) | Kind::Capture { .. } | Kind::Discard => (None, None),
        };
        [
            client.map(|(chain, _)| chain.as_path()),
            application.map(|(chain, _)| chain),
            roots,
            token_roots,
        ]
    }

    /// The certificates of ours that it shows, each with its key: the application's, and the client's of smtp.
    pub fn certificates(&self) -> impl Iterator<Item = (&Path, &Path)> {
        let own = match self {
            Kind::Smtp(smtp) => smtp.client_certificate.as_ref(),
            Kind::Graph(_) | Kind::Capture { .. } | Kind::Discard => None,
        };
        let own = own.map(|(chain, key)| (chain.as_path(), key.as_path()));
        let application = self.oauth().and_then(|oauth| oauth.grant.certificate());
        own.into_iter().chain(application)
    }
}

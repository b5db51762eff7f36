//! What the window asks of the gateway, answered from what it has: the store, the settings in force, and its own loop.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{
    report::{
        explain::{Question, explain},
        life::History,
        site::Site,
        situation::Situation,
        status::StatusReport,
        trial::Trial,
    },
    tokens::StoredTokens,
};
use crate::{
    admin::{
        host::{ExplainQuery, Host, NewMail, NotSent, NotTried},
        settings::WriteConfig,
    },
    config::{self, Config, Diagnostic, Diagnostics, Secrets},
    connector::services,
    mail::{address::Address, message::MessageId, reply::Reply},
    queue::{
        lock::Holder,
        store::{Entry, Store, StoreError},
    },
    view,
};

/// A reload that somebody asks for, and who waits to hear what became of it.
pub(super) type AskedReload = oneshot::Sender<Result<(), String>>;

/// See the module.
#[derive(Debug)]
pub(super) struct GatewayHost {
    store: Arc<dyn Store>,
    config: RwLock<Arc<Config>>,
    reload: mpsc::Sender<AskedReload>,
}

impl GatewayHost {
    pub(super) fn new(
        store: Arc<dyn Store>,
        config: Arc<Config>,
        reload: mpsc::Sender<AskedReload>,
    ) -> Self {
        Self {
            store,
            config: RwLock::new(config),
            reload,
        }
    }

    /// From now on these are in force.
    pub(super) fn configure(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn current(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn situation(&self, config: &Config) -> Result<Situation, StoreError> {
        Situation::read(&site(config, None), self.store.as_ref()).await
    }
}

fn site<'a>(config: &'a Config, problems: Option<&'a Diagnostics>) -> Site<'a> {
    Site {
        data_dir: &config.data_dir,
        config: Some(config),
        problems,
        running: Some(Holder::this()),
        now: SystemTime::now(),
    }
}

/// What is wrong with the file as it is now.
async fn problems(path: PathBuf) -> Option<Diagnostics> {
    let read = move || config::load(&path, Secrets::Ignore).err();
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

#[async_trait]
impl Host for GatewayHost {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn status(&self) -> Result<view::Status, StoreError> {
        let config = self.current();
        let problems = problems(config.path.clone()).await;
        let site = site(&config, problems.as_ref());
        let report = StatusReport::read(site, Some(self.store.as_ref())).await?;
        Ok(report.view())
    }

    async fn entries(&self, entries: Vec<Entry>) -> Result<Vec<view::EntryView>, StoreError> {
        let config = self.current();
        let situation = self.situation(&config).await?;
        Ok(entries.iter().map(|entry| situation.view(entry)).collect())
    }

    async fn life(&self, id: MessageId) -> Result<Option<view::Life>, StoreError> {
        let config = self.current();
        let history = History::read(self.store.as_ref(), id, SystemTime::now()).await?;
        if history.is_empty() {
            return Ok(None);
        }
        Ok(Some(history.life(&self.situation(&config).await?)))
    }

    async fn message(&self, id: MessageId) -> Result<Option<view::ShownMessage>, StoreError> {
        let config = self.current();
        let history = History::read(self.store.as_ref(), id, SystemTime::now()).await?;
        if history.is_empty() {
            return Ok(None);
        }
        Ok(Some(history.shown(&self.situation(&config).await?, None)))
    }

    async fn connectors(&self) -> Result<Vec<view::ConnectorView>, StoreError> {
        let config = self.current();
        let report = StatusReport::read(site(&config, None), Some(self.store.as_ref())).await?;
        let sections = config::shown::connectors(&config);
        let mut all: Vec<view::ConnectorView> = Vec::new();
        for lane in report.view().connectors {
            let of = lane.name.split('/').next().unwrap_or_default();
            if lane.name != of {
                if let Some(connector) = all.iter_mut().find(|one| one.lane.name == of) {
                    connector.lanes.push(lane);
                }
                continue;
            }
            let settings = sections.get(of).cloned().unwrap_or_default();
            all.push(view::ConnectorView {
                kind: settings["type"].as_str().unwrap_or_default().to_owned(),
                settings,
                waiting: 0,
                in_flight: 0,
                last_success: None,
                credential_expires: None,
                lanes: Vec::new(),
                lane,
            });
        }
        let place = |one: &view::ConnectorView| {
            let named =
                |settings: &crate::connector::Settings| settings.name.as_str() == one.lane.name;
            config.connectors.iter().position(named)
        };
        all.sort_by_key(place);
        Ok(all)
    }

    fn explain(&self, asked: &ExplainQuery) -> Result<view::Explained, String> {
        let question = Question {
            from: asked.from.clone(),
            to: asked.to.clone(),
            header_from: None,
            client: asked.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            user: asked.user.clone(),
            listener: asked.listener.clone(),
            size: None,
            no_tls: false,
        };
        explain(&self.current(), &question).map_err(|error| error.to_string())
    }

    async fn test(
        &self,
        connector: &str,
        to: &str,
        from: Option<&str>,
    ) -> Result<view::Tried, NotTried> {
        let config = self.current();
        let named = |settings: &&crate::connector::Settings| settings.name.as_str() == connector;
        let settings = config
            .connectors
            .iter()
            .find(named)
            .ok_or(NotTried::NoConnector)?;
        let read = |text: &str| {
            Address::parse(text)
                .map_err(|why| NotTried::Unfit(format!("{text:?} is no address: {why}")))
        };
        let (to, from) = (read(to)?, from.map(read).transpose()?);
        let trial = Trial {
            config: &config,
            settings,
            token_store: Some(Arc::new(StoredTokens(Arc::clone(&self.store)))),
            recorder: None,
        };
        let tried = trial.send(from, &to, SystemTime::now()).await;
        tried
            .map(|tried| tried.view)
            .map_err(|error| NotTried::Unfit(error.to_string()))
    }

    async fn send(&self, letter: NewMail) -> Result<String, NotSent> {
        let _ = letter;
        let _ = Reply::new(451, (4, 3, 0), "");
        Err(NotSent::Unreachable("not yet".to_owned()))
    }

    async fn reload(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| "the gateway is ending".to_owned();
        let asked = self
            .reload
            .send_timeout(answer, Duration::from_secs(10))
            .await;
        asked.map_err(|_| "the gateway does not answer".to_owned())?;
        answered.await.map_err(gone)?
    }

    fn services(&self) -> Value {
        let all = services::all().iter().map(|service| {
            json!({
                "name": service.name,
                "host": service.host,
                "port": service.port,
                "tls": service.tls.as_str(),
                "connections": service.connections(),
            })
        });
        all.collect()
    }

    async fn config(&self) -> view::ConfigView {
        let config = self.current();
        let path = config.path.clone();
        let read = tokio::task::spawn_blocking(move || config::shown::file(&path)).await;
        let (sha256, text, problems) = read.unwrap_or_default();
        let write = config.window.as_ref().map(|window| window.write_config);
        view::ConfigView {
            path: config.path.display().to_string(),
            sha256,
            text,
            write: match write {
                Some(WriteConfig::Write) => "write",
                Some(WriteConfig::Propose) => "propose",
                Some(WriteConfig::Off) | None => "off",
            }
            .to_owned(),
            problems: problems.iter().map(Diagnostic::problem).collect(),
        }
    }

    fn counted_login(&self, _is_in: bool) {}

    fn is_alive(&self) -> bool {
        true
    }

    fn ready(&self) -> view::Readiness {
        view::Readiness::default()
    }

    async fn metrics(&self) -> Result<String, StoreError> {
        Ok(String::new())
    }
}

//! What the window asks of the gateway, answered from what it has: the store, the settings in force, and its own loop.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{
    changes::{self, Anew, aside},
    handover,
    instruments::Instruments,
    letter,
    report::{
        explain::{Question, explain},
        life::History,
        services::services,
        site::Site,
        situation::Situation,
        status::{StatusReport, open_incidents, with_old_tls},
        trial::Trial,
        verbs,
    },
    tokens::StoredTokens,
    watcher::post::{AlarmPost, test_channel},
};
use crate::{
    admin::{
        host::{ChangeRefused, ExplainQuery, Host, NewMail, NotSent, NotTried, PlannedChange},
        settings::WriteConfig,
    },
    config::{self, Config, Diagnostic, Diagnostics, edit},
    incident::settings::Channel,
    listener::Shared,
    mail::{address::Address, message::MessageId, text::shown_to, time::rfc3339},
    queue::{
        Queue,
        lock::Holder,
        store::{Commanded, Filter, OfConnector, Search, Store, StoreError, Verb},
    },
    view,
    window::{WindowDb, incidents},
};

/// A reload that somebody asks for, and who waits to hear what became of it.
pub(super) type AskedReload = oneshot::Sender<Result<(), String>>;

/// See the module.
#[derive(Debug)]
pub(super) struct GatewayHost {
    queue: Arc<Queue>,
    instruments: Arc<Instruments>,
    shared: Arc<Shared>,
    config: RwLock<Arc<Config>>,
    window: Option<Arc<WindowDb>>,
    reload: mpsc::Sender<AskedReload>,
    /// The file has one writer at a time here, reload and all.
    writing: tokio::sync::Mutex<()>,
}

impl GatewayHost {
    pub(super) fn new(
        queue: Arc<Queue>,
        instruments: Arc<Instruments>,
        shared: Arc<Shared>,
        config: Arc<Config>,
        window: Option<Arc<WindowDb>>,
        reload: mpsc::Sender<AskedReload>,
    ) -> Self {
        Self {
            queue,
            instruments,
            shared,
            config: RwLock::new(config),
            window,
            reload,
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// From now on these are in force.
    pub(super) fn configure(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Those in force.
    pub(super) fn current(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn situation(&self, config: &Config) -> Result<Situation, StoreError> {
        Situation::read(&site(config, None), self.queue.store().as_ref()).await
    }

    /// Writes a change, and brings the old octets back where the gateway does not take it.
    async fn write(
        &self,
        config: Arc<Config>,
        anew: Anew,
    ) -> Result<view::CheckedChange, ChangeRefused> {
        let (written, checked) = aside(move || anew.write(&config)).await?;
        let Err(why) = self.reload().await else {
            return Ok(checked);
        };
        let refused = aside(move || Ok(changes::not_reloaded(&why, written.undo()))).await?;
        // With the file as it was nothing is left to mend; else the next reload says it again.
        let _ = self.reload().await;
        Err(refused)
    }

    /// Deletes the files of secrets that for thirty days neither the configuration nor one of these changes names.
    pub(super) async fn forget_secrets(&self, open: Vec<String>) {
        let config = self.current();
        let _ = tokio::task::spawn_blocking(move || changes::forget(&config, &open)).await;
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

#[async_trait]
impl Host for GatewayHost {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.queue.store())
    }

    fn listeners(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    async fn status(&self) -> Result<view::Status, StoreError> {
        let config = self.current();
        let problems = changes::problems(config.path.clone()).await;
        let site = site(&config, problems.as_ref());
        let mut report = StatusReport::read(site, Some(self.queue.store().as_ref())).await?;
        if let Some(window) = &self.window {
            report.incidents = open_incidents(window).await;
            report.old_tls = with_old_tls(window, report.site.now).await;
        }
        Ok(report.view())
    }

    async fn search(&self, search: &Search) -> Result<view::FoundMessages, StoreError> {
        let config = self.current();
        let situation = self.situation(&config).await?;
        Ok(situation.found(&self.queue.store().search(search).await?))
    }

    fn of_connector(&self, name: &str) -> OfConnector {
        OfConnector::new(name, &self.current().router)
    }

    fn names(&self) -> (Vec<String>, Vec<String>) {
        let config = self.current();
        let routes = config.router.all();
        let connectors = config.connectors.iter();
        (
            routes.map(|route| route.name.to_string()).collect(),
            connectors
                .map(|connector| connector.name.to_string())
                .collect(),
        )
    }

    async fn command(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
    ) -> Result<Commanded, StoreError> {
        let store = self.queue.store().as_ref();
        let done = verbs::carry_out(store, filter, verb, expect, SystemTime::now()).await;
        self.queue.was_operated();
        done
    }

    async fn life(&self, id: MessageId) -> Result<Option<view::Life>, StoreError> {
        let config = self.current();
        let history = History::read(self.queue.store().as_ref(), id, SystemTime::now()).await?;
        if history.is_empty() {
            return Ok(None);
        }
        Ok(Some(history.life(&self.situation(&config).await?)))
    }

    async fn message(&self, id: MessageId) -> Result<Option<view::ShownMessage>, StoreError> {
        let config = self.current();
        let history = History::read(self.queue.store().as_ref(), id, SystemTime::now()).await?;
        if history.is_empty() {
            return Ok(None);
        }
        Ok(Some(history.shown(&self.situation(&config).await?, None)))
    }

    async fn connectors(&self) -> Result<Vec<view::ConnectorView>, StoreError> {
        let config = self.current();
        let store = self.queue.store();
        let report = StatusReport::read(site(&config, None), Some(store.as_ref())).await?;
        let (gauges, waiting) = (self.instruments.gauges().await?, store.waiting().await?);
        let sections = config::shown::connectors(&config);
        let (whole, mut parts): (Vec<_>, Vec<_>) = report
            .view()
            .connectors
            .into_iter()
            .partition(|lane| !lane.name.contains('/'));
        let shown = |lane: view::Lane| {
            let settings = sections.get(&lane.name).cloned().unwrap_or_default();
            let now = gauges.connectors.iter().find(|now| now.name == lane.name);
            let of = OfConnector::new(&lane.name, &config.router);
            let waits = waiting.iter().filter(|(place, _)| of.has_place(place));
            let begins = format!("{}/", lane.name);
            let last = self.instruments.metrics().last_success(&lane.name);
            view::ConnectorView {
                kind: settings["type"].as_str().unwrap_or_default().to_owned(),
                settings,
                waiting: waits.map(|(_, count)| count).sum(),
                in_flight: now.map_or(0, |now| now.in_flight as u64),
                last_success: last.map(rfc3339),
                credential_expires: now.and_then(|now| now.credential_ends).map(rfc3339),
                lanes: parts
                    .extract_if(.., |part| part.name.starts_with(&begins))
                    .collect(),
                lane,
            }
        };
        let mut all: Vec<view::ConnectorView> = whole.into_iter().map(shown).collect();
        all.sort_by_key(|one| {
            let mut names = config
                .connectors
                .iter()
                .map(|settings| settings.name.as_str());
            names.position(|name| name == one.lane.name)
        });
        Ok(all)
    }

    async fn set_stopped(
        &self,
        connector: &str,
        who: &str,
        why: Option<&str>,
    ) -> Result<bool, StoreError> {
        let (store, now) = (self.queue.store().as_ref(), SystemTime::now());
        let connector = connector.into();
        let done = match why {
            Some(why) => verbs::stop(store, &connector, &verbs::stopped(who, why), now).await,
            None => verbs::start(store, &connector, now).await,
        };
        self.queue.was_operated();
        done
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
            token_store: Some(StoredTokens::of(self.queue.store(), &config)),
            recorder: None,
        };
        let tried = trial.send(from, &to, SystemTime::now()).await;
        tried
            .map(|tried| tried.view)
            .map_err(|error| NotTried::Unfit(error.to_string()))
    }

    async fn send(&self, mail: NewMail) -> Result<String, NotSent> {
        let config = self.current();
        let unreachable =
            || NotSent::Unreachable("no listener admits 127.0.0.1 without TLS and AUTH".to_owned());
        let address = handover::local_listener(&config)
            .ok_or_else(unreachable)?
            .to_string();
        let letter = letter::composed(&mail).map_err(NotSent::Unfit)?;
        let content = letter.compose(SystemTime::now());
        let content = content.map_err(|error| NotSent::Unfit(error.to_string()))?;
        let (sender, recipients) = (letter.sender(), letter.recipients());
        let hand_over = move || handover::hand_over(&address, &sender, &recipients, &content);
        let sent = tokio::task::spawn_blocking(hand_over).await;
        match sent.map_err(|error| NotSent::Unreachable(error.to_string()))? {
            Ok(taken) => {
                let said = taken.reply.text;
                let id = said.rsplit(' ').next().unwrap_or_default();
                Ok(id.to_owned())
            }
            Err(handover::Unsent::Broken(why)) => Err(NotSent::Unreachable(why)),
            Err(handover::Unsent::Said(_, reply)) => Err(NotSent::Refused(reply.to_string())),
            Err(unsent @ handover::Unsent::NoRecipient(_)) => {
                Err(NotSent::Refused(unsent.to_string()))
            }
        }
    }

    fn channels(&self) -> Vec<view::ChannelView> {
        let config = self.current();
        let channels = config.incidents.channels.iter();
        channels.map(Channel::view).collect()
    }

    async fn test_channel(&self, name: &str) -> Option<view::ChannelTest> {
        let (store, metrics) = (self.queue.store(), self.instruments.metrics());
        let tried = test_channel(AlarmPost::of(&self.current(), store, metrics), name).await?;
        if let (true, Some(window)) = (tried.ok, &self.window) {
            let channel = tried.channel.clone();
            // What it could not tell before is no fault any more.
            window.later(move |tx| incidents::has_told(tx, &channel));
        }
        Some(tried)
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
        services()
    }

    async fn config(&self) -> view::ConfigView {
        let config = self.current();
        let path = config.path.clone();
        let read = move || (config::shown::file(&path), edit::writable(&path));
        let read = tokio::task::spawn_blocking(read).await;
        let ((sha256, text, problems), writable) =
            read.unwrap_or_else(|_| (Default::default(), Ok(())));
        let write = config.window.as_ref().map(|window| window.write_config);
        let read_only = writable.err().filter(|_| write == Some(WriteConfig::Write));
        view::ConfigView {
            path: config.path.display().to_string(),
            sha256,
            text,
            write: match write {
                Some(WriteConfig::Write) if read_only.is_none() => "write",
                Some(WriteConfig::Write | WriteConfig::Propose) => "propose",
                Some(WriteConfig::Off) | None => "off",
            }
            .to_owned(),
            read_only,
            problems: problems.iter().map(Diagnostic::problem).collect(),
        }
    }

    async fn check_change(
        &self,
        changes: view::Changes,
    ) -> Result<view::CheckedChange, ChangeRefused> {
        let config = self.current();
        aside(move || changes::check(&config, &changes)).await
    }

    async fn plan_change(&self, changes: view::Changes) -> Result<PlannedChange, ChangeRefused> {
        let config = self.current();
        aside(move || changes::plan(&config, &changes)).await
    }

    async fn apply_change(
        &self,
        number: i64,
        body: String,
    ) -> Result<view::CheckedChange, ChangeRefused> {
        let _alone = self.writing.lock().await;
        let config = self.current();
        let asked = Arc::clone(&config);
        let anew = aside(move || Anew::new(&asked, &body)).await?;
        let window = self.window.as_deref();
        let window = window.ok_or_else(|| changes::failed(&"there is no window.db"))?;
        changes::begin(window, number, &anew).await?;
        let done = self.write(config, anew).await;
        changes::finish(window, number, done.is_ok()).await;
        done
    }

    async fn try_draft(
        &self,
        connector: Value,
        to: Option<&str>,
    ) -> Result<view::Tried, ChangeRefused> {
        let config = self.current();
        let saved = Arc::clone(&config);
        let settings = aside(move || changes::draft(&saved, &connector)).await?;
        let unfit = |detail: String| ChangeRefused {
            status: 422,
            code: "not_tried",
            detail,
            problems: Vec::new(),
        };
        let trial = Trial {
            config: &config,
            settings: &settings,
            token_store: Some(StoredTokens::of(self.queue.store(), &config)),
            recorder: None,
        };
        let Some(to) = to else {
            return Ok(trial.examine().await);
        };
        let to = Address::parse(to)
            .map_err(|why| unfit(format!("{:?} is no address: {why}", shown_to(to, 100))))?;
        let tried = trial.send(None, &to, SystemTime::now()).await;
        tried
            .map(|tried| tried.view)
            .map_err(|error| unfit(error.to_string()))
    }

    fn saved_connectors(&self) -> Option<view::SavedConnectors> {
        config::shown::saved_connectors(&self.current().path)
    }

    fn connector_forms(&self) -> Vec<view::ConnectorForm> {
        config::forms::connectors()
    }

    fn counted_login(&self, is_in: bool) {
        let result = if is_in { "accepted" } else { "refused" };
        self.instruments.metrics().admin_login(result);
    }

    fn counted_request(&self, status: u16) {
        self.instruments.metrics().admin_request(status);
    }

    fn is_alive(&self) -> bool {
        self.instruments.is_alive()
    }

    fn ready(&self) -> view::Readiness {
        self.instruments.readiness()
    }

    fn day(&self) -> view::DayView {
        let day = self.instruments.metrics().day();
        let (since, numbers) = day.numbers(Instant::now(), SystemTime::now());
        view::DayView::of(since, &numbers)
    }

    fn disk(&self) -> view::DiskView {
        view::DiskView {
            free: self.queue.free_octets(),
            least: self.shared.limits().free_disk,
        }
    }

    async fn metrics(&self) -> Result<String, StoreError> {
        let mut gauges = self.instruments.gauges().await?;
        if let Some(window) = &self.window {
            let open = open_incidents(window).await.unwrap_or_default();
            gauges.incidents = [open.info, open.warning, open.critical];
        }
        Ok(self.instruments.metrics().text(&gauges))
    }
}

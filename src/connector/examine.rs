//! A connector looked at step by step, as `postern doctor` does: files, the way there, TLS, the clock, the token, the login, the mailbox.
//!
//! What depends on a failure is skipped. Nothing is sent, and no lane hears of it; each step ends within ten seconds. What each failure means
//! is said where it is met: here is only the order.

use std::time::{Duration, Instant as StdInstant, SystemTime};

use reqwest::Url;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};

use super::{
    Settings,
    endpoint::Endpoint,
    http::{Http, connect},
    interface::{ExpectedMail, Knock, Services},
    outbound::ProxyServer,
};
use crate::mail::{
    cause::{self, Cause},
    check::{Check, CheckState},
    outcome::Obstacle,
};

/// For what is not over then.
const GRACE: Duration = Duration::from_secs(2);
/// For one step.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the question whether it takes mail needs.
const NOBODY: &str = "an address: its routes and the sender allowlist name patterns alone, and it logs in by none (--send TO --from ADDRESS tries one)";

/// The checks of one connector so far.
struct Examination<'a> {
    settings: &'a Settings,
    checks: Vec<Check>,
    failed: Option<&'static str>,
}

impl Examination<'_> {
    fn add(&mut self, mut check: Check) {
        if check.state == CheckState::Failed {
            self.failed.get_or_insert(check.check);
        }
        check.connector = Some(self.settings.name.to_string());
        self.checks.push(check);
    }

    fn fails(&mut self, check: &'static str, text: &str) {
        let name = self.settings.name.to_string();
        self.add(Check::found(check, CheckState::Failed, text, &name));
    }

    fn warns(&mut self, check: &'static str, text: &str) {
        let name = self.settings.name.to_string();
        self.add(Check::found(check, CheckState::Warning, text, &name));
    }

    /// Whether a step may be taken; if not, that is written down.
    fn may(&mut self, check: &'static str) -> bool {
        if let Some(needs) = self.failed {
            self.add(Check::skipped(check, needs));
        }
        self.failed.is_none()
    }

    /// What the attempt at a step said.
    fn takes(&mut self, check: &'static str, result: Result<String, String>) {
        match result {
            Ok(text) => self.add(Check::ok(check, text)),
            Err(text) => self.fails(check, &text),
        }
    }

    fn files(&mut self) {
        if let (true, Err(why)) = (
            self.settings.kind.leaves_no_trace(),
            self.settings.build(Services::default()),
        ) {
            return self.fails("files", &why);
        }
        let now = SystemTime::now();
        let mut count = 0;
        let oauth = self.settings.kind.oauth();
        let replaced = oauth.filter(|oauth| oauth.rotation.is_some());
        let replaced = replaced.and_then(|oauth| oauth.grant.certificate());
        for pair in self.settings.kind.certificates() {
            let (certificate, _) = pair;
            count += 1;
            // Another one may have taken its place: whether there is a token is asked below.
            if replaced == Some(pair) {
                continue;
            }
            let Ok(validity) = super::keypair::validity(certificate) else {
                continue;
            };
            let Some(said) = validity.said(now) else {
                continue;
            };
            let met = format!("the certificate in {} {said}", certificate.display());
            match validity.standing(now) {
                super::keypair::ValidityNow::Expired => {
                    return self.fails("files", &cause::CERTIFICATE_EXPIRED.at(met));
                }
                super::keypair::ValidityNow::NotYet => {
                    return self.fails("files", &cause::CERTIFICATE_EARLY.at(met));
                }
                _ => return self.warns("files", &met),
            }
        }
        let text = match count {
            0 => "nothing is wrong with them".to_owned(),
            count => format!("{count} certificate and key"),
        };
        self.add(Check::ok("files", text));
    }

    async fn way(&mut self, endpoints: &[Endpoint]) {
        let proxy = self.settings.kind.proxy().cloned().unwrap_or_default();
        let proxied = |endpoint: &&Endpoint| proxy.on_the_way_to(&endpoint.host).is_some();
        if endpoints.iter().any(|endpoint| proxied(&endpoint)) && self.may("proxy") {
            let mut result = Ok(String::new());
            for endpoint in endpoints.iter().filter(proxied) {
                if let Some(server) = proxy.on_the_way_to(&endpoint.host) {
                    result = tunnel(server, endpoint).await;
                }
                if result.is_err() {
                    break;
                }
            }
            self.takes("proxy", result);
        }
        let direct: Vec<&Endpoint> = endpoints.iter().filter(|e| !proxied(e)).collect();
        if direct.is_empty() {
            return;
        }
        if self.may("dns") {
            let mut found = Vec::new();
            for endpoint in &direct {
                found.push(resolved(endpoint).await);
            }
            let found: Result<Vec<_>, _> = found.into_iter().collect();
            self.takes("dns", found.map(|found| found.join(", ")));
        }
        if self.may("tcp") {
            let mut found = Vec::new();
            for endpoint in &direct {
                found.push(reached(endpoint).await);
            }
            let found: Result<Vec<_>, _> = found.into_iter().collect();
            self.takes("tcp", found.map(|found| found.join(", ")));
        }
    }

    /// Any answer by HTTPS: what it is shows whether it is theirs, and what time it is there.
    async fn https(&mut self, endpoints: &[Endpoint]) {
        let Some(oauth) = self.settings.kind.oauth() else {
            return;
        };
        let urls = endpoints
            .iter()
            .filter_map(|endpoint| endpoint.url.as_ref());
        let urls: Vec<&Url> = urls.filter(|url| url.scheme() == "https").collect();
        if urls.is_empty() || !self.may("tls") {
            return;
        }
        let http = match Http::new(&oauth.http) {
            Ok(http) => http,
            Err(why) => return self.fails("tls", &why),
        };
        let mut clock = None;
        let mut hosts = Vec::new();
        for url in urls {
            let host = url.host_str().unwrap_or_default().to_owned();
            let by = Instant::now() + PATIENCE;
            match http.send(url, by, reqwest::Client::get).await {
                Ok(answer) => {
                    clock = clock.or_else(|| answer.clock(SystemTime::now()));
                    hosts.push(host);
                }
                Err(fault) => return self.fails("tls", fault.text()),
            }
        }
        self.add(Check::ok("tls", hosts.join(", ")));
        match clock {
            Some(met) => self.warns("clock", &cause::CLOCK.at(met)),
            None => self.add(Check::ok(
                "clock",
                format!("within 2 minutes of {}", hosts.join(", ")),
            )),
        }
    }

    async fn login(&mut self, mail: ExpectedMail<'_>, services: Services) {
        if self.settings.kind.endpoints().is_empty() {
            return;
        }
        let is_of_mailboxes = self.settings.kind.counts_by_mailbox();
        let (last, asked) = if is_of_mailboxes {
            ("token", "mailbox")
        } else {
            ("login", "sender")
        };
        if !self.may(last) {
            self.may(asked);
            return;
        }
        let connector = match self.settings.build(services) {
            Ok(connector) => connector,
            Err(why) => return self.fails("files", &why),
        };
        let by = StdInstant::now() + PATIENCE;
        match timeout(PATIENCE + GRACE, connector.probe(by)).await {
            Ok(Ok(found)) if is_of_mailboxes => self.add(Check::ok(last, found)),
            Ok(Ok(found)) => {
                // Who greets stands first.
                let (who, rest) = found.split_once(", ").unwrap_or((&found, "no login"));
                self.add(Check::ok("greeting", who));
                self.add(Check::ok(last, rest));
            }
            Ok(Err(obstacle)) => self.stopped(last, &obstacle),
            Err(_) => self.fails(last, "no answer in time"),
        }
        if !self.may(asked) {
            return;
        }
        if mail.senders.is_empty() {
            // A pattern is nobody to ask with; what else the upstream says is heard all the same.
            self.add(Check::skipped(asked, NOBODY));
        }
        let by = StdInstant::now() + PATIENCE;
        let mut too_much = self.settings.asks_too_much();
        match timeout(PATIENCE + GRACE, connector.knock(mail, by)).await {
            Ok(found) => {
                for knock in found {
                    match knock {
                        Knock::Open(text) => self.add(Check::ok(asked, text)),
                        Knock::Doubtful(text) => self.warns(asked, &text),
                        Knock::Shut(text) => self.fails(asked, &text),
                        Knock::Narrow(text) => too_much.push(text),
                    }
                }
            }
            Err(_) => self.fails(asked, "no answer in time"),
        }
        for text in &too_much {
            self.warns("limits", text);
        }
        if too_much.is_empty() {
            let text = "no more is asked for than is known to be allowed";
            self.add(Check::ok("limits", text));
        }
    }

    /// At which step it stopped, by its own words.
    fn stopped(&mut self, last: &'static str, obstacle: &Obstacle) {
        let text = obstacle.reply.to_string();
        let word = Cause::of(&text).map(|cause| cause.word);
        let said = &obstacle.reply.text;
        let check = match word {
            Some("role-missing") => {
                // Exchange's own roles stand in no token: the mailbox decides.
                self.add(Check::ok("token", "a token was given"));
                return self.warns("claims", &text);
            }
            Some("audience-wrong") => "claims",
            Some("tls-mode") => "tls",
            _ if said.starts_with("TLS") || said.starts_with("STARTTLS") => "tls",
            _ if said.starts_with("no token") || said.starts_with("token") => "token",
            _ if said.starts_with("AUTH") => "login",
            _ if last == "token" => "token",
            _ => "greeting",
        };
        self.fails(check, &text);
        if check != last {
            let _ = self.may(last);
        }
    }
}

/// Everything about one connector, in order.
pub async fn examine(
    settings: &Settings,
    mail: ExpectedMail<'_>,
    services: Services,
) -> Vec<Check> {
    let mut seen = Examination {
        settings,
        checks: Vec::new(),
        failed: None,
    };
    let endpoints = settings.kind.endpoints();
    seen.files();
    seen.way(&endpoints).await;
    seen.https(&endpoints).await;
    seen.login(mail, services).await;
    seen.checks
}

async fn tunnel(server: &ProxyServer, endpoint: &Endpoint) -> Result<String, String> {
    let unreachable = |why: String| cause::PROXY_UNREACHABLE.at(format_args!("{server}: {why}"));
    let address = (server.host.as_str(), server.port);
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Err(_) => return Err(unreachable("no answer".to_owned())),
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Ok(Ok(_)) => {}
    }
    if server.socks {
        return Ok(format!("{server} answers"));
    }
    let by = Instant::now() + PATIENCE;
    match connect::why(server, &endpoint.host, endpoint.port, by).await {
        Some(connect::NoTunnel::Login(text) | connect::NoTunnel::Closed(text)) => Err(text),
        None => Ok(format!("{server} lets {} through", endpoint.host)),
    }
}

async fn resolved(Endpoint { host, port, .. }: &Endpoint) -> Result<String, String> {
    let failed = |why: String| cause::DNS_FAILED.at(format_args!("DNS: {host}: {why}"));
    let found = match timeout(
        PATIENCE,
        lookup_host((host.trim_matches(['[', ']']), *port)),
    )
    .await
    {
        Err(_) => return Err(failed("no answer".to_owned())),
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Ok(Ok(found)) => found.map(|address| address.ip().to_string()),
    };
    let found: Vec<String> = found.take(4).collect();
    if found.is_empty() {
        return Err(failed("it has no address".to_owned()));
    }
    if found.iter().all(|address| address == host) {
        return Ok(host.clone());
    }
    Ok(format!("{host} is {}", found.join(" and ")))
}

async fn reached(endpoint: &Endpoint) -> Result<String, String> {
    let Endpoint { host, port, .. } = endpoint;
    let cause = if endpoint.is_metadata {
        cause::IDENTITY_MISSING
    } else {
        cause::HOST_UNREACHABLE
    };
    let failed = |why: String| cause.at(format_args!("{host}:{port}: {why}"));
    match timeout(
        PATIENCE,
        TcpStream::connect((host.trim_matches(['[', ']']), *port)),
    )
    .await
    {
        Err(_) => Err(failed("no answer".to_owned())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(_)) => Ok(format!("{host}:{port}")),
    }
}

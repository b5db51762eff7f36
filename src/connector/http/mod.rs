//! HTTP as token endpoints and providers' interfaces need it: where it may go, through which proxy, with which roots, and how much may come back.
//!
//! Both obey the same rules. It follows no redirect (a redirect could carry a token elsewhere), retries nothing
//! and knows no endpoint.

mod answer;
mod body;
pub(super) mod connect;
mod fault;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use reqwest::{Body, Certificate, Client, RequestBuilder, Response, Url, redirect};
use tokio::time::{Instant, timeout_at};

use self::body::{BodyProgress, Counted};
use super::outbound::{Proxy, ProxyServer, is_loopback, names};

pub use self::{answer::Answer, fault::NoAnswer};

/// Answers are read up to this many octets.
const ANSWER: usize = 1 << 20;
const CONNECT: Duration = Duration::from_secs(30);
/// Shorter than the patience of any front end: a request on a connection that is being closed is in doubt.
const IDLE: Duration = Duration::from_secs(30);

/// Where HTTP may go, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpSettings {
    /// How to get there. Loopback and the metadata address never go through it.
    pub proxy: Proxy,
    /// Own roots (PEM) beside the system's.
    pub ca_file: Option<PathBuf>,
    /// `outbound.allowed_hosts`: exact names and `*.domain`; `*` is anything. Checked on every request and redirect.
    pub allowed_hosts: Vec<String>,
}

/// A client for one connector.
#[derive(Debug)]
pub struct Http {
    direct: Client,
    proxied: Option<Client>,
    settings: HttpSettings,
    /// It may ask the metadata service.
    metadata: bool,
}

impl Http {
    /// A client by these settings.
    ///
    /// # Errors
    /// A CA file or proxy that cannot be used.
    pub fn new(settings: &HttpSettings) -> Result<Self, String> {
        let mut certificates = Vec::new();
        if let Some(path) = &settings.ca_file {
            let shown = path.display();
            let pem = std::fs::read(path).map_err(|e| format!("{shown} cannot be read: {e}"))?;
            certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|_| format!("{shown} holds no certificate in PEM form"))?;
            if certificates.is_empty() {
                return Err(format!("{shown} holds no certificate in PEM form"));
            }
        }
        let build = |proxy: Option<reqwest::Proxy>| {
            let mut builder = Client::builder()
                .user_agent(concat!("postern/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .connect_timeout(CONNECT)
                .pool_idle_timeout(IDLE)
                // Nothing from HTTP_PROXY and its like: the configuration says all.
                .no_proxy()
                .tls_certs_merge(certificates.clone());
            if let Some(proxy) = proxy {
                builder = builder.proxy(proxy);
            }
            builder
                .build()
                .map_err(|e| format!("the HTTP client: {}", fault::chain(&e)))
        };
        let proxied = match &settings.proxy.via {
            None => None,
            Some(server) => {
                let proxy = reqwest::Proxy::all(proxy_url(server)?)
                    .map_err(|e| format!("proxy: {}", fault::chain(&e)))?;
                Some(build(Some(proxy))?)
            }
        };
        Ok(Self {
            direct: build(None)?,
            proxied,
            settings: settings.clone(),
            metadata: false,
        })
    }

    /// One that may ask the metadata service of Azure's machines, which has no TLS.
    #[must_use]
    pub fn for_metadata(mut self) -> Self {
        self.metadata = true;
        self
    }

    /// A request by `make`, which gets the client that may go there.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn send(
        &self,
        url: &Url,
        deadline: Instant,
        make: impl FnOnce(&Client, Url) -> RequestBuilder,
    ) -> Result<Answer, NoAnswer> {
        // A service of this very machine, which no proxy can reach for us.
        let is_metadata = self.metadata && is_link_local(url);
        if !is_metadata {
            allowed(&self.settings, url).map_err(NoAnswer::Unreached)?;
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let proxy = self.settings.proxy.on_the_way_to(&host);
        let proxy = proxy.filter(|_| !is_metadata);
        let client = match (&self.proxied, proxy) {
            (Some(proxied), Some(_)) => proxied,
            _ => &self.direct,
        };
        let mut request = make(client, url.clone())
            .build()
            .map_err(|e| fault::of(&e, &host, proxy, false))?;
        // An upstream can act on a request only when it has all of it.
        let mut progress = BodyProgress::whole();
        if let Some(body) = request.body_mut().take() {
            let (counted, begun) = Counted::new(body);
            *request.body_mut() = Some(Body::wrap(counted));
            progress = begun;
        }
        let response = match timeout_at(deadline, client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let fault = fault::of(&error, &host, proxy, !progress.cut());
                return Err(match (proxy, fault::is_tunnel(&error)) {
                    (Some(server), true) if !server.socks => {
                        let port = url.port_or_known_default().unwrap_or(443);
                        let why = connect::why(server, &host, port, deadline).await;
                        fault.because(&host, why)
                    }
                    _ => fault,
                });
            }
            Err(_) if progress.cut() => {
                return Err(NoAnswer::Broken(format!(
                    "{host} did not take the whole request in time"
                )));
            }
            Err(_) => {
                return Err(NoAnswer::Unanswered(format!(
                    "{host} gave no answer in time"
                )));
            }
        };
        Ok(receive(response, deadline).await)
    }
}

/// The status has come, and with it the outcome: a body that breaks off changes nothing of that.
async fn receive(mut response: Response, deadline: Instant) -> Answer {
    let mut answer = Answer {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
        body: Vec::new(),
        whole: false,
    };
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = ANSWER - answer.body.len();
                answer
                    .body
                    .extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if chunk.len() > room {
                    return answer;
                }
            }
            Ok(Ok(None)) => {
                answer.whole = true;
                return answer;
            }
            Ok(Err(_)) | Err(_) => return answer,
        }
    }
}

/// Whether `outbound.allowed_hosts` and the rule for `http://` let a request go there.
///
/// # Errors
/// The sentence that says which rule forbids it.
pub fn allowed(settings: &HttpSettings, url: &Url) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) => {}
        scheme => {
            return Err(format!(
                "{scheme}://{host} is not encrypted; https:// is required"
            ));
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("the URL of {host} has a login in it"));
    }
    if settings
        .allowed_hosts
        .iter()
        .any(|pattern| names(pattern, host))
    {
        Ok(())
    } else {
        Err(format!("{host} is not in outbound.allowed_hosts"))
    }
}

/// The metadata service of Azure's machines (169.254.169.254), and its like in Azure's hosting.
fn is_link_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse();
    matches!(address, Ok(IpAddr::V4(ip)) if ip.is_link_local())
}

fn proxy_url(server: &ProxyServer) -> Result<Url, String> {
    let unusable = || format!("{server} is no address");
    let scheme = if server.socks { "socks5h" } else { "http" };
    let host = if server.host.contains(':') {
        format!("[{}]", server.host)
    } else {
        server.host.clone()
    };
    let mut url =
        Url::parse(&format!("{scheme}://{host}:{}", server.port)).map_err(|_| unusable())?;
    if let Some((user, password)) = &server.login {
        // The setters percent-encode everything but the percent sign itself.
        let safe = |text: &str| text.replace('%', "%25");
        url.set_username(&safe(user)).map_err(|()| unusable())?;
        url.set_password(Some(&safe(password.reveal())))
            .map_err(|()| unusable())?;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn where_requests_may_go() {
        fn check(hosts: &[&str], url: &str, expected: bool) {
            let settings = HttpSettings {
                allowed_hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
                ..HttpSettings::default()
            };
            let found = allowed(&settings, &Url::parse(url).unwrap());
            assert_eq!(found.is_ok(), expected, "{url} {found:?}");
        }
        let listed = ["login.example", "*.graph.example", "::1"];
        check(&listed, "https://login.example/t", true);
        check(&listed, "https://LOGIN.example/t", true);
        check(&listed, "https://login.example./t", true);
        check(&listed, "http://login.example/t", false);
        check(&listed, "https://login.example.evil.tld/t", false);
        check(&listed, "https://login.example@evil.tld/t", false);
        check(&listed, "https://u:p@login.example/t", false);
        check(&listed, "https://a.graph.example/", true);
        check(&listed, "https://graph.example/", false);
        check(&listed, "https://evilgraph.example/", false);
        check(&listed, "http://127.0.0.1/", false);
        check(&listed, "http://[::1]:8080/", true);
        check(&["*"], "http://127.0.0.1:1/", true);
        check(&["*"], "http://localhost/", true);
        check(&["*"], "http://2130706433/", true);
        check(&["*"], "http://localhost.evil.tld/", false);
        check(&["*"], "http://10.0.0.1/", false);
        // The metadata service is for the one grant that asks it.
        check(&["*"], "http://169.254.169.254/metadata", false);
        check(&["*"], "ftp://127.0.0.1/", false);
        check(&["*"], "file:///etc/passwd", false);
        check(&[], "https://login.example/", false);
    }

    #[test]
    fn proxies_as_urls() {
        for (socks, host, login, expected) in [
            (false, "p.example", None, "http://p.example:8080/"),
            (true, "::1", None, "socks5h://[::1]:8080"),
            (
                true,
                "p",
                Some(("u:@", "p/#%41%")),
                "socks5h://u%3A%40:p%2F%23%2541%25@p:8080",
            ),
        ] {
            let server = ProxyServer {
                socks,
                host: host.into(),
                port: 8080,
                login: login.map(|(u, p): (&str, &str)| (u.into(), Secret::new(p))),
            };
            assert_eq!(proxy_url(&server).unwrap().as_str(), expected);
        }
    }
}

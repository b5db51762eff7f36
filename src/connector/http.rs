//! HTTP as token endpoints and graph need it: where it may go, through which proxy, with which roots, and how much may come back.
//!
//! Apart so that both obey the same rules. It follows no redirect (a redirect could carry a token elsewhere), retries nothing
//! and knows no endpoint.

use std::{error::Error as _, net::IpAddr, time::Duration};

use reqwest::{
    Certificate, Client, RequestBuilder, Response, StatusCode, Url, header::HeaderMap, redirect,
};
use tokio::time::{Instant, timeout_at};

use super::{Proxy, oauth::HttpSettings};
use crate::mail::{outcome::Report, reply::Reply};

/// Answers are read up to this many octets.
const BODY: usize = 1 << 20;
const CONNECT: Duration = Duration::from_secs(30);
/// The metadata service of Azure machines, which is reached directly, always.
const METADATA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));

/// A client for one connector.
#[derive(Debug)]
pub struct Http {
    direct: Client,
    proxied: Option<Client>,
    settings: HttpSettings,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header.
    pub headers: HeaderMap,
    /// The body, at most 1 MiB of it.
    pub body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request did not leave whole: name, connection, TLS, proxy.
    Unreached(String),
    /// The proxy wants other credentials than it got.
    ProxyRefused(String),
    /// It may have been acted on: the answer was lost, late, or too long.
    Unanswered(String),
}

impl Fault {
    /// The sentence.
    pub fn text(&self) -> &str {
        match self {
            Fault::Unreached(text) | Fault::ProxyRefused(text) | Fault::Unanswered(text) => text,
        }
    }

    /// As a report of something that was not attempted.
    pub fn report(&self, stage: &str) -> Report {
        let text = format!("{stage}: {}", self.text());
        match self {
            Fault::ProxyRefused(_) => Report::Misconfigured(Reply::new(451, (4, 3, 5), text)),
            Fault::Unreached(_) | Fault::Unanswered(_) => Report::Down {
                reply: Reply::new(451, (4, 4, 1), text),
                retry_after: None,
            },
        }
    }
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
        }
        let build = |proxy: Option<reqwest::Proxy>| {
            let mut builder = Client::builder()
                .user_agent(concat!("postern/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT)
                .no_proxy()
                .tls_certs_merge(certificates.clone());
            if let Some(proxy) = proxy {
                builder = builder.proxy(proxy);
            }
            builder
                .build()
                .map_err(|e| format!("HTTP client: {}", chain(&e)))
        };
        let proxied = match &settings.proxy.via {
            None => None,
            Some(server) => {
                let scheme = if server.socks { "socks5h" } else { "http" };
                let mut url = Url::parse(&format!("{scheme}://{}:{}", server.host, server.port))
                    .map_err(|e| format!("proxy: {e}"))?;
                if let Some((user, password)) = &server.login {
                    // Percent-encoded by the setters.
                    let _ = url.set_username(user);
                    let _ = url.set_password(Some(password.reveal()));
                }
                let proxy =
                    reqwest::Proxy::all(url).map_err(|e| format!("proxy: {}", chain(&e)))?;
                Some(build(Some(proxy))?)
            }
        };
        Ok(Self {
            direct: build(None)?,
            proxied,
            settings: settings.clone(),
        })
    }

    /// A request by `make`, which gets the client that may go there.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn send(
        &self,
        url: &Url,
        deadline: Instant,
        make: impl FnOnce(&Client, Url) -> RequestBuilder,
    ) -> Result<Answer, Fault> {
        allowed(&self.settings, url).map_err(Fault::Unreached)?;
        let client = match &self.proxied {
            Some(proxied) if !is_direct(&self.settings.proxy, url) => proxied,
            _ => &self.direct,
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let request = make(client, url.clone());
        let answered = timeout_at(deadline, async {
            let response = request.send().await.map_err(|e| fault(&e, &host))?;
            receive(response, &host).await
        });
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::Unanswered(format!("{host} gave no answer in time"))),
        }
    }
}

async fn receive(mut response: Response, host: &str) -> Result<Answer, Fault> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|e| {
            Fault::Unanswered(format!("{host}: the answer was cut off: {}", chain(&e)))
        })?;
        let Some(chunk) = chunk else { break };
        if body.len() + chunk.len() > BODY {
            return Err(Fault::Unanswered(format!(
                "{host}: the answer is longer than 1 MiB"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// Whether `outbound.allowed_hosts` and the rule for `http://` let a request go there.
///
/// # Errors
/// The sentence that says which rule forbids it.
pub fn allowed(settings: &HttpSettings, url: &Url) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let plain_is_fine = is_local(url);
    if url.scheme() != "https" && !(url.scheme() == "http" && plain_is_fine) {
        return Err(format!(
            "{}://{host} is not encrypted; https:// is required",
            url.scheme()
        ));
    }
    let listed = settings.allowed_hosts.iter().any(|pattern| {
        let pattern = pattern.to_ascii_lowercase();
        pattern == "*"
            || pattern == host
            || pattern
                .strip_prefix('*')
                .is_some_and(|suffix| suffix.starts_with('.') && host.ends_with(suffix))
    });
    if listed || address(url) == Some(METADATA) {
        Ok(())
    } else {
        Err(format!("{host} is not in outbound.allowed_hosts"))
    }
}

fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Loopback and the metadata service.
fn is_local(url: &Url) -> bool {
    url.host_str() == Some("localhost")
        || address(url).is_some_and(|ip| ip.to_canonical().is_loopback() || ip == METADATA)
}

fn is_direct(proxy: &Proxy, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    is_local(url)
        || proxy
            .bypass_hosts
            .iter()
            .any(|pattern| match pattern.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix),
                None => host.eq_ignore_ascii_case(pattern),
            })
        || address(url).is_some_and(|ip| proxy.bypass_networks.iter().any(|n| n.contains(&ip)))
}

/// What went wrong, in the order of what people can repair. The URL is left out: it may hold what is not for the log.
fn fault(error: &reqwest::Error, host: &str) -> Fault {
    let said = chain(error);
    let lower = said.to_ascii_lowercase();
    if lower.contains("proxy auth") || lower.contains("407") {
        return Fault::ProxyRefused(format!(
            "the proxy asks for a login, or refuses the one it got (407); correct user and password in `proxy`: {said}"
        ));
    }
    if lower.contains("unknownissuer")
        || lower.contains("unknown issuer")
        || lower.contains("invalid peer certificate")
    {
        return Fault::Unreached(format!(
            "the certificate of {host} is not trusted; if something on the way opens TLS (a proxy), give its CA as `ca_file`: {said}"
        ));
    }
    if error.is_connect() || error.is_builder() {
        return Fault::Unreached(format!("{host} cannot be reached: {said}"));
    }
    Fault::Unanswered(format!("{host}: {said}"))
}

/// The causes, the innermost last, without the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut said = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said.push(inner.to_string());
        cause = inner.source();
    }
    if said.is_empty() {
        said.push(if error.is_timeout() {
            "timed out".to_owned()
        } else {
            "the request failed".to_owned()
        });
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_may_go() {
        let settings = HttpSettings {
            allowed_hosts: vec!["login.example".into(), "*.graph.example".into()],
            ..HttpSettings::default()
        };
        for (url, fine) in [
            ("https://login.example/t", true),
            ("https://LOGIN.example/t", true),
            ("http://login.example/t", false),
            ("https://login.example.evil.tld/t", false),
            ("https://a.graph.example/", true),
            ("https://graph.example/", false),
            ("https://evilgraph.example/", false),
            ("http://169.254.169.254/metadata", true),
            ("http://127.0.0.1/", false),
        ] {
            assert_eq!(
                allowed(&settings, &Url::parse(url).unwrap()).is_ok(),
                fine,
                "{url}"
            );
        }
        let any = HttpSettings {
            allowed_hosts: vec!["*".into()],
            ..HttpSettings::default()
        };
        for (url, fine) in [
            ("http://127.0.0.1:1/", true),
            ("http://[::1]/", true),
            ("http://10.0.0.1/", false),
            ("ftp://a.b/", false),
        ] {
            assert_eq!(
                allowed(&any, &Url::parse(url).unwrap()).is_ok(),
                fine,
                "{url}"
            );
        }
    }

    #[test]
    fn what_goes_past_the_proxy() {
        let proxy = Proxy {
            via: None,
            bypass_hosts: vec!["*.corp.example".into(), "one.example".into()],
            bypass_networks: vec!["10.0.0.0/8".parse().unwrap()],
        };
        for (url, direct) in [
            ("https://a.corp.example/", true),
            ("https://one.example/", true),
            ("https://two.example/", false),
            ("https://10.1.2.3/", true),
            ("http://127.0.0.1/", true),
            ("http://169.254.169.254/", true),
        ] {
            assert_eq!(
                is_direct(&proxy, &Url::parse(url).unwrap()),
                direct,
                "{url}"
            );
        }
    }
}

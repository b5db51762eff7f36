//! Microsoft's clouds and the URLs a connector may ask: which hosts, and that they are asked by https.
//!
//! Who logs in is read by `oauth`. The hosts are those of Microsoft's page on national clouds; what its
//! documentation leaves open has no default here and must be written.

use crate::{
    config::{
        table::{At, Table},
        values::{Fault, fault},
    },
    connector::is_loopback,
};

/// `cloud`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    /// Everybody, GCC included.
    Global,
    /// US Government L4.
    GccHigh,
    /// US Government L5.
    Dod,
    /// Operated by 21Vianet.
    China,
}

impl Cloud {
    /// As the file writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::GccHigh => "gcc-high",
            Self::Dod => "dod",
            Self::China => "china",
        }
    }

    /// Where tokens are.
    pub(super) fn login(self) -> &'static str {
        match self {
            Self::Global => "https://login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }

    /// Where Graph is, without `/v1.0`.
    pub(super) fn graph(self) -> &'static str {
        match self {
            Self::Global => "https://graph.microsoft.com",
            Self::GccHigh => "https://graph.microsoft.us",
            Self::Dod => "https://dod-graph.microsoft.us",
            Self::China => "https://microsoftgraph.chinacloudapi.cn",
        }
    }

    /// The resource of SMTP AUTH; not documented for every cloud.
    pub(super) fn smtp_scope(self) -> Option<&'static str> {
        match self {
            Self::Global => Some("https://outlook.office365.com/.default"),
            Self::GccHigh => Some("https://outlook.office365.us/.default"),
            Self::Dod | Self::China => None,
        }
    }

    /// createUploadSession of Outlook is not available in the clouds of the US Government (learn.microsoft.com/graph/api,
    /// attachment-createuploadsession, table of national clouds).
    pub(super) fn lacks_uploads(self) -> bool {
        matches!(self, Self::GccHigh | Self::Dod)
    }

    /// The host of upload URLs, which Graph names only when asked for one; not documented for every cloud.
    pub(super) fn upload_host(self) -> Option<&'static str> {
        (self == Self::Global).then_some("outlook.office.com")
    }
}

pub(super) fn read(table: &Table<'_>) -> Cloud {
    table.choice(
        "cloud",
        [Cloud::Global, Cloud::GccHigh, Cloud::Dod, Cloud::China],
    )
}

/// A URL that is asked, and its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Web {
    /// Without a slash at its end.
    pub(super) url: String,
    /// A name as it goes over the wire, or an address without brackets.
    pub(super) host: String,
}

/// `login_url`: what stands before `/TENANT/oauth2/v2.0/token`.
pub(super) fn login_url(table: &Table<'_>) -> Option<At<Web>> {
    table.parsed("login_url", |text| {
        let web = web(text)?;
        if web.url.contains("/oauth2/") {
            return Err(fault!("`login_url` is what stands before the tenant";
                "write \"https://login.microsoftonline.com\""));
        }
        Ok(web)
    })
}

/// `graph_url`, without the version.
pub(super) fn graph_url(table: &Table<'_>) -> Option<At<Web>> {
    table.parsed("graph_url", |text| {
        let web = web(text)?;
        match web.url.rsplit('/').next() {
            Some("v1.0" | "beta") => Err(fault!("`graph_url` is written without the version"; "write \"https://graph.microsoft.com\"")),
            _ => Ok(web),
        }
    })
}

/// https, or http to this machine; read by the same code that will connect, so that both see the same host.
pub(super) fn web(text: &str) -> Result<Web, Fault> {
    let form = "write it as in \"https://login.microsoftonline.com\"";
    // The text is not shown again: there may be a password in it.
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
                fault!("secrets and tokens would go over the network in the clear";
                    "write https://; http:// is only for this machine itself"),
            );
        }
        _ => return Err(Fault::new("only https:// is known here", form)),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("a login does not belong in this URL", form));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Fault::new("a URL without ? and # is needed here", form));
    }
    Ok(Web {
        url: url.as_str().trim_end_matches('/').to_owned(),
        host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        /// The URL and its host; `-` = refused.
        fn check(text: &str, expected: &str) {
            let found = web(text).map_or_else(
                |_| "-".to_owned(),
                |web| format!("{} {}", web.url, web.host),
            );
            assert_eq!(found, expected, "{text}");
        }
        check(
            "https://Login.Example/",
            "https://login.example login.example",
        );
        check(
            "https://l.example:8443/a/",
            "https://l.example:8443/a l.example",
        );
        check("http://127.0.0.1:99", "http://127.0.0.1:99 127.0.0.1");
        check("http://127.1:99", "http://127.0.0.1:99 127.0.0.1");
        check("http://[::1]:99/", "http://[::1]:99 ::1");
        check("http://localhost:99", "http://localhost:99 localhost");
        check(
            "https://bücher.example",
            "https://xn--bcher-kva.example xn--bcher-kva.example",
        );
        for text in [
            "",
            "login.example",
            "http://login.example",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "https://me:pw@login.example",
            "https://login.example?x=1",
            "https://login.example/#x",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "https://",
            "data:,x",
        ] {
            check(text, "-");
        }
    }

    #[test]
    fn the_hosts_of_every_cloud_are_urls() {
        for cloud in [Cloud::Global, Cloud::GccHigh, Cloud::Dod, Cloud::China] {
            for url in [cloud.login(), cloud.graph()] {
                assert_eq!(web(url).unwrap().url, url);
            }
        }
    }
}

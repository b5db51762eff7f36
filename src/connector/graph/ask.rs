//! One request to Graph: the URL below the mailbox, the token and its one renewal, the line for whoever reads along.
//!
//! `sendMail` and drafts ask in the same way. It tries nothing twice but a refused token, and knows no meaning of an
//! answer.

use std::time::SystemTime;

use bytes::Bytes;
use reqwest::{Method, Url, header};
use tokio::time::Instant;

use super::{
    answer::Heard,
    client::Graph,
    token::{self, Denial},
};
use crate::{
    connector::{
        http::{Answer, NoAnswer},
        oauth::{Claims, Token},
    },
    mail::{message::Message, outcome::Obstacle},
};

/// One request.
#[derive(Debug, Clone)]
pub(super) struct GraphRequest<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    /// Content-Type; none without a body.
    pub(super) kind: &'a str,
    pub(super) body: Bytes,
    /// For whoever asks Microsoft what became of it.
    pub(super) id: &'a str,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// There is no token.
    Token(Obstacle),
    /// Graph said nothing.
    Graph(NoAnswer),
}

impl Graph {
    /// `/v1.0/users/MAILBOX/…`, each piece percent-encoded as one segment.
    pub(super) fn url(&self, mailbox: &str, rest: &[&str]) -> Result<Url, String> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| "graph_url is not a URL with a path".to_owned())?
            .pop_if_empty()
            .extend(["v1.0", "users", mailbox])
            .extend(rest);
        Ok(url)
    }

    /// Asks with a token; one that is refused (401) is replaced once.
    pub(super) async fn ask(
        &self,
        request: &GraphRequest<'_>,
        deadline: Instant,
    ) -> Result<Answer, Silence> {
        let mut token = self.tokens.token(deadline).await.map_err(Silence::Token)?;
        for last in [false, true] {
            let answer = self.ask_with(&token, request, deadline).await;
            self.record_answer(&answer);
            let answer = answer.map_err(Silence::Graph)?;
            // A login page is no answer to our token.
            if answer.status.as_u16() != 401 || heard(&answer).between().is_some() {
                return Ok(answer);
            }
            if let (Denial::Between, said) = cause(&answer) {
                return Err(Silence::Graph(NoAnswer::Unreached(format!(
                    "{said}: a proxy or filter seems to have answered in Graph's place and wants a login of its own; let requests for Graph through there [proxy-page]"
                ))));
            }
            self.tokens.reject(&token);
            if !last {
                let fresh = self.tokens.token(deadline).await.map_err(Silence::Token)?;
                // An endpoint with a cache of its own may give the same one, which would be refused again.
                if fresh != token {
                    token = fresh;
                    continue;
                }
                self.tokens.reject(&fresh);
            }
            return Err(Silence::Token(self.refused_twice(&token, &answer)));
        }
        Err(Silence::Token(Obstacle::misconfigured(
            "no token was accepted",
        )))
    }

    /// A token that is fresh and still not accepted.
    fn refused_twice(&self, token: &Token, answer: &Answer) -> Obstacle {
        let (why, said) = cause(answer);
        let clock = answer.clock(SystemTime::now());
        let claims = token.claims();
        let foreign = claims.as_ref().and_then(|claims| self.foreign(claims));
        let mut text = match (why, foreign) {
            (_, Some(foreign)) => foreign,
            (Denial::Known(remedy), None) => remedy.to_owned(),
            (Denial::Token | Denial::Between, None) => {
                "the token is not accepted although it is fresh; check tenant_id, cloud and scope, and this machine's clock".to_owned()
            }
        };
        if let Some(clock) = clock {
            text = format!("{text}; {clock}");
        }
        Obstacle::misconfigured(format!("Graph: {said}: {text}"))
    }

    /// Whom the token is for, where that is not the Graph that is asked.
    pub(super) fn foreign(&self, claims: &Claims) -> Option<String> {
        let host = self.base.host_str().unwrap_or_default();
        if claims.is_for(&self.settings.oauth.scope, host) {
            return None;
        }
        let service = claims
            .service()
            .map_or_else(String::new, |name| format!(" ({name})"));
        Some(format!(
            "the token is for {}{service}, not for the Graph at {host}: remove `scope`, and check cloud and graph_url [audience-wrong]",
            claims.audience
        ))
    }

    async fn ask_with(
        &self,
        token: &Token,
        request: &GraphRequest<'_>,
        deadline: Instant,
    ) -> Result<Answer, NoAnswer> {
        let size = match request.body.len() {
            0 => String::new(),
            size => format!(" <{size} octets>"),
        };
        self.record(&format!("> {} {}{size}", request.method, request.url));
        self.http
            .send(request.url, deadline, |client, url| {
                let asked = client
                    .request(request.method.clone(), url)
                    .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
                    .header("client-request-id", request.id);
                if request.method != Method::POST {
                    return asked;
                }
                let asked = asked.body(request.body.clone());
                match request.kind {
                    // RFC 9110 §8.6: also where there is nothing.
                    "" => asked.header(header::CONTENT_LENGTH, 0),
                    kind => asked.header(header::CONTENT_TYPE, kind),
                }
            })
            .await
    }

    /// Into the record that `postern test` shows.
    pub(super) fn record_answer(&self, answer: &Result<Answer, NoAnswer>) {
        match answer {
            Ok(answer) => self.record(&format!("< {}", answer.status)),
            Err(fault) => self.record(&format!("* {}", fault.text())),
        }
    }

    pub(super) fn record(&self, line: &str) {
        if let Some(recorder) = &self.recorder {
            recorder(line);
        }
    }
}

/// What a 401 comes from, and how its text begins.
fn cause(answer: &Answer) -> (Denial, String) {
    let challenge = answer.headers.get(header::WWW_AUTHENTICATE);
    let challenge = challenge.and_then(|value| value.to_str().ok());
    let heard = heard(answer);
    (token::denial(heard.body, challenge), heard.said())
}

/// The answer, to be read.
pub(super) fn heard(answer: &Answer) -> Heard<'_> {
    Heard {
        status: answer.status.as_u16(),
        headers: &answer.headers,
        body: &answer.body,
        wait: answer.retry_after(),
        request: request_of(answer),
        is_foreign: false,
    }
}

/// What Graph calls the request, for the text.
fn request_of(answer: &Answer) -> String {
    let id = answer
        .headers
        .get("request-id")
        .and_then(|v| v.to_str().ok());
    id.unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(64)
        .collect()
}

/// The message's id in the form of a GUID.
pub(super) fn request_id(message: &Message) -> String {
    guid(u128::from_be_bytes(message.id.to_bytes()))
}

/// A number in the form of a GUID.
pub(super) fn guid(number: u128) -> String {
    let part = |shift: u32, digits: u32| (number >> shift) & ((1 << (digits * 4)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

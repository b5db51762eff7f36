//! The beginning of a conversation: greeting, EHLO, STARTTLS, AUTH.
//!
//! Nothing has been attempted for any message yet, unlike in the deliveries that follow: whatever goes wrong
//! here is an [`Obstacle`]. It sends no credentials over a line that is not encrypted unless it was told that it may.

use std::sync::Arc;

use super::{
    Stage,
    capabilities::Capabilities,
    class::{Class, Override, Place, annotated, classify, diagnose, heals_by_renewal},
    mask::Mask,
};
use crate::{
    mail::{
        outcome::{Obstacle, ObstacleKind},
        reply::Reply,
        text::bounded,
    },
    secret::Secret,
    smtp::sasl::{self, Mechanism},
};

/// Whether to ask for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// Never (it is off, or the line is encrypted from the first octet).
    Never,
    /// When offered.
    Offered,
    /// Always: without it the conversation ends.
    Required,
}

/// What is wanted of the conversation.
#[derive(Debug, Clone, Copy)]
pub struct OpeningOptions<'a> {
    /// The name said in EHLO.
    pub helo: &'a str,
    /// TLS.
    pub upgrade: Upgrade,
    /// The line is encrypted already.
    pub encrypted: bool,
    /// Who logs in; `None` = nobody does.
    pub login: Option<&'a (String, Secret)>,
    /// With this mechanism; `None` = PLAIN, else LOGIN, as offered.
    pub mechanism: Option<Mechanism>,
    /// Credentials may go over a line without TLS.
    pub plaintext_credentials: bool,
    /// Corrections.
    pub overrides: &'a [Override],
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpeningStep {
    /// Write what was appended to `out`, read a reply, give it to [`Opening::reply`].
    Read(Stage),
    /// Make the TLS handshake, then call [`Opening::secured`]. An octet that is already there is an attack.
    Handshake,
    /// Logged in; MAIL may follow.
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpeningState {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// The one response of PLAIN, XOAUTH2 or OAUTHBEARER is out, or held back until a 334.
    Response {
        held_back: bool,
    },
    /// A token was refused by a 334 with a reason in JSON; the answer to it is out, and the 5xx follows.
    TokenRefused,
    LoginUser,
    LoginPassword,
    LoginResult,
    Ready,
}

/// The opening of one connection.
#[derive(Debug)]
pub struct Opening<'a> {
    options: OpeningOptions<'a>,
    state: OpeningState,
    encrypted: bool,
    offered: Capabilities,
    mechanism: Option<Mechanism>,
    shown: Option<&'static str>,
    is_token_refused: bool,
    mask: Arc<Mask>,
}

impl<'a> Opening<'a> {
    /// Begins with reading the greeting ([`Stage::Greeting`]).
    pub fn new(options: OpeningOptions<'a>) -> Self {
        Self {
            options,
            state: OpeningState::Greeting,
            encrypted: options.encrypted,
            offered: Capabilities::default(),
            mechanism: None,
            shown: None,
            is_token_refused: false,
            mask: Arc::new(Mask::new(options.login)),
        }
    }

    /// What hides the credentials of this connection, as long as it lives.
    pub fn mask(&self) -> Arc<Mask> {
        self.mask.clone()
    }

    /// What the upstream offers, as of now.
    pub fn offered(&self) -> &Capabilities {
        &self.offered
    }

    /// The mechanism that was used.
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// The conversation ended because the token was refused, for a reason that another token may heal.
    pub fn is_token_refused(&self) -> bool {
        self.is_token_refused
    }

    /// How the octets just appended may be shown to people, where they hold a secret.
    pub fn shown(&self) -> Option<&'static str> {
        self.shown
    }

    /// A reply came.
    ///
    /// # Errors
    /// [`Obstacle`]: the conversation ends here.
    pub fn reply(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Result<OpeningStep, Obstacle> {
        self.shown = None;
        match self.state {
            OpeningState::Greeting => {
                if reply.is_positive() {
                    Ok(self.hello(out))
                } else {
                    Err(self.stop(reply, Place::Greeting))
                }
            }
            OpeningState::Ehlo if reply.is_positive() => {
                self.offered = Capabilities::parse(&reply.text);
                self.after_hello(out)
            }
            OpeningState::Ehlo => self.hello_refused(reply, out),
            OpeningState::Helo if reply.is_positive() => {
                self.offered = Capabilities {
                    name: Capabilities::parse(&reply.text).name,
                    ..Capabilities::default()
                };
                self.state = OpeningState::Ready;
                Ok(OpeningStep::Ready)
            }
            OpeningState::Helo => Err(self.stop(reply, Place::Hello)),
            OpeningState::StartTls => match reply.code {
                220 => Ok(OpeningStep::Handshake),
                _ if self.options.upgrade == Upgrade::Offered
                    && classify(reply, Place::StartTls, self.options.overrides)
                        != Class::Obstacle(ObstacleKind::Misconfigured)
                    && reply.code != 421
                    && !reply.is_positive() =>
                {
                    // Offered and then refused: opportunistic goes on without.
                    self.offered.starttls = false;
                    self.log_in(out)
                }
                _ => Err(self.stop(reply, Place::StartTls)),
            },
            OpeningState::Response { held_back: true } if reply.code == 334 => {
                let response = self.response();
                self.secret(out, &response, "***");
                self.state = OpeningState::Response { held_back: false };
                Ok(OpeningStep::Read(Stage::Auth))
            }
            OpeningState::Response { held_back: false }
                if reply.code == 334 && self.mechanism.is_some_and(Mechanism::bears_token) =>
            {
                // RFC 7628 §3.2.3 wants a lone ^A, XOAUTH2 an empty line.
                let end = if self.mechanism == Some(Mechanism::OauthBearer) {
                    "AQ=="
                } else {
                    ""
                };
                self.line(out, &[end]);
                self.state = OpeningState::TokenRefused;
                Ok(OpeningStep::Read(Stage::Auth))
            }
            OpeningState::LoginUser if reply.code == 334 => {
                // The prompt's text is not asked: "Username:" comes in many spellings, not all of them base64.
                let user = self.options.login.map(|(user, _)| sasl::base64(user));
                self.secret(out, &user.unwrap_or_default(), "***");
                self.state = OpeningState::LoginPassword;
                Ok(OpeningStep::Read(Stage::Auth))
            }
            OpeningState::LoginPassword if reply.code == 334 => {
                let password = self.options.login.map(|(_, p)| sasl::base64(p.reveal()));
                self.secret(out, &password.unwrap_or_default(), "***");
                self.state = OpeningState::LoginResult;
                Ok(OpeningStep::Read(Stage::Auth))
            }
            OpeningState::TokenRefused if reply.is_positive() => Err(Obstacle::down(
                "AUTH: the upstream refused the token and then took it",
            )),
            OpeningState::Response { .. }
            | OpeningState::TokenRefused
            | OpeningState::LoginUser
            | OpeningState::LoginPassword
            | OpeningState::LoginResult => self.login_result(reply, out),
            OpeningState::Ready => Err(Obstacle::down("the upstream spoke out of turn")),
        }
    }

    /// The handshake is done: everything said before it is forgotten (RFC 3207 §4.2).
    pub fn secured(&mut self, out: &mut Vec<u8>) -> OpeningStep {
        self.encrypted = true;
        self.offered = Capabilities::default();
        self.hello(out)
    }

    fn hello(&mut self, out: &mut Vec<u8>) -> OpeningStep {
        self.line(out, &["EHLO ", self.options.helo]);
        self.state = OpeningState::Ehlo;
        OpeningStep::Read(Stage::Hello)
    }

    fn hello_refused(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Result<OpeningStep, Obstacle> {
        // 521 and 554 refuse us, not the word; any other 5xx comes from an upstream before RFC 1869.
        let refuses_word = reply.is_permanent()
            && !matches!(reply.code, 521 | 554)
            && classify(reply, Place::Hello, self.options.overrides) == Class::Failed;
        if !refuses_word {
            return Err(self.stop(reply, Place::Hello));
        }
        let needed = if self.options.upgrade == Upgrade::Required && !self.encrypted {
            "TLS"
        } else if self.options.login.is_some() {
            "a login"
        } else {
            self.line(out, &["HELO ", self.options.helo]);
            self.state = OpeningState::Helo;
            return Ok(OpeningStep::Read(Stage::Hello));
        };
        Err(Obstacle::new(
            ObstacleKind::Down,
            annotated(
                &self.mask.reply(reply),
                &format!("EHLO refused, and {needed} is required"),
                None,
            ),
        ))
    }

    fn after_hello(&mut self, out: &mut Vec<u8>) -> Result<OpeningStep, Obstacle> {
        if !self.encrypted && self.options.upgrade != Upgrade::Never {
            if self.offered.starttls {
                self.line(out, &["STARTTLS"]);
                self.state = OpeningState::StartTls;
                return Ok(OpeningStep::Read(Stage::StartTls));
            }
            if self.options.upgrade == Upgrade::Required {
                return Err(Obstacle::down(match &self.offered.blotted {
                    Some(word) => format!("STARTTLS: a firewall on the way blots it out of the answer to EHLO ({word}), as the SMTP inspection of Cisco PIX and ASA does; make it let TLS through (allow-tls), or switch the inspection off for this gateway [starttls-missing]"),
                    None => "STARTTLS: the upstream does not offer it, and tls = \"starttls\" requires it; if a firewall masks it, switch its SMTP inspection off; or set `tls` to what the port speaks [starttls-missing]".to_owned(),
                }));
            }
        }
        self.log_in(out)
    }

    fn log_in(&mut self, out: &mut Vec<u8>) -> Result<OpeningStep, Obstacle> {
        if self.options.login.is_none() {
            self.state = OpeningState::Ready;
            return Ok(OpeningStep::Ready);
        }
        if !self.encrypted && !self.options.plaintext_credentials {
            return Err(Obstacle::misconfigured(
                "AUTH: the line is not encrypted, so no password or token is sent; set tls = \"starttls\" or \"implicit\" (or plaintext_credentials = true)",
            ));
        }
        let mechanism = match self.options.mechanism {
            // A token is sent only where one is asked for: not to a wrong host, nor to one that is not ready for it.
            Some(mechanism)
                if mechanism.bears_token() && !self.offered.offers(mechanism.name()) =>
            {
                let offered = if self.offered.auth.is_empty() {
                    "no login".to_owned()
                } else {
                    self.mechanisms()
                };
                return Err(Obstacle::misconfigured(format!(
                    "AUTH: the upstream offers {offered}, not {}, so the token is not sent; check host, port and auth [auth-missing]",
                    mechanism.name()
                )));
            }
            // Configured, or known of the service: used even where the upstream does not announce it.
            Some(mechanism) => mechanism,
            None if self.offered.offers("PLAIN") => Mechanism::Plain,
            None if self.offered.offers("LOGIN") => Mechanism::Login,
            None if self.offered.auth.is_empty() => {
                return Err(Obstacle::misconfigured(if self.encrypted {
                    "AUTH: the upstream offers no login on this port; check port and host, or remove username and password [auth-missing]"
                } else {
                    "AUTH: the upstream offers no login without TLS; set tls = \"starttls\" or \"implicit\", or remove username and password [auth-missing]"
                }));
            }
            None => {
                return Err(Obstacle::misconfigured(format!(
                    "AUTH: the upstream offers {} only; Postern logs in with PLAIN or LOGIN: check `auth` and `tls`, or use `oauth` [auth-missing]",
                    self.mechanisms()
                )));
            }
        };
        Ok(self.begin_login(mechanism, out))
    }

    fn begin_login(&mut self, mechanism: Mechanism, out: &mut Vec<u8>) -> OpeningStep {
        self.mechanism = Some(mechanism);
        if mechanism == Mechanism::Login {
            self.line(out, &["AUTH LOGIN"]);
            self.state = OpeningState::LoginUser;
            return OpeningStep::Read(Stage::Auth);
        }
        let response = self.response();
        // RFC 5321 §4.5.3.1.4: a command line has 512 octets, its CRLF among them.
        let held_back = "AUTH  \r\n".len() + mechanism.name().len() + response.len() > 512;
        if held_back {
            self.line(out, &["AUTH ", mechanism.name()]);
        } else {
            self.line(out, &["AUTH ", mechanism.name(), " ", &response]);
            self.shown = Some(match mechanism {
                Mechanism::Xoauth2 => "AUTH XOAUTH2 ***",
                Mechanism::OauthBearer => "AUTH OAUTHBEARER ***",
                Mechanism::Plain | Mechanism::Login => "AUTH PLAIN ***",
            });
        }
        self.state = OpeningState::Response { held_back };
        OpeningStep::Read(Stage::Auth)
    }

    fn login_result(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Result<OpeningStep, Obstacle> {
        if reply.is_positive() {
            self.state = OpeningState::Ready;
            return Ok(OpeningStep::Ready);
        }
        // PLAIN was announced and then not known: LOGIN may be.
        if self.mechanism == Some(Mechanism::Plain)
            && self.options.mechanism.is_none()
            && reply.code == 504
            && self.offered.offers("LOGIN")
        {
            return Ok(self.begin_login(Mechanism::Login, out));
        }
        if !reply.is_permanent() && !reply.is_transient() {
            return Err(Obstacle::new(
                ObstacleKind::Down,
                annotated(
                    &self.mask.reply(reply),
                    "AUTH: the upstream asks for something that the mechanism does not provide for",
                    None,
                ),
            ));
        }
        let bears_token = self.mechanism.is_some_and(Mechanism::bears_token);
        let place = if bears_token {
            Place::Token
        } else {
            Place::Auth
        };
        self.is_token_refused = bears_token && heals_by_renewal(reply);
        let corrected = self.options.overrides.iter().any(|o| o.fits(reply));
        if reply.is_permanent() && !corrected {
            return Err(Obstacle::new(
                ObstacleKind::Misconfigured,
                diagnose(reply, place, &[], false).explain(&self.mask.reply(reply), place),
            ));
        }
        Err(self.stop(reply, place))
    }

    fn stop(&self, reply: &Reply, place: Place) -> Obstacle {
        let diagnosis = diagnose(reply, place, self.options.overrides, false);
        let said = diagnosis.explain(&self.mask.reply(reply), place);
        diagnosis
            .obstacle(said.clone())
            .unwrap_or_else(|| Obstacle::new(ObstacleKind::Down, said))
    }

    /// What is offered, for people.
    fn mechanisms(&self) -> String {
        let all = self.mask.text(&self.offered.auth.join(" "));
        bounded(&all).to_owned()
    }

    fn response(&self) -> String {
        let Some((user, secret)) = self.options.login else {
            return String::new();
        };
        match self.mechanism {
            Some(Mechanism::Xoauth2) => sasl::xoauth2_response(user, secret),
            Some(Mechanism::OauthBearer) => sasl::oauthbearer_response(user, secret),
            Some(Mechanism::Plain | Mechanism::Login) | None => sasl::plain_response(user, secret),
        }
    }

    fn line(&mut self, out: &mut Vec<u8>, parts: &[&str]) {
        self.shown = None;
        for part in parts {
            // Nothing from the configuration can begin a second command.
            out.extend(part.bytes().filter(|b| !matches!(b, b'\r' | b'\n')));
        }
        out.extend_from_slice(b"\r\n");
    }

    fn secret(&mut self, out: &mut Vec<u8>, text: &str, shown: &'static str) {
        self.line(out, &[text]);
        self.shown = Some(shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::client::reply::Replies;

    /// Plays replies parted by `|`; says what was written, then how it ended.
    fn play(options: OpeningOptions<'_>, script: &str) -> String {
        let mut opening = Opening::new(options);
        let mut replies = Replies::default();
        replies.feed(script.replace('|', "\r\n").as_bytes());
        let mut out = Vec::new();
        let mut step = OpeningStep::Read(Stage::Greeting);
        let end = loop {
            match step {
                OpeningStep::Ready => break "ready".to_owned(),
                OpeningStep::Handshake => {
                    out.extend_from_slice(b"[tls]");
                    step = opening.secured(&mut out);
                }
                OpeningStep::Read(stage) => {
                    let Ok(Some(reply)) = replies.next_reply() else {
                        break format!("waits at {stage}");
                    };
                    match opening.reply(&reply, &mut out) {
                        Ok(next) => step = next,
                        Err(obstacle) if obstacle.kind == ObstacleKind::MailboxRefused => {
                            break "mailbox".to_owned();
                        }
                        Err(obstacle) => break obstacle.kind.as_str().to_owned(),
                    }
                }
            }
        };
        let said = String::from_utf8(out).unwrap().replace("\r\n", "|");
        format!("{said} {end}")
    }

    fn options(upgrade: Upgrade, login: Option<&(String, Secret)>) -> OpeningOptions<'_> {
        OpeningOptions {
            helo: "me",
            upgrade,
            encrypted: false,
            login,
            mechanism: None,
            plaintext_credentials: true,
            overrides: &[],
        }
    }

    #[test]
    fn openings() {
        use Upgrade::{Never, Offered, Required};
        for (upgrade, script, expected) in [
            (Never, "220 hi|250 up|", "EHLO me| ready"),
            (
                Never,
                "220-a|220 b|250-up|250-   |250-|250 |",
                "EHLO me| ready",
            ),
            (Never, "554 no|", " down"),
            (Never, "421 no|", " down"),
            (Never, "530 x|", " misconfigured"),
            (Never, "220 hi|502 x|250 up|", "EHLO me|HELO me| ready"),
            (Never, "220 hi|500 x|550 up|", "EHLO me|HELO me| down"),
            (Never, "220 hi|421 x|", "EHLO me| down"),
            (Never, "220 hi|554 x|", "EHLO me| down"),
            (Required, "220 hi|500 x|", "EHLO me| down"),
            (Required, "220 hi|250 up|", "EHLO me| down"),
            (
                Required,
                "220 hi|250-up|250 STARTTLS|454 x|",
                "EHLO me|STARTTLS| down",
            ),
            (
                Required,
                "220 hi|250-up|250 starttls|354 x|",
                "EHLO me|STARTTLS| down",
            ),
            (
                Required,
                "220 hi|250-up|250 starttls|220 go|250 up|",
                "EHLO me|STARTTLS|[tls]EHLO me| ready",
            ),
            (Offered, "220 hi|250 up|", "EHLO me| ready"),
            (Offered, "220 hi|500 x|250 up|", "EHLO me|HELO me| ready"),
            (
                Offered,
                "220 hi|250-up|250 STARTTLS|454 x|",
                "EHLO me|STARTTLS| ready",
            ),
        ] {
            assert_eq!(play(options(upgrade, None), script), expected, "{script}");
        }
    }

    #[test]
    fn logins() {
        let login = ("u".to_owned(), Secret::new("p"));
        let long = ("u".to_owned(), Secret::new("p".repeat(500)));
        let with = |login| options(Upgrade::Never, Some(login));
        for (offer, replies, expected) in [
            ("AUTH LOGIN PLAIN", "235 x|", "AUTH PLAIN AHUAcA==| ready"),
            ("auth login plain", "235 x|", "AUTH PLAIN AHUAcA==| ready"),
            (
                "AUTH=LOGIN",
                "334 x|334 |235 x|",
                "AUTH LOGIN|dQ==|cA==| ready",
            ),
            (
                "AUTH LOGIN",
                "334 x|535 |",
                "AUTH LOGIN|dQ==| misconfigured",
            ),
            ("AUTH PLAIN", "535 x|", "AUTH PLAIN AHUAcA==| misconfigured"),
            ("AUTH PLAIN", "454 x|", "AUTH PLAIN AHUAcA==| down"),
            ("AUTH PLAIN", "334 x|", "AUTH PLAIN AHUAcA==| down"),
            ("AUTH PLAIN", "504 x|", "AUTH PLAIN AHUAcA==| misconfigured"),
            (
                "AUTH PLAIN LOGIN",
                "504 x|334 |334 |235 |",
                "AUTH PLAIN AHUAcA==|AUTH LOGIN|dQ==|cA==| ready",
            ),
            ("AUTH NTLM", "", " misconfigured"),
            ("SIZE", "", " misconfigured"),
        ] {
            let script = format!("220 hi|250-up|250 {offer}|{replies}");
            let expected = format!("EHLO me|{expected}");
            assert_eq!(play(with(&login), &script), expected, "{script}");
        }
        let said = play(with(&long), "220 hi|250-up|250 AUTH PLAIN|334 |235 x|");
        assert!(said.starts_with("EHLO me|AUTH PLAIN|AHUA"), "{said}");
        assert!(said.ends_with("| ready"));
        // Refused EHLO, but a login is wanted: no credentials after HELO.
        assert_eq!(play(with(&login), "220 hi|500 x|"), "EHLO me| down");
        // Not encrypted, and not allowed to go without.
        let careful = OpeningOptions {
            plaintext_credentials: false,
            ..with(&login)
        };
        let script = "220 hi|250-up|250 AUTH PLAIN|235 x|";
        assert_eq!(play(careful, script), "EHLO me| misconfigured");
        // What was offered before TLS is forgotten.
        let upgraded = OpeningOptions {
            upgrade: Upgrade::Required,
            ..with(&login)
        };
        let script = "220 hi|250-up|250-AUTH PLAIN|250 STARTTLS|220 go|250 up|";
        assert_eq!(
            play(upgraded, script),
            "EHLO me|STARTTLS|[tls]EHLO me| misconfigured"
        );
    }

    #[test]
    fn tokens() {
        let user = "relay@example.com".to_owned();
        let short = (user.clone(), Secret::new("TESTTOKEN"));
        let long = (user, Secret::new("t".repeat(3000)));
        let ehlo = "220 hi|250-up|250 AUTH LOGIN XOAUTH2 OAUTHBEARER|";
        let with = |mechanism, login, script: &str| {
            let options = OpeningOptions {
                mechanism: Some(mechanism),
                ..options(Upgrade::Never, Some(login))
            };
            play(options, script)
        };
        let line = "EHLO me|AUTH XOAUTH2 dXNlcj1yZWxheUBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciBURVNUVE9LRU4BAQ==|";
        for (script, expected) in [
            ("235 ok|", " ready"),
            ("535 5.7.3 no|", " misconfigured"),
            (
                "334 eyJzdGF0dXMiOiI0MDEifQ==|535 5.7.8 no|",
                "| misconfigured",
            ),
            ("334 not base64 at all|454 4.7.0 later|", "| down"),
            ("334 e30=|235 ok|", "| down"),
            ("334 e30=|334 e30=|", "| down"),
            ("432 4.3.2 busy|", " down"),
            ("454 4.7.0 later|", " down"),
            ("504 5.5.4 what|", " misconfigured"),
            ("501 5.5.121 bad|", " misconfigured"),
            ("550 5.7.30 no|", " misconfigured"),
        ] {
            let said = with(Mechanism::Xoauth2, &short, &format!("{ehlo}{script}"));
            assert_eq!(said, format!("{line}{expected}"), "{script}");
        }
        let said = with(
            Mechanism::OauthBearer,
            &short,
            &format!("{ehlo}334 e30=|535 no|"),
        );
        assert!(said.ends_with("|AQ==| misconfigured"), "{said}");
        let said = with(Mechanism::Xoauth2, &long, &format!("{ehlo}334 |235 ok|"));
        assert!(
            said.starts_with("EHLO me|AUTH XOAUTH2|dXNl") && said.ends_with("| ready"),
            "{said}"
        );
        // Not announced: not sent.
        for offer in ["250 up|", "250-up|250 AUTH PLAIN LOGIN|"] {
            let said = with(Mechanism::Xoauth2, &short, &format!("220 hi|{offer}"));
            assert_eq!(said, "EHLO me| misconfigured", "{offer}");
        }
        // Not encrypted: not sent.
        let careful = OpeningOptions {
            mechanism: Some(Mechanism::Xoauth2),
            plaintext_credentials: false,
            ..options(Upgrade::Never, Some(&short))
        };
        assert_eq!(play(careful, ehlo), "EHLO me| misconfigured");
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = ("u".to_owned(), Secret::new("p"));
        let mut opening = Opening::new(options(Upgrade::Never, Some(&login)));
        let mut out = Vec::new();
        for (reply, text, shown) in [
            (220, "", None),
            (250, "up\nAUTH PLAIN LOGIN", Some("AUTH PLAIN ***")),
            (504, "", None),
            (334, "", Some("***")),
            (334, "", Some("***")),
            (235, "", None),
        ] {
            let _ = opening.reply(&Reply::plain(reply, text), &mut out);
            assert_eq!(opening.shown(), shown, "{reply}");
        }
    }
}

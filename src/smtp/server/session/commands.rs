//! The commands of a session, each in its place (RFC 5321 §4.1.4): what may come when, and who is asked.
//!
//! The order of the questions at MAIL and RCPT stands on one screen here.

use std::{collections::HashSet, sync::Arc};

use bytes::BytesMut;

use crate::{
    mail::{address::Address, health::Health, recipient::Recipient, reply::Reply},
    policy::{
        Who,
        judge::Findings,
        quota::QuotaTally,
        redirect::{Redirect, Redirected},
        scope::Posted,
    },
    route::{Asked, ConnectorName, Route},
    smtp::server::{
        command::{self, Command, Extensions},
        tolerance::{Quirk, Tolerance, is_plain_path},
    },
};

use super::{
    Rules, Session, Step,
    answers::named,
    state::{Phase, Transaction},
};

/// Who gets the mail for a recipient, each by its route.
type Targets<'a> = Vec<(Recipient, &'a Route)>;

impl Session {
    /// One command; `rest` is what the client has sent behind it.
    pub(super) fn command(&mut self, command: Command<'_>, rest: &BytesMut) {
        if self.listener.require_tls && !self.tls && !may_precede_tls(command) {
            let reply = Reply::tls_needed();
            self.rejected("connect", None, &reply);
            return self.error(reply);
        }
        if self.has_chunks() && !may_stand_between_chunks(command) {
            let reply = Reply::bad_sequence("BDAT has begun: more of it, or RSET");
            return match command {
                Command::Data(_) => self.refuse_data(reply, rest),
                _ => self.error(reply),
            };
        }
        match command {
            Command::Helo(argument) => self.hello(argument, false),
            Command::Ehlo(argument) => self.hello(argument, true),
            Command::Mail(argument) => self.mail(argument),
            Command::Rcpt(argument) => self.rcpt(argument),
            Command::Data(argument) => self.open_data(argument, rest),
            Command::Rset(argument) if !argument.trim_ascii().is_empty() => {
                self.error(Reply::bad_argument("RSET takes no argument"));
            }
            Command::Rset(_) => {
                self.abandon();
                self.answer(Reply::okay());
            }
            Command::Noop => self.answer(Reply::okay()),
            Command::Help => self.answer(Reply::help()),
            Command::Vrfy => self.answer(Reply::cannot_verify()),
            Command::Quit => self.close(Some(Reply::bye())),
            Command::StartTls(argument) => self.start_tls(argument, rest),
            Command::Auth(argument) => self.auth(argument),
            Command::Bdat(argument) => self.chunk(argument),
            Command::Http => {
                let reply = Reply::not_http();
                self.rejected("connect", None, &reply);
                self.close(Some(reply));
            }
            Command::NotImplemented => self.error(Reply::not_implemented()),
            Command::Blank if self.tolerance.blank_lines => {
                self.forgiven.add(Quirk::BlankLines);
                self.count_command();
            }
            Command::Blank => self.error(Reply::empty_line()),
            Command::Unknown => self.error(Reply::unknown_command()),
        }
    }

    fn answer(&mut self, reply: Reply) {
        if self.count_command() {
            self.say(reply);
        }
    }

    fn hello(&mut self, argument: &[u8], esmtp: bool) {
        if argument.trim_ascii().is_empty() && !self.tolerance.empty_helo {
            return self.error(Reply::bad_argument("HELO and EHLO take a name"));
        }
        if argument.trim_ascii().is_empty() {
            self.forgiven.add(Quirk::EmptyHelo);
        }
        // RFC 5321 §4.1.4: EHLO clears the transaction; the login stays.
        self.abandon();
        self.helo = Some(command::helo_name(argument));
        self.esmtp = esmtp;
        let rules = Arc::clone(&self.conditions.rules);
        let mut lines = rules.hostname.clone();
        if esmtp {
            lines.push_str("\nPIPELINING\nSIZE ");
            lines.push_str(&rules.message_size.to_string());
            lines.push_str("\n8BITMIME\nENHANCEDSTATUSCODES\nDSN");
            if self.listener.smtputf8 {
                lines.push_str("\nSMTPUTF8");
            }
            if self.listener.chunking {
                lines.push_str("\nCHUNKING");
            }
            if self.offers_starttls() {
                lines.push_str("\nSTARTTLS");
            }
            lines.push_str(&self.mechanisms());
        }
        self.answer(Reply::hello(&lines));
    }

    fn offers_starttls(&self) -> bool {
        let hidden = self.client.as_ref().is_some_and(|c| c.hide_starttls);
        self.listener.starttls && !self.tls && !hidden
    }

    fn start_tls(&mut self, argument: &[u8], rest: &BytesMut) {
        if !argument.trim_ascii().is_empty() {
            self.error(Reply::bad_argument("STARTTLS takes no argument"));
        } else if self.tls {
            self.error(Reply::bad_sequence("already encrypted"));
        } else if !self.offers_starttls() {
            self.error(Reply::not_implemented());
        } else if self.transaction.is_some() || self.logged_in {
            self.error(Reply::bad_sequence("STARTTLS comes before all else"));
        } else if !rest.is_empty() {
            // CVE-2011-0411: what came in clear text must not be acted on inside TLS.
            let reply = Reply::behind_starttls();
            self.rejected("connect", None, &reply);
            self.close(Some(reply));
        } else {
            self.phase = Phase::Handshake { greet: false };
            self.push(Step::StartTls(Reply::start_tls()));
        }
    }

    /// MAIL: sequence, settings, login, form, conditions, size, rewriting, policy.
    fn mail(&mut self, argument: &[u8]) {
        if self.helo.is_none() && !self.tolerance.no_helo {
            return self.error(Reply::bad_sequence("say EHLO first"));
        }
        if self.helo.is_none() {
            self.forgiven.add(Quirk::NoHelo);
        }
        if self.transaction.is_some() {
            return self.error(Reply::bad_sequence("one MAIL at a time"));
        }
        if !self.adopt_rules() {
            return;
        }
        let rules = Arc::clone(&self.rules);
        let policy = &rules.policy;
        if let Err(reply) = policy.login(self.who(), self.listener.auth, self.logged_in) {
            self.rejected("mail", None, &reply);
            return self.error(reply);
        }
        let bare = policy.default_domain.as_ref();
        let extensions = Extensions {
            esmtp: self.esmtp,
            utf8: self.esmtp && self.listener.smtputf8,
        };
        let mail = match command::mail(argument, &self.tolerance, bare, extensions) {
            Ok(mail) => mail,
            Err(reply) => {
                let given = Some(shown(argument));
                self.rejected_sender("mail", given, None, &reply);
                return self.error(reply);
            }
        };
        if !is_plain_path(argument, b"FROM", self.esmtp) {
            let is_right =
                |less: &Tolerance| command::mail(argument, less, bare, extensions).is_ok();
            self.forgiven.add_all(self.tolerance.needed(is_right));
        }
        let given = Some(named(mail.sender.as_ref()));
        let conditions = match self.conditions.store {
            Health::Full => Some(Reply::storage_full()),
            Health::Failing => Some(Reply::storage_failing()),
            Health::Fine if self.conditions.throttled => Some(Reply::too_many_messages()),
            Health::Fine => None,
        };
        if let Some(reply) = conditions {
            // Ours to blame, not the client's: no error is counted.
            self.rejected_sender("mail", given, None, &reply);
            return self.say(reply);
        }
        if mail.size.is_some_and(|size| size > rules.message_size) {
            let reply = Reply::message_too_big(rules.message_size);
            self.rejected_sender("mail", given, None, &reply);
            return self.error(reply);
        }
        let who = Who {
            client: self.client.as_ref(),
            user: self.user.as_ref(),
        };
        let rewrite = match policy.mail(who, mail.sender.as_ref(), &mut self.findings) {
            Ok(rewrite) => rewrite,
            Err(reply) => {
                self.rejected_sender("mail", given, None, &reply);
                return self.error(reply);
            }
        };
        let sender = match rewrite {
            Some((_, rewrite)) => Some(rewrite.to.clone()),
            None => mail.sender.clone(),
        };
        self.transaction = Some(Box::new(Transaction {
            given: mail.sender,
            sender,
            rewrite: rewrite.map(|(place, _)| place),
            eight_bit: mail.eight_bit,
            utf8: mail.utf8,
            dsn: mail.dsn,
            recipients: Vec::new(),
            seen: HashSet::new(),
            redirected: Redirected::default(),
            routed: Vec::new(),
            size: mail.size,
            route_size_limit: 0,
            tally: QuotaTally::default(),
            held: Vec::new(),
            chunks: None,
        }));
        self.chunks_refused = false;
        self.say(Reply::sender_ok());
    }

    /// After a reload: who this is by the new settings. False when that was answered already.
    fn adopt_rules(&mut self) -> bool {
        let is_over = self.is_learned && self.client.is_some() && self.conditions.learned.is_none();
        if Arc::ptr_eq(&self.rules, &self.conditions.rules) && !is_over {
            return true;
        }
        self.rules = Arc::clone(&self.conditions.rules);
        let known = self.rules.policy.client(self.peer.ip()).cloned();
        self.is_learned = known.is_none();
        let client = known.or_else(|| self.conditions.learned.as_deref().cloned());
        if client.is_none() && self.client.is_some() {
            let reply = Reply::not_listed_any_more();
            self.rejected("mail", None, &reply);
            self.close(Some(reply));
            return false;
        }
        let level = client.as_ref().map(|c| c.tolerance).unwrap_or_default();
        self.tolerance = Tolerance::of(level);
        self.client = client;
        if !self.is_still_logged_in() {
            let reply = Reply::login_again();
            self.rejected("mail", None, &reply);
            self.error(reply);
            return false;
        }
        true
    }

    /// RCPT: sequence, form, twice, limit, redirect or policy, route, quotas.
    fn rcpt(&mut self, argument: &[u8]) {
        let rules = Arc::clone(&self.rules);
        let Some(transaction) = &self.transaction else {
            return self.error(Reply::bad_sequence("say MAIL first"));
        };
        let bare = rules.policy.default_domain.as_ref();
        let extensions = Extensions {
            esmtp: self.esmtp,
            utf8: transaction.utf8,
        };
        let recipient = match command::rcpt(argument, &self.tolerance, bare, extensions) {
            Ok(recipient) => recipient,
            Err(reply) => {
                self.rejected("rcpt", Some(shown(argument)), &reply);
                return self.error(reply);
            }
        };
        if !is_plain_path(argument, b"TO", self.esmtp) {
            let is_right =
                |less: &Tolerance| command::rcpt(argument, less, bare, extensions).is_ok();
            self.forgiven.add_all(self.tolerance.needed(is_right));
        }
        // The wishes of the first one hold.
        let redirected = &transaction.redirected;
        if transaction.seen.contains(&recipient.address) || redirected.has(&recipient.address) {
            return self.say(Reply::recipient_ok());
        }
        let recipients = transaction.recipients.len();
        if recipients.max(redirected.given(recipients)) >= rules.recipients {
            // Not an error of the client, who cannot know (RFC 5321 §4.5.3.1.10).
            let reply = Reply::too_many_recipients(rules.recipients);
            self.rejected("rcpt", Some(recipient.to_string()), &reply);
            return self.say(reply);
        }
        let size = transaction.size;
        match self.judge_recipient(&rules, &recipient) {
            Ok((redirect, routed)) => {
                let sized = |(_, route): &(_, &Route)| too_big_for(route, size?);
                if let Some(reply) = routed.iter().find_map(sized) {
                    // Not an error of the client, who was told of another limit.
                    self.rejected("rcpt", Some(recipient.to_string()), &reply);
                    return self.say(reply);
                }
                if let Err(reply) = self.count_recipients(&rules, &routed) {
                    // Not an error of the client, who may come again.
                    self.rejected("rcpt", Some(recipient.to_string()), &reply);
                    return self.say(reply);
                }
                self.admit(&recipient.address, redirect, routed);
            }
            Err(reply) => {
                self.rejected("rcpt", Some(recipient.to_string()), &reply);
                self.error(reply);
            }
        }
    }

    /// Whether mail may go there, or to whom it goes in its place: the redirect, and which route takes each of those who do not get it
    /// yet.
    fn judge_recipient<'a>(
        &mut self,
        rules: &'a Rules,
        recipient: &Recipient,
    ) -> Result<(Option<&'a Redirect>, Targets<'a>), Reply> {
        let who = Who {
            client: self.client.as_ref(),
            user: self.user.as_ref(),
        };
        let transaction = self.transaction.as_ref();
        let client = who.client.filter(|_| !self.is_learned);
        let mail = Posted {
            sender: transaction.and_then(|t| t.sender.as_ref()),
            client: client.map(|client| client.name.as_str()),
            user: who.user.map(|user| user.name.as_str()),
            listener: &self.listener.name,
        };
        let (policy, findings) = (&rules.policy, &mut self.findings);
        let redirect = policy.redirect(who, mail, &recipient.address, findings);
        let mut targets = if let Some(redirect) = redirect {
            redirect.instead_of(recipient)
        } else {
            policy.rcpt(who, &recipient.address, findings)?;
            vec![recipient.clone()]
        };
        targets.retain(|to| transaction.is_none_or(|t| !t.seen.contains(&to.address)));
        let routed = targets.into_iter().map(|target| {
            let route = route_of(rules, mail, &target.address, findings)?;
            Ok((target, route))
        });
        Ok((redirect, routed.collect::<Result<_, Reply>>()?))
    }

    fn admit(&mut self, given: &Address, redirect: Option<&Redirect>, routed: Targets<'_>) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        if let Some(redirect) = redirect {
            transaction.redirected.add(given, redirect, routed.len());
        }
        for (recipient, route) in routed {
            transaction.seen.insert(recipient.address.clone());
            transaction.recipients.push(recipient.clone());
            transaction.routed.push((recipient, route.name.clone()));
            let limit = route.max_size.unwrap_or(u64::MAX);
            transaction.route_size_limit = transaction.route_size_limit.max(limit);
        }
        self.say(Reply::recipient_ok());
    }

    fn open_data(&mut self, argument: &[u8], rest: &BytesMut) {
        let ready = match &self.transaction {
            _ if !argument.trim_ascii().is_empty() => {
                Err(Reply::bad_argument("DATA takes no argument"))
            }
            None => Err(Reply::bad_sequence("say MAIL and RCPT first")),
            Some(transaction) if transaction.recipients.is_empty() => Err(Reply::no_recipients()),
            Some(_) => Ok(()),
        };
        match ready {
            Ok(()) => {
                self.phase = Phase::Opening(None);
                self.push(Step::Data);
            }
            Err(reply) => self.refuse_data(reply, rest),
        }
    }

    /// There will be no 354.
    pub(super) fn refuse_data(&mut self, reply: Reply, rest: &BytesMut) {
        if rest.is_empty() {
            self.data_refused = true;
            self.error(reply);
        } else {
            // DATA ends a pipelined group (RFC 2920 §3.1): what stands behind it is the message, not commands.
            let reply = Reply::out_of_step("DATA was refused and more was sent; closing");
            self.rejected("data", None, &reply);
            self.close(Some(reply));
        }
    }
}

/// Which route takes mail there.
fn route_of<'a>(
    rules: &'a Rules,
    mail: Posted<'_>,
    recipient: &Address,
    findings: &mut Findings,
) -> Result<&'a Route, Reply> {
    let route = rules.router.route(Asked {
        sender: mail.sender,
        recipient,
        client: mail.client,
        user: mail.user,
        listener: mail.listener,
    });
    findings.add("route", || match route {
        Some(route) => format!("{}: {}, in this order", route.name, connectors(route)),
        None => "no [[route]] takes this sender and recipient".to_owned(),
    });
    if let Some(route) = route {
        findings.add("size", || match route.max_size {
            Some(limit) if limit < rules.message_size => {
                format!(
                    "at most {limit} octets, the most that {} takes",
                    connectors(route)
                )
            }
            _ => format!("at most {} octets, limits.message_size", rules.message_size),
        });
    }
    route.ok_or_else(|| Reply::no_route(&recipient.to_string()))
}

/// The refusal of a message that no connector of the route would take.
fn too_big_for(route: &Route, size: u64) -> Option<Reply> {
    let limit = route.max_size.filter(|limit| size > *limit)?;
    Some(Reply::too_big_for(&connectors(route), limit))
}

/// The connectors of a route, for people.
pub(super) fn connectors(route: &Route) -> String {
    let names: Vec<_> = route.connectors.iter().map(ConnectorName::as_str).collect();
    names.join(", ")
}

/// RFC 3207 §4, and RSET, which costs nothing.
fn may_precede_tls(command: Command<'_>) -> bool {
    matches!(
        command,
        Command::Helo(_)
            | Command::Ehlo(_)
            | Command::Noop
            | Command::Rset(_)
            | Command::Quit
            | Command::StartTls(_)
            | Command::Blank
            | Command::Http
            | Command::Bdat(_)
    )
}

/// What would mix two ways of sending content, or change whose it is (RFC 3030 §2).
fn may_stand_between_chunks(command: Command<'_>) -> bool {
    !matches!(
        command,
        Command::Mail(_)
            | Command::Rcpt(_)
            | Command::Data(_)
            | Command::StartTls(_)
            | Command::Auth(_)
    )
}

/// An argument that could not be read, for the log.
fn shown(argument: &[u8]) -> String {
    let short = argument.get(..200).unwrap_or(argument);
    short.escape_ascii().to_string().chars().take(200).collect()
}

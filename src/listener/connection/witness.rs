//! What is told of a session besides the mail log: to the devices, and to whoever captures it.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::super::{
    captures::{Recording, Speaker, escaped},
    devices::{Visit, Visitor},
    learning::{HIDE_STARTTLS, LF_ONLY},
    shared::Shared,
};
use crate::{
    mail::{address::Address, reply::Reply},
    smtp::server::{
        session::{Rejection, Session},
        tolerance::Forgiven,
    },
};

/// A long session tells of its mail so often.
const TOLD: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Witness {
    peer: IpAddr,
    visit: Visit,
    last_reply: Option<Reply>,
    told: Option<Instant>,
    recording: Option<Recording>,
    /// A handshake failed.
    tls_failed: bool,
    /// What was noted of it.
    noted: Forgiven,
}

impl Witness {
    /// Of a session that begins, by this listener.
    pub(super) fn new(
        peer: IpAddr,
        session: &mut Session,
        tls: Option<&str>,
        (shared, listener): (&Shared, &str),
    ) -> Self {
        let witness = Self {
            peer,
            visit: Visit::default(),
            last_reply: None,
            told: None,
            recording: shared.captures.of(peer),
            tls_failed: false,
            noted: Forgiven::default(),
        };
        if witness.recording.is_some() {
            session.keep_findings();
            witness.note(shared, || {
                let who = match session.client() {
                    Some(client) => format!("in [[client]] {client}"),
                    None if session.is_learned() => "in no [[client]], learned".to_owned(),
                    None => "in no [[client]]".to_owned(),
                };
                format!("connected to listener {listener}, {who}")
            });
            witness.encrypted(shared, tls);
        }
        witness
    }

    /// Whether anybody wants the lines.
    pub(super) fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// A line of the client, as it may be shown.
    pub(super) fn heard(&self, shared: &Shared, line: String) {
        if let Some(recording) = self.recording {
            shared.captures.say(recording, Speaker::Client, line);
        }
    }

    /// What there is to say of it.
    pub(super) fn note(&self, shared: &Shared, text: impl FnOnce() -> String) {
        if let Some(recording) = self.recording {
            shared.captures.say(recording, Speaker::Note, text());
        }
    }

    /// After octets were taken: what was forgiven, and how much content there was.
    pub(super) fn fed(&mut self, shared: &Shared, session: &mut Session) {
        if self.recording.is_none() {
            return;
        }
        if let Some((header, body)) = session.take_content() {
            let line = format!("[{header} octets of header, {body} of body]");
            self.heard(shared, line);
        }
        let forgiven = session.forgiven();
        for word in forgiven.since(self.noted).words() {
            self.note(shared, || format!("tolerated: {word}"));
        }
        self.noted = forgiven;
    }

    /// We answer.
    pub(super) fn said(&mut self, shared: &Shared, reply: Reply) {
        if let Some(recording) = self.recording {
            let mut octets = Vec::new();
            reply.write_to(&mut octets);
            for line in octets.split(|octet| *octet == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if !line.is_empty() {
                    shared
                        .captures
                        .say(recording, Speaker::Postern, escaped(line));
                }
            }
        }
        // That it may go is no news.
        if reply.code != 221 {
            self.last_reply = Some(reply);
        }
    }

    /// The handshake is done.
    pub(super) fn encrypted(&self, shared: &Shared, version: Option<&str>) {
        if let (Some(recording), Some(version)) = (self.recording, version) {
            shared.captures.encrypted(recording, Some(version));
            self.note(shared, || format!("encrypted with TLSv{version}"));
        }
    }

    /// The handshake failed.
    pub(super) fn tls_failed(&mut self) {
        self.tls_failed = true;
    }

    /// A message was accepted; a long session tells of it before its end.
    pub(super) fn accepted(&mut self, sender: Option<&Address>) {
        self.visit.accepted(sender);
    }

    /// Something was refused.
    pub(super) fn refused(
        &mut self,
        shared: &Shared,
        session: &mut Session,
        listener: &str,
        rejection: &Rejection,
    ) {
        self.visit.refused(rejection.stage, &rejection.reply);
        let who = (self.peer, session.client(), listener);
        shared
            .devices
            .refused
            .add(who, rejection, SystemTime::now());
        if self.recording.is_some() {
            let found = session.take_findings();
            let refuses = |(_, text): &&(&str, String)| !text.contains(" passes ");
            let why = found.iter().rev().find(refuses);
            let why = why.map(|(about, text)| format!(": {about}: {text}"));
            self.note(shared, || {
                let (stage, reply) = (rejection.stage, &rejection.reply);
                format!("refused at {stage}, {reply}{}", why.unwrap_or_default())
            });
        }
    }

    /// Between two messages: what there is to tell is told now and then.
    pub(super) fn pause(&mut self, shared: &Shared, session: &Session, tls: Option<&str>) {
        if self.visit.has_mail() {
            let now = Instant::now();
            let told = *self.told.get_or_insert(now);
            if now.duration_since(told) >= TOLD {
                self.told = Some(now);
                self.tell(shared, session, tls);
            }
        }
    }

    /// Tells of it.
    pub(super) fn tell(&mut self, shared: &Shared, session: &Session, tls: Option<&str>) {
        let visitor = Visitor {
            client: session.client(),
            tls,
            helo: session.helo(),
            user: session.user(),
            tolerances: session.forgiven().words().collect(),
            last_reply: self.last_reply.as_ref(),
            needs: [
                session.wants_lf_only().then_some(LF_ONLY),
                self.tls_failed.then_some(HIDE_STARTTLS),
            ]
            .into_iter()
            .flatten()
            .collect(),
            is_learned: session.is_learned(),
        };
        let visit = std::mem::take(&mut self.visit);
        shared
            .devices
            .visited(self.peer, &visitor, &visit, SystemTime::now());
    }
}

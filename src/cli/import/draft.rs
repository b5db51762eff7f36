//! What every import makes: the sections of a new configuration, before they are text.
//!
//! It knows what may be carried over and what stands as a comment, and nothing of the programs that it came from.

use std::time::Duration;

use toml::Value;

use super::note::{ImportNotes, NoteKind, SourcePlace};
use crate::secret::Secret;

/// A new configuration, and what is to be said of it.
#[derive(Debug, Default)]
pub(super) struct ImportDraft {
    /// The program that it comes from.
    pub(super) program: &'static str,
    pub(super) hostname: Option<String>,
    pub(super) default_domain: Option<String>,
    pub(super) message_size: Option<u64>,
    pub(super) recipients: Option<u64>,
    pub(super) listeners: Vec<ListenerDraft>,
    pub(super) clients: Vec<ClientDraft>,
    pub(super) users: Vec<UserDraft>,
    /// `None`: anybody.
    pub(super) allowed_senders: Option<Vec<String>>,
    pub(super) allowed_recipients: Option<Vec<String>>,
    pub(super) rewrites: Vec<RewriteDraft>,
    pub(super) routes: Vec<RouteDraft>,
    pub(super) connectors: Vec<ImportedConnector>,
    pub(super) retry: Vec<String>,
    pub(super) give_up: Option<Duration>,
    pub(super) proxy: Option<String>,
    pub(super) copy_to: Vec<String>,
    /// Nothing leaves until somebody has named a way out.
    pub(super) stands_still: bool,
    /// No listener could be carried over, and nothing is taken by the one that stands in its place.
    pub(super) has_no_door: bool,
    pub(super) notes: ImportNotes,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ListenerDraft {
    pub(super) name: String,
    pub(super) address: String,
    /// off, starttls or implicit.
    pub(super) tls: &'static str,
    pub(super) require_tls: bool,
    pub(super) certificate: Option<(String, String)>,
    /// off, optional or required.
    pub(super) auth: &'static str,
    pub(super) plaintext_auth: bool,
    /// Why it stands as a comment.
    pub(super) asleep: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ClientDraft {
    pub(super) name: String,
    pub(super) comment: Option<&'static str>,
    pub(super) networks: Vec<String>,
    /// Networks that stand as comments, since `check` refuses them.
    pub(super) asleep: Vec<String>,
    pub(super) senders: Option<Vec<String>>,
    /// It may send to nobody.
    pub(super) is_barred: bool,
}

#[derive(Debug)]
pub(super) struct UserDraft {
    pub(super) name: String,
    pub(super) password: Secret,
    pub(super) senders: Option<Vec<String>>,
}

#[derive(Debug, Clone)]
pub(super) struct RewriteDraft {
    pub(super) senders: Vec<String>,
    pub(super) to: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct RouteDraft {
    pub(super) name: String,
    pub(super) senders: Vec<String>,
    pub(super) recipients: Vec<String>,
    pub(super) clients: Vec<String>,
    pub(super) listeners: Vec<String>,
    pub(super) connectors: Vec<String>,
    /// The clients that it is for stand as comments.
    pub(super) is_closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct ImportedConnector {
    pub(super) name: String,
    /// In the order in which they are written, without `name`.
    pub(super) pairs: Vec<(&'static str, Value)>,
    pub(super) login: Option<LoginDraft>,
    /// Why it stands as a comment.
    pub(super) asleep: Option<String>,
}

/// Who logs in, and what with.
#[derive(Debug)]
pub(super) struct LoginDraft {
    /// The key beside it, such as `username`.
    pub(super) beside: Option<(&'static str, String)>,
    /// The key of the secret, such as `password`.
    pub(super) key: &'static str,
    /// The last part of the name of its file.
    pub(super) file: &'static str,
    pub(super) secret: LoginSecret,
}

#[derive(Debug)]
pub(super) enum LoginSecret {
    Known(Secret, Option<SourcePlace>),
    /// It cannot be had: the login stands as a comment.
    Missing,
}

impl ImportedConnector {
    pub(super) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        match self.pairs.iter_mut().find(|(known, _)| *known == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key, value)),
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(known, _)| *known == key);
        pair.and_then(|(_, value)| value.as_str())
    }

    /// The name of the file that its secret goes to.
    pub(super) fn secret_file(&self) -> Option<String> {
        let login = self.login.as_ref()?;
        Some(format!("{}-{}", self.name, login.file))
    }
}

impl ImportDraft {
    pub(super) fn new(program: &'static str) -> Self {
        Self {
            program,
            ..Self::default()
        }
    }

    /// Left out, and it decides neither who may send nor where mail goes.
    pub(super) fn leaves(
        &mut self,
        what: impl Into<String>,
        place: Option<SourcePlace>,
        why: impl Into<String>,
    ) {
        self.notes.add(NoteKind::LeftOut, what, place, why);
    }

    /// Left out, and it decides who may send or where mail goes.
    pub(super) fn lacks(
        &mut self,
        what: impl Into<String>,
        place: Option<SourcePlace>,
        why: impl Into<String>,
    ) {
        self.notes.add(NoteKind::Decides, what, place, why);
    }

    /// Carried over, and not quite as it was.
    pub(super) fn changes(
        &mut self,
        what: impl Into<String>,
        place: Option<SourcePlace>,
        why: impl Into<String>,
    ) {
        self.notes.add(NoteKind::Changed, what, place, why);
    }

    /// The secrets, each with the name of its file, who logs in with it, and where it was found.
    pub(super) fn secrets(&self) -> Vec<(String, &Secret, String, Option<SourcePlace>)> {
        let awake = self.connectors.iter().filter(|c| c.asleep.is_none());
        awake
            .filter_map(|connector| {
                let login = connector.login.as_ref()?;
                let LoginSecret::Known(secret, place) = &login.secret else {
                    return None;
                };
                let who = match &login.beside {
                    Some((_, name)) => format!("the password of {name}"),
                    None => "the secret of the application".to_owned(),
                };
                let at = connector
                    .text("host")
                    .map_or_else(String::new, |host| format!(" at {host}"));
                Some((
                    connector.secret_file()?,
                    secret,
                    format!("{who}{at}"),
                    place.clone(),
                ))
            })
            .collect()
    }
}

//! `[[user]]`: who may log in, and what with: a hash that a login can be held against.

use argon2::{Params, PasswordHash};

use super::{
    client_ca,
    context::{Context, SectionNames},
    secret,
};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table},
        values::{Fault, plain},
    },
    policy::{certificate::CertificatePattern, client::User},
};

/// All users.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) names: SectionNames,
    all: Vec<User>,
    /// What a certificate has that is one's, with the name of the user.
    pub(super) certificates: Vec<(String, At<CertificatePattern>)>,
    /// The first section.
    pub(super) span: Option<Span>,
}

impl Users {
    /// Whether anybody logs in by one.
    pub(super) fn have_passwords(&self) -> bool {
        self.all
            .iter()
            .any(|user| !user.password.reveal().is_empty())
    }

    pub(super) fn list(self) -> Vec<User> {
        self.all
    }
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Users {
    let mut names = SectionNames::new("user");
    let mut all = Vec::new();
    let mut certificates = Vec::new();
    let mut first = None;
    for table in root.tables("user") {
        first.get_or_insert(table.span.clone());
        let name = names.read(context, &table);
        let found = client_ca::patterns(context, &table);
        if !table.has("certificate") {
            table.requires(
                "password",
                "password = \"$argon2id$…\", which `postern hash-password` prints",
            );
        }
        let password = secret::read(context, &table, "password");
        if let Some(given) = &password
            && given.known
            && let Err(fault) = check_hash(given.secret.reveal())
        {
            context.error(&given.span, fault);
        }
        certificates.extend(found.iter().cloned().map(|at| (name.clone(), at)));
        all.push(User {
            name,
            password: password.map(|given| given.secret).unwrap_or_default(),
            certificates: found.iter().map(|at| at.value.clone()).collect(),
            senders: table.patterns("senders"),
            recipients: table.patterns("recipients"),
        });
        table.finish();
    }
    Users {
        names,
        all,
        certificates,
        span: first,
    }
}

/// An argon2id hash that this machine can compute for every login.
pub(super) fn check_hash(text: &str) -> Result<(), Fault> {
    let hint = "`postern hash-password` reads a password and prints the hash to write here";
    if !text.starts_with('$') {
        return Err(Fault::new(
            "this is a password in plain text; its argon2id hash belongs here",
            hint,
        ));
    }
    let hash = PasswordHash::new(text)
        .map_err(|_| Fault::new("this is not a complete password hash", hint))?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err(Fault::new(
            format!(
                "hashes of the kind {} are not supported, argon2id is",
                plain(hash.algorithm.as_str())
            ),
            hint,
        ));
    }
    let params = Params::try_from(&hash)
        .map_err(|_| Fault::new("the parameters of this hash are not valid", hint))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(Fault::new("this is not a complete password hash", hint));
    }
    // Every login pays this; a gigabyte of memory or a minute of time is a slip of the pen.
    if params.m_cost() > 1 << 20 || params.t_cost() > 100 {
        return Err(Fault::new(
            "this hash needs more than 1 GiB of memory or 100 passes for every login",
            hint,
        ));
    }
    Ok(())
}

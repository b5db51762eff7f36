//! The certificates that connectors show to others: for `postern status`, and once a day in the log (at the start and at a reload
//! the configuration's own warnings say it).
//!
//! It refuses nothing: a certificate that has expired is the upstream's to refuse. The listeners look after their own.

use std::{path::Path, time::SystemTime};

use tracing::{error, warn};

use crate::{
    connector::{
        Settings,
        keypair::{self, Validity, ValidityNow},
    },
    mail::time,
    view::{Certificate, Owner},
};

/// As the status row has them.
pub(super) fn entries(connectors: &[Settings]) -> impl Iterator<Item = Certificate> {
    known(connectors).map(|(settings, file, validity)| Certificate {
        owner: Owner::Connector(settings.name.to_string()),
        file: file.display().to_string(),
        not_before: (validity.standing(SystemTime::now()) == ValidityNow::NotYet)
            .then(|| time::logged(validity.begins())),
        not_after: time::logged(validity.ends()),
    })
}

/// A line for each that needs somebody.
pub(super) fn log_expiry(connectors: &[Settings]) {
    let now = SystemTime::now();
    for (settings, file, validity) in known(connectors) {
        let Some(said) = validity.said(now) else {
            continue;
        };
        let (file, at) = (file.display(), time::logged(validity.ends()));
        if validity.standing(now) == ValidityNow::EndsSoon {
            warn!(event = "certificate ends", connector = %settings.name, file = %file, at = %at, "the connector's certificate {said}");
        } else {
            error!(event = "certificate not valid", connector = %settings.name, file = %file, at = %at, "the connector's certificate {said}; put a new one in its place");
        }
    }
}

/// Those that can be read.
pub(super) fn known(connectors: &[Settings]) -> impl Iterator<Item = (&Settings, &Path, Validity)> {
    connectors.iter().flat_map(|settings| {
        let files = settings.kind.certificates();
        files.filter_map(move |(file, _)| Some((settings, file, keypair::validity(file).ok()?)))
    })
}

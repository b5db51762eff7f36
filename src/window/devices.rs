//! Who connects: a row for each device that the listeners have seen.

use std::time::SystemTime;

use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize, Serializer};

use crate::mail::{
    time::{from_micros, micros, rfc3339},
    tls::TlsVersion,
};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS device (
    address    TEXT PRIMARY KEY,    -- or the /64 that many of them come from
    client     TEXT,
    first_seen INTEGER NOT NULL,    -- microseconds since 1970 (UTC)
    last_seen  INTEGER NOT NULL,
    accepted   INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    candidate  INTEGER NOT NULL,
    detail     TEXT NOT NULL        -- JSON
) STRICT, WITHOUT ROWID;
";

/// Names of a device: enough to see that it is several.
pub const NAMES: usize = 16;

/// A client address that connected, or the /64 that many of them come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DeviceRow {
    /// `10.0.0.5`, `2001:db8::/64`.
    pub address: String,
    /// The `[[client]]` that it is in.
    pub client: Option<String>,
    /// When it was seen first.
    #[serde(serialize_with = "at")]
    #[schema(value_type = String)]
    pub first_seen: SystemTime,
    /// When it was seen last.
    #[serde(serialize_with = "at")]
    #[schema(value_type = String)]
    pub last_seen: SystemTime,
    /// Messages.
    pub accepted: u64,
    /// What was refused.
    pub refused: u64,
    /// Senders of its mail, at most five.
    pub senders: Vec<String>,
    /// The session that ended last.
    pub last_session: Option<DeviceSession>,
    /// The refusals, the latest last.
    pub refusals: Vec<DeviceRefusal>,
    /// It has delivered while it was learned who there is.
    #[serde(skip)]
    pub candidate: bool,
    /// What was ever forgiven, and `lf_only` and `hide_starttls` where it seems to need that.
    #[serde(skip)]
    pub needs: Vec<String>,
    /// When its last mail was accepted.
    #[serde(skip)]
    pub last_mail: Option<SystemTime>,
    /// When it last spoke TLS below 1.2, and which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_tls: Option<OldTlsUse>,
    /// Names that were said to HELO or EHLO, the first of them: more than one, and more than one device is behind the address.
    #[serde(skip)]
    pub names: Vec<String>,
}

impl DeviceRow {
    /// A session has ended in this version of TLS.
    pub fn spoke(&mut self, tls: Option<&str>, at: &str) {
        if let Some(version) = tls.filter(|version| TlsVersion::is_obsolete(version)) {
            self.old_tls = Some(OldTlsUse {
                at: at.to_owned(),
                version: version.to_owned(),
            });
        }
    }

    /// It has greeted with this name.
    pub fn add_name(&mut self, name: &str) {
        let is_known = self.names.iter().any(|one| one.eq_ignore_ascii_case(name));
        if self.names.len() < NAMES && !is_known && !name.is_empty() {
            self.names.push(name.to_owned());
        }
    }
}

/// A session in TLS below 1.2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OldTlsUse {
    /// When it ended.
    pub at: String,
    /// `1.0`, `1.1`.
    pub version: String,
}

/// A session of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeviceSession {
    /// When it ended.
    pub at: String,
    /// The version of TLS.
    pub tls: Option<String>,
    /// What it said to HELO or EHLO.
    pub helo: Option<String>,
    /// Who has logged in.
    pub user: Option<String>,
    /// What was forgiven.
    pub tolerances: Vec<String>,
    /// What it was told last, but for the answer to QUIT.
    pub last_reply: Option<String>,
}

/// A refusal of a device, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeviceRefusal {
    /// `connect`, `auth`, `mail`, `rcpt`, `data`.
    pub stage: String,
    /// What it was told.
    pub reply: String,
    /// How often.
    pub count: u64,
}

/// The columns that nobody asks for by itself.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Detail {
    senders: Vec<String>,
    last_session: Option<DeviceSession>,
    refusals: Vec<DeviceRefusal>,
    needs: Vec<String>,
    /// Microseconds since 1970 (UTC).
    last_mail: Option<i64>,
    old_tls: Option<OldTlsUse>,
    names: Vec<String>,
}

fn at<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(*at))
}

/// Those that were seen last, the latest first.
///
/// # Errors
/// The file cannot be read.
pub fn latest(tx: &Transaction<'_>, limit: usize) -> rusqlite::Result<Vec<DeviceRow>> {
    tx.prepare_cached(
        "SELECT address, client, first_seen, last_seen, accepted, refused, candidate, detail
         FROM device ORDER BY last_seen DESC LIMIT ?1",
    )?
    .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        let detail: String = row.get(7)?;
        // One that another version wrote says nothing.
        let detail: Detail = serde_json::from_str(&detail).unwrap_or_default();
        Ok(DeviceRow {
            address: row.get(0)?,
            client: row.get(1)?,
            first_seen: from_micros(row.get(2)?),
            last_seen: from_micros(row.get(3)?),
            accepted: row.get::<_, i64>(4)?.unsigned_abs(),
            refused: row.get::<_, i64>(5)?.unsigned_abs(),
            candidate: row.get(6)?,
            senders: detail.senders,
            last_session: detail.last_session,
            refusals: detail.refusals,
            needs: detail.needs,
            last_mail: detail.last_mail.map(from_micros),
            old_tls: detail.old_tls,
            names: detail.names,
        })
    })?
    .collect()
}

/// The addresses that have spoken TLS below 1.2 since then, the latest first: address, client, and what it was.
///
/// # Errors
/// The file cannot be read.
pub fn with_old_tls(
    tx: &Transaction<'_>,
    since: SystemTime,
    limit: usize,
) -> rusqlite::Result<Vec<(String, Option<String>, OldTlsUse)>> {
    // Times of RFC 3339 in UTC are in the order of their letters.
    tx.prepare_cached(
        "SELECT address, client, detail ->> '$.old_tls.at' AS at, detail ->> '$.old_tls.version'
         FROM device WHERE last_seen >= ?1 AND at >= ?2 ORDER BY at DESC, address LIMIT ?3",
    )?
    .query_map(
        params![
            micros(since),
            rfc3339(since),
            i64::try_from(limit).unwrap_or(i64::MAX)
        ],
        |row| {
            let (at, version) = (row.get(2)?, row.get(3)?);
            Ok((row.get(0)?, row.get(1)?, OldTlsUse { at, version }))
        },
    )?
    .collect()
}

/// Writes those that have changed, and forgets those that are gone.
///
/// # Errors
/// The file cannot be written.
pub fn write(tx: &Transaction<'_>, changed: &[DeviceRow], gone: &[String]) -> rusqlite::Result<()> {
    for address in gone {
        tx.prepare_cached("DELETE FROM device WHERE address = ?1")?
            .execute([address])?;
    }
    for row in changed {
        let detail = Detail {
            senders: row.senders.clone(),
            last_session: row.last_session.clone(),
            refusals: row.refusals.clone(),
            needs: row.needs.clone(),
            last_mail: row.last_mail.map(micros),
            old_tls: row.old_tls.clone(),
            names: row.names.clone(),
        };
        tx.prepare_cached(
            "INSERT OR REPLACE INTO device (address, client, first_seen, last_seen, accepted, refused, candidate, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            row.address,
            row.client,
            micros(row.first_seen),
            micros(row.last_seen),
            row.accepted.cast_signed(),
            row.refused.cast_signed(),
            row.candidate,
            serde_json::to_string(&detail).unwrap_or_default(),
        ])?;
    }
    Ok(())
}

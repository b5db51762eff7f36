//! Where mail is kept, by the configuration: in `data_dir` alone, or in a database that other gateways share; and how this gateway joins
//! those.
//!
//! It opens and joins; `delivery` does what follows while the gateway runs.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;

use super::{RunError, database};
use crate::{
    config::{
        Config,
        cluster::{ClusterSettings, OnOutage, StoreSettings},
    },
    connector,
    delivery::{
        joining::Joined,
        member::{Member, MemberSettings},
        members::{parts, roll::RollSettings},
    },
    queue::{
        self, StoreFault, StorePlace,
        moving::LeftBehind,
        postgres::OpenError,
        sqlite::SqliteStore,
        store::{Store, StoreError},
    },
};

/// Digits of what tells configurations apart.
const HASH: usize = 16;

/// Where the queue is. `migrates`: a gateway makes what is missing, a command does not.
///
/// # Errors
/// A sentence: which file or key cannot be used.
pub fn place(config: &Config, migrates: bool) -> Result<StorePlace, String> {
    let local = config.queue.clone();
    Ok(match &config.store {
        StoreSettings::Sqlite => StorePlace::Local(local),
        StoreSettings::Postgres(postgres, cluster) => StorePlace::Shared {
            remote: database::settings(postgres, cluster, &config.data_dir, migrates)?,
            spills: postgres.on_outage == OnOutage::Spill,
            spill_size: cluster.spill_size,
            local,
        },
    })
}

/// Opens the store.
///
/// # Errors
/// 78: the configuration or the database has to be mended; 69: the database is away; 74 and 75 as for a queue of its own.
pub(super) async fn open(config: &Config) -> Result<Arc<dyn Store>, RunError> {
    let place = place(config, true).map_err(|why| RunError::new(78, why))?;
    match place {
        StorePlace::Local(settings) => Ok(alone(&settings).await?),
        shared @ StorePlace::Shared { .. } => queue::open(shared).await.map_err(RunError::from),
    }
}

/// The queue of a gateway that is alone. What lies there since it was among others is not sent, and somebody has to know.
async fn alone(settings: &queue::Settings) -> Result<Arc<dyn Store>, StoreError> {
    let store = SqliteStore::open(settings)?;
    let LeftBehind { messages, outcomes } = store.left_behind().await?;
    if messages > 0 || outcomes > 0 {
        tracing::warn!(
            event = "queue not moved",
            messages,
            outcomes,
            "queue.db has messages that may be in the database of [postgres] as well, or what became of its jobs; they are not sent: stop \
             the gateways and run `postern queue move --from-postgres`"
        );
    }
    Ok(store)
}

impl From<StoreFault> for RunError {
    fn from(fault: StoreFault) -> Self {
        match fault {
            StoreFault::Store(error) => error.into(),
            StoreFault::Database(error) => error.into(),
        }
    }
}

impl From<OpenError> for RunError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Refused(_) => Self::new(78, error),
            OpenError::Away(_) => Self::new(69, error),
        }
    }
}

/// Who this gateway is among those that share the queue; `None`: it is alone.
pub(super) fn settings(config: &Config) -> Option<MemberSettings> {
    let StoreSettings::Postgres(_, cluster) = &config.store else {
        return None;
    };
    let ClusterSettings {
        name,
        dead_after,
        share_for,
        ..
    } = cluster;
    Some(MemberSettings {
        name: name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_hash: hash(config),
        roll: RollSettings {
            dead_after: *dead_after,
            share_for: *share_for,
            window: window(config),
        },
        in_doubt_wait: config.delivery.in_doubt_wait,
    })
}

/// The longest time for which a message counts at an upstream after its end.
fn window(config: &Config) -> Duration {
    let windows = config.connectors.iter().flat_map(|connector| {
        let (all, each) = connector.limits();
        [
            parts::window(&all),
            each.map_or(Duration::ZERO, |each| parts::window(&each)),
        ]
    });
    windows.max().unwrap_or_default()
}

/// Two gateways that do the same with the same mail have the same. What is each one's own (names, addresses, certificates) and what is
/// secret is not in it.
fn hash(config: &Config) -> String {
    let connectors = config
        .connectors
        .iter()
        .map(connector::Settings::without_whose);
    let said = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        config.policy,
        config.router,
        connectors.collect::<Vec<_>>(),
        config.queue.keep_failed,
        config.queue.keep_history,
    );
    let digest = digest::digest(&digest::SHA256, said.as_bytes());
    let hex = digest.as_ref().iter().map(|octet| format!("{octet:02x}"));
    hex.collect::<String>().chars().take(HASH).collect()
}

/// Becomes a member. Where another gateway has its name, it is watched first, for as long as it takes to know whether that lives.
///
/// # Errors
/// 75: the name is taken, or there are as many members as may be.
pub(super) async fn join(
    config: &Config,
    store: &Arc<dyn Store>,
) -> Result<Option<Arc<Member>>, RunError> {
    let Some(settings) = settings(config) else {
        return Ok(None);
    };
    let name = settings.name.clone();
    let member = Member::of_machine(Arc::clone(store), settings);
    match member.join().await {
        Ok(Joined::AtWork | Joined::Away) => Ok(Some(Arc::new(member))),
        Ok(Joined::NameTaken) => Err(RunError::new(
            75,
            format_args!(
                "a gateway named \"{name}\" is already at work; give this one another cluster.name"
            ),
        )),
        Err(StoreError::Crowded) => Err(RunError::new(75, StoreError::Crowded)),
        Err(error) => Err(error.into()),
    }
}

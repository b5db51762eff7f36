//! The way to the server that takes writes: which of several that is, how it keeps what it commits, and why there is none.
//!
//! They are tried one after the other, the one that was good before first, so that what every one of them says can be told.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Error, NoTls, SimpleQueryMessage, SimpleQueryRow,
    config::{ChannelBinding, SslMode},
};

use super::{
    clock::{SharedClock, since_boot},
    durable::DurabilityFacts,
    fault::{is_misconfigured, words},
    settings::{Server, Settings},
    tls::Rustls,
};

/// As text, so that nothing is prepared for it.
const QUESTION: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    pg_is_in_recovery(), current_setting('transaction_read_only'), current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_standby_names'), current_setting('server_version'), current_setting('server_encoding')";

/// A server that takes writes.
pub(super) struct Reached {
    pub(super) client: Client,
    /// The server has warned since this was looked at.
    pub(super) is_warned: Arc<AtomicBool>,
    /// It carries the connection, and ends it when it is dropped.
    pub(super) driver: JoinSet<()>,
    pub(super) facts: DurabilityFacts,
    /// Which of the servers it is.
    pub(super) place: usize,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Unreached {
    /// To try again changes nothing: a login, a right or a setting is wrong.
    pub(super) is_misconfigured: bool,
    /// One takes writes, and does not keep them as it must: those that there are to it are not to be used either.
    pub(super) is_unfit: bool,
    pub(super) why: String,
}

impl Unreached {
    fn later(why: String) -> Self {
        Self {
            is_misconfigured: false,
            is_unfit: false,
            why,
        }
    }
}

/// The one of the servers that takes writes; `first` is tried first.
pub(super) async fn reach(
    settings: &Settings,
    clock: &SharedClock,
    first: usize,
) -> Result<Reached, Unreached> {
    let count = settings.hosts.len();
    let mut whys = Vec::new();
    let (mut is_misconfigured, mut is_unfit) = (true, false);
    let places = (0..count).map(|step| (first % count + step) % count);
    for place in places {
        let Some(server) = settings.hosts.get(place) else {
            continue;
        };
        let silence = || format!("no answer within {} s", settings.patience.as_secs());
        let tried = tokio::time::timeout(settings.patience, one(settings, server, clock)).await;
        match tried.unwrap_or_else(|_| Err(Unreached::later(silence()))) {
            Ok(reached) => return Ok(Reached { place, ..reached }),
            Err(unreached) => {
                // Where one of them only cannot be reached now, that may be the one that would have taken it.
                is_misconfigured &= unreached.is_misconfigured;
                is_unfit |= unreached.is_unfit;
                whys.push(format!("{server}: {}", unreached.why));
            }
        }
    }
    Err(Unreached {
        is_misconfigured,
        is_unfit,
        why: whys.join("; "),
    })
}

/// This one.
async fn one(
    settings: &Settings,
    server: &Server,
    clock: &SharedClock,
) -> Result<Reached, Unreached> {
    let connected = connect(settings, server).await;
    let (client, is_warned, driver) = connected.map_err(|error| Unreached {
        is_misconfigured: is_misconfigured(&error),
        is_unfit: false,
        why: said(settings, server, &error),
    })?;
    let asked = since_boot();
    let answer = client.simple_query(QUESTION).await;
    let answered = since_boot();
    let answer = answer.map_err(|error| Unreached::later(words(&error)))?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| Unreached::later("it did not say how it is".to_owned()))?;
    let text = |at| text(row, at);
    if text(1) == "t" {
        let standby = "it takes no writes: it is a standby";
        return Err(Unreached::later(standby.to_owned()));
    }
    if text(2) == "on" {
        let read_only = "it takes no writes: default_transaction_read_only is on";
        return Err(Unreached::later(read_only.to_owned()));
    }
    let facts = DurabilityFacts::of([text(3), text(4), text(5), text(6), text(7)]);
    if let Some(why) = facts.refusal(settings.durability) {
        return Err(Unreached {
            is_misconfigured: true,
            is_unfit: true,
            why: why.to_owned(),
        });
    }
    let now = text(0).parse();
    let now = now.map_err(|_| Unreached::later("it did not say what time it is".to_owned()))?;
    clock.is(now, (asked, answered));
    Ok(Reached {
        client,
        is_warned,
        driver,
        facts,
        place: 0,
    })
}

/// Why it cannot be connected to.
fn said(settings: &Settings, server: &Server, error: &Error) -> String {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let inside = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let fault = inside.and_then(|inside| inside.downcast_ref::<rustls::Error>());
        if let (Some(fault), Server::Host(host, _)) = (fault, server) {
            return format!("TLS: {}", (settings.tls_words)(fault, host));
        }
        cause = error.source();
    }
    words(error)
}

fn text(row: &SimpleQueryRow, at: usize) -> &str {
    row.try_get(at).ok().flatten().unwrap_or_default()
}

type Connected = (Client, Arc<AtomicBool>, JoinSet<()>);

async fn connect(settings: &Settings, server: &Server) -> Result<Connected, Error> {
    let mut config = Config::new();
    config
        .dbname(&settings.database)
        .user(&settings.username)
        .application_name("postern")
        .connect_timeout(settings.patience)
        .keepalives_idle(Duration::from_secs(30))
        .channel_binding(ChannelBinding::Prefer);
    if let Some(password) = &settings.password {
        config.password(password.reveal());
    }
    match server {
        Server::Host(host, port) => config.host(host).port(*port),
        Server::Socket(directory, port) => config.host_path(directory).port(*port),
    };
    let mut driver = JoinSet::new();
    let is_warned = Arc::new(AtomicBool::new(false));
    let client = if let Some(tls) = &settings.tls {
        config.ssl_mode(SslMode::Require);
        let (client, connection) = config.connect(Rustls(Arc::clone(tls))).await?;
        driver.spawn(drive(connection, Arc::clone(&is_warned)));
        client
    } else {
        config.ssl_mode(SslMode::Disable);
        let (client, connection) = config.connect(NoTls).await?;
        driver.spawn(drive(connection, Arc::clone(&is_warned)));
        client
    };
    Ok((client, is_warned, driver))
}

/// Carries what is sent and answered, until the connection ends.
async fn drive<S, T>(mut connection: Connection<S, T>, is_warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Whoever waits for an answer hears of an error there.
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message
            && notice.severity() == "WARNING"
        {
            is_warned.store(true, Ordering::Release);
        }
    }
}

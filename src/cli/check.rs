//! `postern check`: the configuration, and with `--connect` every connector.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use tokio::task::JoinSet;

use super::{
    database, dkim,
    exit::{CommandError, Ended, Exit},
    output, prepare,
};
use crate::{
    config::{self, Config, Diagnostic, Secrets, cluster::StoreSettings},
    connector::{self, Services, oauth::TokenStore, smtp::OFFERS_UTF8},
    gateway::{
        database::settings as database_settings,
        report::login::{LoginFault, log_in},
    },
    mail::{
        address::Domain,
        text::{shown, shown_to},
    },
    queue,
    route::ConnectorName,
    view::{LoginView, Problem},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also log in at every connector, without sending anything, and look at the database of the queue
    #[arg(long)]
    connect: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Why a connector does not work, with the remedy, in so many octets.
pub(super) const SHOWN: usize = 900;

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let path = config::find(path);
    let secrets = if arguments.connect {
        Secrets::Resolve
    } else {
        Secrets::CheckOnly
    };
    let (config, notes) = match config::load(&path, secrets) {
        Ok(loaded) => loaded,
        Err(diagnostics) if arguments.json => {
            let problems: Vec<Problem> = diagnostics.iter().map(Diagnostic::problem).collect();
            output::json(&json!({
                "ok": false, "file": path.display().to_string(),
                "problems": problems, "connect": null,
            }))?;
            return Ok(Exit::Config);
        }
        Err(diagnostics) => return Err(CommandError::new(Exit::Config, diagnostics)),
    };
    if !arguments.json {
        for note in &notes {
            output::complain(note.to_string().trim_end());
        }
    }
    if let Err(failure) = buildable(&path, &config) {
        if !arguments.json {
            return Err(failure);
        }
        output::json(&json!({
            "ok": false, "file": path.display().to_string(),
            "problems": [{ "severity": "error", "message": failure.text }], "connect": null,
        }))?;
        return Ok(Exit::Config);
    }
    let (listeners, routes, connectors) = (
        config.listeners.len(),
        config.router.routes.len(),
        config.connectors.len(),
    );
    if !arguments.json {
        output::line(format_args!(
            "{}: ok ({}, {}, {})",
            path.display(),
            output::count(listeners as u64, "listener"),
            output::count(routes as u64, "route"),
            output::count(connectors as u64, "connector"),
        ))?;
    }
    let database = match &config.store {
        StoreSettings::Postgres(postgres, cluster) if arguments.connect => {
            let look = async { Ok(database::look(postgres, cluster, &config.data_dir).await) };
            Some(prepare::block_on(look)?)
        }
        _ => None,
    };
    let unsigned = if arguments.connect {
        Some(dkim::unsigned(&config)?)
    } else {
        None
    };
    let wants_utf8 = wants_utf8(&config);
    let logins = if arguments.connect {
        let token_store = prepare::token_store(&config)?;
        Some(prepare::block_on(connect(config.connectors, token_store))?)
    } else {
        None
    };
    let logged_in = logins.iter().flatten().all(|login| login.1.is_ok());
    let exit = match database.as_ref().map_or(Exit::Ok, database::exit) {
        Exit::Ok if !logged_in => Exit::Unavailable,
        exit => exit,
    };
    if arguments.json {
        let problems: Vec<Problem> = notes.iter().map(Diagnostic::problem).collect();
        output::json(&json!({
            "ok": exit == Exit::Ok, "file": path.display().to_string(), "problems": problems,
            "listeners": listeners, "routes": routes, "connectors": connectors,
            "store": database.as_ref().map(database::view),
            "connect": logins.map(|logins| logins.iter().map(login_view).collect::<Vec<_>>()),
            "unsigned": unsigned.map(|all| all.iter().map(unsigned_view).collect::<Vec<_>>()),
        }))?;
    } else {
        if let Some(looked) = &database {
            database::print(looked)?;
        }
        show(
            logins.into_iter().flatten(),
            &wants_utf8,
            unsigned.into_iter().flatten(),
        )?;
    }
    Ok(exit)
}

/// The SMTP connectors, where a listener takes addresses in UTF-8.
fn wants_utf8(config: &Config) -> Vec<ConnectorName> {
    let are_taken = config.listeners.iter().any(|listener| listener.smtputf8);
    let all = config.connectors.iter();
    let all = all.filter(|one| are_taken && one.kind.may_lack_utf8());
    all.map(|one| one.name.clone()).collect()
}

/// What came of every login, which upstreams have no SMTPUTF8 where it is wanted, and whose mail leaves unsigned.
fn show(
    logins: impl Iterator<Item = Login>,
    wants_utf8: &[ConnectorName],
    unsigned: impl Iterator<Item = (Domain, u64)>,
) -> Result<(), CommandError> {
    for (name, result) in logins {
        match result {
            Ok(found) => {
                output::line(format_args!("ok      {name}: {}", shown(&found)))?;
                if wants_utf8.contains(&name) && !found.ends_with(OFFERS_UTF8) {
                    output::line(format_args!(
                        "note    {name}: a listener has smtputf8 = true, but this upstream does not offer SMTPUTF8: mail that needs it goes to \
                         the next connector of its route, or fails with 5.6.7"
                    ))?;
                }
            }
            Err(LoginFault { why, .. }) => {
                output::line(format_args!("failed  {name}: {}", shown_to(&why, SHOWN)))?;
            }
        }
    }
    for (domain, messages) in unsigned {
        let messages = output::count(messages, "message");
        output::line(format_args!(
            "unsigned  {domain}: {messages} in the last day by envelope sender, and no [[dkim]] signs for it (`postern dkim new {domain} --selector NAME`)"
        ))?;
    }
    Ok(())
}

/// A connector, and how its login went.
type Login = (ConnectorName, Result<String, LoginFault>);

fn login_view((name, result): &Login) -> LoginView {
    let (state, text) = match result {
        Ok(found) => ("open", found),
        Err(LoginFault { state, why }) => (*state, why),
    };
    LoginView {
        connector: name.to_string(),
        ok: result.is_ok(),
        state: state.to_owned(),
        text: text.clone(),
    }
}

fn unsigned_view((domain, messages): (&Domain, &u64)) -> serde_json::Value {
    json!({ "domain": domain.as_str(), "messages": messages })
}

/// What shows only when a connector is built from its files: a key that does not belong to the certificate, say; and a queue that only a newer
/// program can read, which a package asks for before it starts another one. Nothing is connected to, and no directory is made.
pub(super) fn buildable(path: &Path, config: &Config) -> Result<(), CommandError> {
    for settings in &config.connectors {
        if settings.kind.leaves_no_trace()
            && let Err(why) = settings.build(Services::default())
        {
            return Err(CommandError::new(
                Exit::Config,
                format_args!(
                    "error: {}: connector \"{}\": {why}",
                    path.display(),
                    settings.name
                ),
            ));
        }
    }
    if let Some(newer) = queue::written_by_newer(&config.data_dir) {
        return Err(CommandError::new(
            Exit::Config,
            format_args!("error: {}: {newer}", config.data_dir.display()),
        ));
    }
    if let StoreSettings::Postgres(postgres, cluster) = &config.store {
        database_settings(postgres, cluster, &config.data_dir, false).map_err(|why| {
            CommandError::new(
                Exit::Config,
                format_args!("error: {}: {why}", path.display()),
            )
        })?;
    }
    Ok(())
}

/// All at once; each has its own deadline.
async fn connect(
    connectors: Vec<connector::Settings>,
    token_store: Option<Arc<dyn TokenStore>>,
) -> Result<Vec<Login>, CommandError> {
    let mut logins = JoinSet::new();
    for (place, settings) in connectors.into_iter().enumerate() {
        let services = Services {
            recorder: None,
            token_store: token_store.clone(),
        };
        logins.spawn(async move {
            let result = log_in(&settings, services).await;
            (place, (settings.name, result))
        });
    }
    let mut results = Vec::new();
    while let Some(joined) = logins.join_next().await {
        results.push(joined.map_err(|error| CommandError::new(Exit::Software, error))?);
    }
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, login)| login).collect())
}

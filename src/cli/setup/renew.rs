//! `postern setup exchange --renew CONNECTOR`: a new pair under new names, and a script that makes it known to the application. The
//! configuration is read and not touched; also the way from a client secret to a certificate.

use std::path::{Path, PathBuf};

use super::{
    super::{
        exit::{CommandError, Ended, Exit},
        output,
    },
    dialog::Dialog,
    exchange::{self, Arguments},
    lines::tenant,
    pair::{host_or_own, pair_files, script_file},
    script::ScriptGround,
    writing::SetupPlace,
};
use crate::{
    config::{self, Secrets},
    connector::{self, oauth::Grant},
    mail::{text::shown, time::day},
};

/// What a connector says of its application.
struct Application {
    client_id: String,
    tenant_id: Option<String>,
    cloud: &'static str,
    /// The keys whose place the certificate takes.
    replaces: Option<&'static str>,
}

pub(super) fn run(config: Option<PathBuf>, arguments: &Arguments, connector: &str) -> Ended {
    if arguments.common.says_more_than_where() {
        return Err(CommandError::new(
            Exit::Usage,
            "--renew goes with --days, --cloud, --tenant-id, --hostname and --out alone; nothing was written",
        ));
    }
    let found = config::find(config.clone());
    let (settings, _) = config::load(&found, Secrets::Ignore)
        .map_err(|why| CommandError::new(Exit::Config, format_args!("{why}nothing was written")))?;
    let connector = settings
        .connectors
        .iter()
        .find(|one| one.name.as_str() == connector)
        .ok_or_else(|| {
            let all: Vec<&str> = settings
                .connectors
                .iter()
                .map(|c| c.name.as_str())
                .collect();
            CommandError::new(
                Exit::Usage,
                format_args!(
                    "there is no connector named {}; the configuration has {}",
                    shown(connector),
                    all.join(", ")
                ),
            )
        })?;
    let application = application(connector)?;
    let tenant_id = match (&arguments.tenant_id, application.tenant_id) {
        (Some(given), _) => tenant(given)
            .map_err(|why| CommandError::new(Exit::Usage, format_args!("--tenant-id: {why}")))?,
        (None, Some(known)) => known,
        (None, None) => {
            return Err(CommandError::new(
                Exit::Usage,
                "--tenant-id ID is missing: the token_url of this connector does not say it; nothing was written",
            ));
        }
    };
    let stem = format!("{}-{}", connector.name, day(output::now()));
    // A person who is asked how long it is good has been asked enough.
    let days = exchange::days(Dialog::of_process(), arguments)?;
    let host = host_or_own(
        arguments
            .common
            .hostname_given()
            .map_or_else(|| Some(settings.hostname.clone()), Some),
    );
    let (pair, mut files) = pair_files(&stem, &host, days)?;
    let script = ScriptGround {
        host: &host,
        cloud: arguments.cloud.as_deref().unwrap_or(application.cloud),
        file: &format!("{stem}.ps1"),
        pair: &pair,
    }
    .adding(&tenant_id, &application.client_id)?;
    files.push(script_file(&stem, script));
    let place = SetupPlace::find(config, arguments.common.out.as_deref())?;
    place.write_files(&files)?;
    let at = |end: &str| {
        let name = format!("{stem}.{end}");
        let is_beside = arguments.common.out.is_none();
        let path = if is_beside {
            PathBuf::from(name)
        } else {
            std::path::absolute(place.path(&name)).unwrap_or_else(|_| place.path(&name))
        };
        toml::Value::from(&*path.to_string_lossy()).to_string()
    };
    place.say(format_args!(
        "\nFirst have {stem}.ps1 run by whoever administers the tenant: it adds the certificate to the application, and keeps those that it has.\n\
         Then put these two lines into the connector \"{}\" of {}{}:\n",
        connector.name,
        shown_path(&found),
        application
            .replaces
            .map_or_else(|| ", in place of the two that it has".to_owned(), |keys| format!(", in place of {keys}")),
    ))?;
    output::line(format_args!(
        "certificate = {}\nkey = {}",
        at("pem"),
        at("key")
    ))?;
    place.say(
        "\nand then: `postern doctor`, `postern reload`. With `rotate = true` beside them the certificate replaces itself in time.",
    )?;
    Ok(Exit::Ok)
}

fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

/// The application behind a connector.
fn application(connector: &connector::Settings) -> Result<Application, CommandError> {
    let refused = |why: &str| {
        CommandError::new(
            Exit::Usage,
            format_args!(
                "the connector {} {why}: it has no certificate to renew; nothing was written",
                connector.name
            ),
        )
    };
    let oauth = connector
        .kind
        .oauth()
        .ok_or_else(|| refused("logs in without an application"))?;
    let (client_id, replaces) = match &oauth.grant {
        Grant::Certificate { client_id, .. } => (client_id, None),
        Grant::ClientSecret { client_id, .. } => (
            client_id,
            Some(
                "`client_secret` (and of `client_secret_expires` and `client_auth`, where they are there)",
            ),
        ),
        Grant::Federated { client_id, .. } => (client_id, Some("`federated_token_file`")),
        Grant::ManagedIdentity { .. } => return Err(refused("uses a managed identity")),
        Grant::GoogleServiceAccount { .. } => return Err(refused("logs in at Google")),
        Grant::RefreshToken { .. } => {
            return Err(refused("logs in as a user, by a refresh token"));
        }
    };
    // Its login and, of one that sends by Graph, where that is.
    let hosts: Vec<String> = connector
        .kind
        .endpoints()
        .into_iter()
        .map(|one| one.host)
        .collect();
    let is_below = |domain: &str| hosts.iter().any(|host| host.ends_with(domain));
    let cloud = if hosts.iter().any(|host| host.starts_with("dod-")) {
        "dod"
    } else if is_below(".us") {
        "gcc-high"
    } else if is_below(".cn") {
        "china"
    } else {
        "global"
    };
    let tenant_id = reqwest::Url::parse(&oauth.token_url).ok().and_then(|url| {
        let first = url.path_segments()?.next()?.to_owned();
        tenant(&first).ok()
    });
    Ok(Application {
        client_id: client_id.clone(),
        tenant_id,
        cloud,
        replaces,
    })
}

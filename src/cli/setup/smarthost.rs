//! `postern setup smarthost`: a server by name or host, and a login there or none.

use std::path::PathBuf;

use super::{
    super::exit::{CommandError, Ended, Exit},
    credential,
    dialog::{Dialog, FlagQuestion},
    draft::{ConfigDraft, ConnectorKey},
    flags::{SetupFlags, address},
    staging::{Audience, NewFile},
    writing::SetupPlace,
};
use crate::connector::{Tls, services};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A well-known service, as `postern services` lists them
    #[arg(long, value_name = "NAME", conflicts_with_all = ["host", "port"])]
    service: Option<String>,
    /// The host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Its port [default: 587]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The address that mail comes from
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// The user name there
    #[arg(long, value_name = "NAME", conflicts_with = "no_login")]
    username: Option<String>,
    /// A file that holds the password; it is copied to DIR/NAME-password
    #[arg(long, value_name = "FILE", conflicts_with = "no_login")]
    password_file: Option<PathBuf>,
    /// It takes mail without a login
    #[arg(long)]
    no_login: bool,
    #[command(flatten)]
    common: SetupFlags,
}

/// Where it goes.
enum SmarthostTarget {
    Service(&'static services::Service),
    Host(String, u16),
}

pub(super) fn run(config: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let dialog = Dialog::of_process();
    let common = &arguments.common;
    let place = SetupPlace::find(config, common.out.as_deref())?;
    let smarthost = smarthost(dialog, arguments)?;
    let question = FlagQuestion {
        flag: "--from ADDRESS",
        words: "Address that mail comes from",
        default: None,
    };
    let from = dialog.value(&question, arguments.from.as_deref(), address)?;
    let login = username(dialog, arguments, &from.to_string())?;
    let name = common.name(dialog, "smarthost")?;
    let mut files = Vec::new();
    let mut connector = vec![ConnectorKey::Text("type", "smtp".to_owned())];
    match smarthost {
        SmarthostTarget::Service(service) => {
            connector.push(ConnectorKey::Text("service", service.name.to_owned()));
        }
        SmarthostTarget::Host(host, port) => {
            connector.push(ConnectorKey::Text("host", host));
            connector.push(ConnectorKey::Number("port", i64::from(port)));
            if port == 465 {
                let tls = Tls::Implicit.as_str().to_owned();
                connector.push(ConnectorKey::Text("tls", tls));
            }
        }
    }
    if let Some(username) = login {
        let file = format!("{name}-password");
        connector.push(ConnectorKey::Text("username", username));
        connector.push(ConnectorKey::SecretIn("password", file.clone()));
        let content = match &arguments.password_file {
            Some(path) => credential::line_of("--password-file", path)?,
            None => dialog.secret("--password-file FILE", "Password")?,
        };
        let given = arguments.password_file.as_deref();
        if !given.is_some_and(|given| place.has(&file, given)) {
            files.push(NewFile {
                name: file,
                content: credential::as_file(&content),
                audience: Audience::Gateway,
            });
        }
    }
    let hostname = if place.is_beside {
        None
    } else {
        common.hostname(dialog)?
    };
    let site = common.site(dialog, (name, hostname), Some(&from), place.is_beside)?;
    let draft = ConfigDraft {
        kind: "smarthost",
        site,
        connector,
        collapse: None,
        bounce_from: Some(from.to_string()),
    };
    place.write(&draft, &files)?;
    place.next(&draft.site.name)?;
    Ok(Exit::Ok)
}

/// `--service`, or `--host` and `--port`; who is asked says either.
fn smarthost(dialog: Dialog, arguments: &Arguments) -> Result<SmarthostTarget, CommandError> {
    if let Some(given) = arguments.service.as_deref() {
        let question = FlagQuestion {
            flag: "--service NAME",
            words: "",
            default: None,
        };
        let found = dialog.value(&question, Some(given), |text| {
            services::find(text)
                .ok_or_else(|| "there is no such well-known service; `postern services` lists them, without one it is --host".to_owned())
        });
        return found.map(SmarthostTarget::Service);
    }
    let question = FlagQuestion {
        flag: "--host HOST (or --service NAME)",
        words: "Host of the smarthost, or a name of `postern services`",
        default: None,
    };
    let host = dialog.value(&question, arguments.host.as_deref(), |text| {
        let is_host = |c: char| c.is_alphanumeric() || ".-_:[]".contains(c);
        let is_service = arguments.host.is_none() && services::find(text).is_some();
        if is_service || text.chars().all(is_host) {
            return Ok(text.to_owned());
        }
        Err("this is no host; write it as in smtp.corp.example".to_owned())
    })?;
    if arguments.host.is_none()
        && arguments.port.is_none()
        && let Some(service) = services::find(&host)
    {
        return Ok(SmarthostTarget::Service(service));
    }
    let question = FlagQuestion {
        flag: "--port PORT",
        words: "Its port",
        default: Some("587".to_owned()),
    };
    let given = arguments.port.map(|port| port.to_string());
    let port = dialog.value(&question, given.as_deref(), |text| {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
    })?;
    Ok(SmarthostTarget::Host(host, port))
}

/// The user name; nothing where no login is wanted.
fn username(
    dialog: Dialog,
    arguments: &Arguments,
    from: &str,
) -> Result<Option<String>, CommandError> {
    if arguments.no_login {
        return Ok(None);
    }
    let given = arguments.username.as_deref();
    if given.is_none() && arguments.password_file.is_none() && !dialog.asks() {
        return Err(CommandError::new(
            Exit::Usage,
            "--username NAME and --password-file FILE are missing, or --no-login; nothing was written",
        ));
    }
    let question = FlagQuestion {
        flag: "--username NAME",
        words: "User name there (\"none\" where it takes mail without a login)",
        default: dialog.asks().then(|| from.to_owned()),
    };
    let name = dialog.value(&question, given, |text| {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err("this cannot be a user name".to_owned());
        }
        Ok(text.to_owned())
    })?;
    let is_none = given.is_none() && arguments.password_file.is_none() && name == "none";
    Ok((!is_none).then_some(name))
}

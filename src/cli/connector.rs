//! `postern connector`: stop one, whether or not the gateway runs, and start it again.

use std::path::PathBuf;

use super::{
    audited,
    exit::{CommandError, Ended, Exit},
    output,
    place::{QueuePlace, Where},
    prepare,
};
use crate::{
    gateway::report::{site::status_row_of, verbs},
    mail::text::shown,
    queue::store::Store,
    route::ConnectorName,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    command: ConnectorCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConnectorCommand {
    /// Send nothing by it until it is started again: mail takes the next connector of its route, or waits and is not given up
    Stop {
        /// Its name
        name: String,
        /// Shown beside it, e.g. "the smarthost is being moved"
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
    /// Send by it again
    Start {
        /// Its name
        name: String,
    },
}

pub(super) fn run(path: Option<PathBuf>, arguments: Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    let store = place.existing_store()?;
    let (verb, name, why) = match arguments.command {
        ConnectorCommand::Stop { name, why } => {
            ("stop", name, verbs::stopped(&audited::user(), &why))
        }
        ConnectorCommand::Start { name } => ("start", name, String::new()),
    };
    let connector = ConnectorName::from(name.as_str());
    let is_done = prepare::block_on(async {
        if !names(&place, store.as_ref()).await?.contains(&name) {
            return Err(CommandError::new(
                Exit::Usage,
                format_args!("there is no connector named {:?}", shown(&name)),
            ));
        }
        let (store, now) = (store.as_ref(), output::now());
        let done = if verb == "stop" {
            verbs::stop(store, &connector, &why, now).await?
        } else {
            verbs::start(store, &connector, now).await?
        };
        Ok(done)
    })?;
    let said = if verb == "stop" { "stopped" } else { "started" };
    if !is_done {
        let is = if verb == "stop" { "is" } else { "is not" };
        output::complain(format_args!("{} {is} stopped", shown(&name)));
        return Ok(Exit::No);
    }
    let object = format!("connector {name}");
    let mut row = audited::row(verb, &object, &format!("connector {verb} {name}"));
    row.after = Some(why).filter(|why| !why.is_empty());
    audited::write(&place.data_dir, row);
    output::line(format_args!("{} {said}", shown(&name)))?;
    Ok(Exit::Ok)
}

/// Every connector that the file or the gateway has.
async fn names(place: &QueuePlace, store: &dyn Store) -> Result<Vec<String>, CommandError> {
    let site = place.site()?;
    let mut names = status_row_of(store, site.running.as_ref())
        .await?
        .connectors;
    let of_file = place.config.iter().flat_map(|config| &config.connectors);
    names.extend(of_file.map(|connector| connector.name.to_string()));
    Ok(names)
}

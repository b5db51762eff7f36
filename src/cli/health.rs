//! `postern health`: whether the gateway lives, for a container's probe. It reads one file and the lock; nothing is connected to.

use std::path::PathBuf;

use super::{
    exit::{CommandError, Ended, Exit},
    output,
    place::{self, Where},
};
use crate::gateway::health::{self, STALE};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Also fail, with 75, while the gateway takes no mail: it starts or drains, its disk is full, its store does not work
    #[arg(long)]
    ready: bool,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    let dir = place.data_dir.display();
    let dead = |why: String| CommandError::new(Exit::Unavailable, why);
    // The file of one that was killed stays young for a while.
    if place::running(&place.data_dir)?.is_none() {
        return Err(dead(format!("no gateway runs on {dir}")));
    }
    let (readiness, age) = health::read(&place.data_dir)
        .map_err(|error| dead(format!("{dir}/health cannot be read: {error}")))?;
    if age > STALE {
        return Err(dead(format!(
            "the gateway on {dir} does not work: it last said that it does {} ago",
            output::span(age)
        )));
    }
    if arguments.ready && !readiness.ready {
        return Err(CommandError::new(
            Exit::Later,
            format!("the gateway takes no mail: {}", readiness.reason()),
        ));
    }
    let said = if readiness.ready {
        "ready"
    } else {
        "alive, but it takes no mail"
    };
    output::line(said)?;
    Ok(Exit::Ok)
}

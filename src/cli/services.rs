//! `postern services`: what `service = "NAME"` of an smtp connector may be.

use super::{
    exit::{Ended, Exit},
    output,
};
use crate::connector::services;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    if arguments.json {
        let list: Vec<_> = services::all()
            .iter()
            .map(|service| {
                serde_json::json!({
                    "name": service.name,
                    "host": service.host,
                    "port": service.port,
                    "tls": service.tls.as_str(),
                    "connections": service.connections(),
                })
            })
            .collect();
        output::json(&list)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = services::all()
        .iter()
        .map(|service| {
            vec![
                service.name.to_owned(),
                service.host.to_owned(),
                service.port.to_string(),
                service.tls.as_str().to_owned(),
                service.connections().to_string(),
            ]
        })
        .collect();
    let mut out = Vec::new();
    output::table(
        &mut out,
        &["SERVICE", "HOST", "PORT", "TLS", "CONNECTIONS"],
        &rows,
    )?;
    output::lines(&out)?;
    Ok(Exit::Ok)
}

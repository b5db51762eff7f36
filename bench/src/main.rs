//! `postern-bench`: measures SMTP relays beside each other. See `bench/README.md`.

mod delay;
mod disk;
mod load;
mod message;
mod postgres;
mod rest;
mod round;
mod shake;
mod sink;
mod tls;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Measures SMTP relays beside each other")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// One scenario against one relay that sends on to the sink opened here; prints one line of JSON
    Round(round::Options),
    /// Mail for a relay whose smarthost is away: it stays in the queue; prints one line of JSON
    Fill(rest::Fill),
    /// Connections that say EHLO and nothing more, until standard input ends; prints how many stand
    Hold(rest::Hold),
    /// The same octets by raw group commit, the limit of the disk; prints one line of JSON
    Disk(disk::Options),
    /// The statements of a queue in PostgreSQL without a gateway, the limit of the database; prints one line of JSON
    Postgres(postgres::Options),
    /// A line over a distance: a pipe to an upstream that delays what goes through it, until standard input ends; prints its address, and
    /// at the end one line of JSON
    Delay(delay::Options),
    /// Handshakes of TLS by STARTTLS, one a connection; prints one line of JSON
    Shake(shake::Options),
    /// A certificate for the sink and the relays: cert.pem and key.pem in this folder
    Cert { dir: PathBuf },
}

fn main() -> Result<()> {
    let Arguments { verb } = Arguments::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    match verb {
        Verb::Round(options) => println!("{}", serde_json::to_string(&round::run(&options)?)?),
        Verb::Fill(options) => println!("{}", rest::fill(&options)?),
        Verb::Hold(options) => rest::hold(&options)?,
        Verb::Disk(options) => println!("{}", disk::run(&options)?),
        Verb::Postgres(options) => println!("{}", postgres::run(&options)?),
        Verb::Delay(options) => delay::run(&options)?,
        Verb::Shake(options) => println!("{}", serde_json::to_string(&shake::run(&options)?)?),
        Verb::Cert { dir } => tls::make(&dir)?,
    }
    Ok(())
}

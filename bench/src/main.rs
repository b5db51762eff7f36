//! `postern-bench`: measures SMTP relays beside each other. See `bench/README.md`.

mod load;
mod message;
mod round;
mod sink;
mod tls;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
}

fn main() -> Result<()> {
    let Arguments { verb } = Arguments::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    match verb {
        Verb::Round(options) => {
            println!("{}", serde_json::to_string(&round::run(&options)?)?);
            Ok(())
        }
    }
}

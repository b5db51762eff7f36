//! Loads without a sink: mail that stays in the relay, and connections that do nothing.
//!
//! Apart from `round`, which follows every message to its end.

use crate::{load, round};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::io::Read as _;
use std::net::SocketAddr;

/// Mail that stays.
#[derive(Args)]
pub struct Fill {
    /// The relay
    #[arg(long)]
    target: SocketAddr,
    /// Connections at a time
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Messages in all
    #[arg(long)]
    messages: usize,
    /// Octets of each message
    #[arg(long, default_value_t = 10_240)]
    size: usize,
}

/// Connections that stay.
#[derive(Args)]
pub struct Hold {
    /// The relay
    #[arg(long)]
    target: SocketAddr,
    /// How many
    #[arg(long, default_value_t = 1000)]
    connections: usize,
}

fn plan(target: SocketAddr, sessions: usize, messages: usize, size: usize) -> load::Plan {
    load::Plan {
        target,
        others: Vec::new(),
        sessions,
        messages,
        size,
        one_each: false,
        tls: None,
    }
}

fn block_on<F: Future>(work: F) -> Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(tokio::task::LocalSet::new().run_until(work)))
}

/// Sends, and says how many were taken and how fast.
pub fn fill(options: &Fill) -> Result<Value> {
    let plan = plan(
        options.target,
        options.sessions,
        options.messages,
        options.size,
    );
    let seen = block_on(load::run(&plan))??;
    let accepted = seen.accepted.len();
    let (p50, p99) = round::percentiles(seen.waits);
    Ok(json!({
        "accepted": accepted,
        "accepted_per_second": accepted as f64 / seen.took.as_secs_f64().max(1e-9),
        "wait_p50_ms": p50,
        "wait_p99_ms": p99,
        "faults": seen.faults.len(),
        "fault": seen.faults.first(),
    }))
}

/// Connects, says EHLO on each, and waits for the end of standard input.
pub fn hold(options: &Hold) -> Result<()> {
    let plan = plan(options.target, 1, 0, 0);
    block_on(async {
        let mut lines = Vec::new();
        for _ in 0..options.connections {
            lines.push(load::Line::open(&plan).await?);
        }
        println!("{}", lines.len());
        std::io::stdin().read_to_end(&mut Vec::new())?;
        anyhow::Ok(())
    })?
}

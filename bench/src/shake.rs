//! Handshakes of TLS: connections that take up STARTTLS anew, say EHLO and go. No session is gone on with.

use crate::load::{Line, Plan};
use crate::tls;
use anyhow::{Result, bail};
use serde::Serialize;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Options {
    /// The relay.
    #[arg(long)]
    target: SocketAddr,
    /// Connections at once.
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    /// Handshakes in all.
    #[arg(long, default_value_t = 2000)]
    count: usize,
}

/// What came of it.
#[derive(Serialize)]
pub struct Shaken {
    handshakes: usize,
    handshakes_per_second: f64,
    faults: usize,
}

/// Does it, and prints nothing.
pub fn run(options: &Options) -> Result<Shaken> {
    let mut client = (*tls::client()).clone();
    client.resumption = rustls::client::Resumption::disabled();
    let plan = Plan {
        target: options.target,
        others: Vec::new(),
        sessions: options.sessions,
        messages: 0,
        size: 0,
        one_each: true,
        tls: Some(Arc::new(client)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let (left, faults) = (Rc::new(Cell::new(options.count)), Rc::new(Cell::new(0)));
        let start = Instant::now();
        let tasks: Vec<_> = (0..options.sessions)
            .map(|_| {
                let (plan, left, faults) = (plan.clone(), left.clone(), faults.clone());
                tokio::task::spawn_local(async move {
                    while left.get() > 0 {
                        left.set(left.get() - 1);
                        if Line::open(&plan).await.is_err() {
                            faults.set(faults.get() + 1);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        let handshakes = options.count - faults.get();
        if handshakes == 0 {
            bail!("no handshake succeeded");
        }
        Ok(Shaken {
            handshakes,
            handshakes_per_second: handshakes as f64 / start.elapsed().as_secs_f64(),
            faults: faults.get(),
        })
    })
}

//! One scenario against one relay: open the sink, send, wait for the last arrival, and say what was seen.

use crate::{load, sink, tls};
use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;

/// What to send, where, and how.
#[derive(Args, Clone)]
pub struct Options {
    /// The relay; of several, sessions go to each in turn
    #[arg(long, required = true)]
    pub target: Vec<SocketAddr>,
    /// Where the relay sends to: opened here
    #[arg(long)]
    pub sink: SocketAddr,
    /// Connections at a time
    #[arg(long, default_value_t = 50)]
    pub sessions: usize,
    /// Messages in all
    #[arg(long, default_value_t = 2000)]
    pub messages: usize,
    /// Octets of each message
    #[arg(long, default_value_t = 10_240)]
    pub size: usize,
    /// A connection for every message
    #[arg(long)]
    pub one_each: bool,
    /// STARTTLS towards the relay
    #[arg(long)]
    pub tls_in: bool,
    /// The sink offers STARTTLS with cert.pem and key.pem of this folder
    #[arg(long)]
    pub tls_out: Option<PathBuf>,
    /// Seconds without an arrival after which the rest counts as lost
    #[arg(long, default_value_t = 15)]
    pub quiet: u64,
}

/// What one scenario gave.
#[derive(Serialize, Clone, Debug)]
pub struct Measured {
    /// 250s after the dot.
    pub accepted: usize,
    /// 250s for each second, from the first connect to the last 250.
    pub accepted_per_second: f64,
    /// Arrivals for each second, from the first connect to the last arrival.
    pub end_to_end_per_second: f64,
    /// Arrivals for each second, from the first to the last of them.
    pub arrivals_per_second: f64,
    /// Dot to 250, milliseconds.
    pub wait_p50_ms: f64,
    /// Dot to 250, milliseconds.
    pub wait_p99_ms: f64,
    /// Accepted with a 250, never seen at the sink.
    pub lost: usize,
    /// Arrivals above one, of all numbers.
    pub duplicates: usize,
    /// Arrivals with another body than was sent.
    pub damaged: usize,
    /// Sessions that broke off.
    pub faults: usize,
    /// The first of them in words.
    pub fault: Option<String>,
    /// Connections that the relay opened to the sink.
    pub connections_out: usize,
}

/// Runs one scenario.
pub fn run(options: &Options) -> Result<Measured> {
    let acceptor = match &options.tls_out {
        Some(dir) => Some(TlsAcceptor::from(tls::server(dir)?)),
        None => None,
    };
    let sink = sink::Sink::open(options.sink, acceptor)?;
    measure(options, &sink)
}

/// Runs one scenario with a sink that is open already.
pub fn measure(options: &Options, sink: &sink::Sink) -> Result<Measured> {
    sink.expect(options.messages);
    let plan = load::Plan {
        target: *options.target.first().context("no target")?,
        others: options.target[1..].to_vec(),
        sessions: options.sessions,
        messages: options.messages,
        size: options.size,
        one_each: options.one_each,
        tls: options.tls_in.then(tls::client),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let start = Instant::now();
    let seen = runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let seen = load::run(&plan).await?;
        sink.wait_for(&seen.accepted, Duration::from_secs(options.quiet))
            .await;
        anyhow::Ok(seen)
    }))?;
    let times = sink.count.times.lock().expect("lock").clone();
    let (wait_p50_ms, wait_p99_ms) = percentiles(seen.waits);
    let at = |when: &AtomicU64| Duration::from_nanos(when.load(Ordering::SeqCst));
    let (first, last) = (at(&sink.count.first), at(&sink.count.last));
    let flow = last.saturating_sub(first);
    let last = last.saturating_sub(start.duration_since(sink.start));
    let (lost, duplicates) = tally(&seen.accepted, &times);
    let unique = times.iter().filter(|&&n| n > 0).count();
    Ok(Measured {
        accepted: seen.accepted.len(),
        accepted_per_second: seen.accepted.len() as f64 / seen.took.as_secs_f64().max(1e-9),
        end_to_end_per_second: unique as f64 / last.as_secs_f64().max(1e-9),
        arrivals_per_second: unique.saturating_sub(1) as f64 / flow.as_secs_f64().max(1e-9),
        wait_p50_ms,
        wait_p99_ms,
        lost,
        duplicates,
        damaged: sink.count.damaged.load(Ordering::SeqCst),
        faults: seen.faults.len(),
        fault: seen.faults.first().cloned(),
        connections_out: sink.count.connections.load(Ordering::SeqCst),
    })
}

/// The median and the 99th percentile, in milliseconds.
pub fn percentiles(mut waits: Vec<u64>) -> (f64, f64) {
    waits.sort_unstable();
    let at = |share: f64| {
        waits
            .get(((waits.len() as f64 - 1.0) * share).round() as usize)
            .map_or(0.0, |&n| n as f64 / 1e6)
    };
    (at(0.5), at(0.99))
}

/// How many of the accepted never arrived, and how many arrivals were one too many.
fn tally(accepted: &[usize], times: &[u8]) -> (usize, usize) {
    let lost = accepted
        .iter()
        .filter(|&&n| times.get(n).is_none_or(|&n| n == 0))
        .count();
    let again = times
        .iter()
        .map(|&n| usize::from(n).saturating_sub(1))
        .sum();
    (lost, again)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(target: SocketAddr, sink: SocketAddr) -> Options {
        Options {
            target: vec![target],
            sink,
            sessions: 3,
            messages: 20,
            size: 2000,
            one_each: false,
            tls_in: false,
            tls_out: None,
            quiet: 1,
        }
    }

    fn sink() -> sink::Sink {
        sink::Sink::open("127.0.0.1:0".parse().unwrap(), None).unwrap()
    }

    #[test]
    fn straight_to_the_sink_all_arrives_once() {
        let sink = sink();
        let measured = measure(&options(sink.address, sink.address), &sink).unwrap();
        let wrong = (
            measured.lost,
            measured.duplicates,
            measured.damaged,
            measured.faults,
        );
        assert_eq!((measured.accepted, wrong), (20, (0, 0, 0, 0)));
    }

    #[test]
    fn a_relay_that_keeps_everything_has_lost_it() {
        let (relay, sink) = (sink(), sink());
        relay.expect(20);
        let measured = measure(&options(relay.address, sink.address), &sink).unwrap();
        assert_eq!((measured.accepted, measured.lost), (20, 20));
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let waits = (1..=101).rev().map(|n| n * 1_000_000).collect();
        assert_eq!(percentiles(waits), (51.0, 100.0));
        assert_eq!(percentiles(Vec::new()), (0.0, 0.0));
    }

    #[test]
    fn what_is_lost_and_what_came_twice() {
        assert_eq!(tally(&[0, 1, 2], &[1, 1, 1]), (0, 0));
        assert_eq!(tally(&[0, 1, 2], &[1, 0, 3]), (1, 2));
        assert_eq!(tally(&[7], &[1]), (1, 0));
    }
}

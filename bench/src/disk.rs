//! The limit of the disk: producers hand records to one writer, which appends all that wait to a preallocated file, syncs
//! once, and answers them all. Nothing is parsed, kept in order or found again: no store that answers after its sync is faster.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

/// Octets of the file; at its end the writer begins anew.
const SEGMENT: u64 = 256 << 20;

/// What to write.
#[derive(Args)]
pub struct Options {
    /// Where the file is made
    #[arg(long)]
    pub dir: PathBuf,
    /// Producers, each waiting for its record to be on disk before the next
    #[arg(long, default_value_t = 50)]
    pub producers: usize,
    /// Records in all
    #[arg(long, default_value_t = 5000)]
    pub messages: usize,
    /// Octets of each record
    #[arg(long, default_value_t = 10_240)]
    pub size: usize,
}

/// Writes them, and says how many a second were on disk.
pub fn run(options: &Options) -> Result<Value> {
    let path = options.dir.join(format!("group-commit-{}", std::process::id()));
    let mut file = std::fs::File::create(&path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT)?;
    file.sync_all()?;
    let (inbox, records) = channel::<Sender<()>>();
    let record: Vec<u8> = (0..options.size).map(|n| (n * 31 % 251) as u8).collect();
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let (mut written, mut syncs) = (0_usize, 0_usize);
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..options.producers {
            let (inbox, next) = (inbox.clone(), &next);
            scope.spawn(move || {
                while next.fetch_add(1, Ordering::Relaxed) < options.messages {
                    let (done, answer) = channel();
                    if inbox.send(done).is_err() || answer.recv().is_err() {
                        return;
                    }
                }
            });
        }
        drop(inbox);
        let mut at = 0;
        let mut batch = Vec::new();
        while let Ok(first) = records.recv() {
            let mut waiting = vec![first];
            waiting.extend(records.try_iter());
            batch.clear();
            for _ in &waiting {
                batch.extend_from_slice(&record);
            }
            if at + batch.len() as u64 > SEGMENT {
                at = file.seek(SeekFrom::Start(0))?;
            }
            file.write_all(&batch)?;
            file.sync_data()?;
            at += batch.len() as u64;
            written += waiting.len();
            syncs += 1;
            for done in waiting {
                let _ = done.send(());
            }
        }
        Ok(())
    })?;
    let took = start.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(json!({
        "accepted": written,
        "accepted_per_second": written as f64 / took.max(1e-9),
        "syncs": syncs,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_written_and_syncs_are_shared() {
        let options = Options {
            dir: std::env::temp_dir(),
            producers: 8,
            messages: 200,
            size: 1000,
        };
        let said = run(&options).unwrap();
        let number = |key: &str| said[key].as_u64().unwrap();
        assert_eq!(number("accepted"), 200);
        assert!((1..=200).contains(&number("syncs")), "{said}");
    }
}

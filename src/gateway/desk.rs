//! What is done for `window.db` beside the page: who was seen is written down, and what commands ask by rows is done.
//!
//! Nothing of the mail waits for it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tracing::warn;

use super::instruments::Instruments;
use crate::{
    listener::{
        Shared,
        captures::bounded,
        devices::DEVICES,
        learning::{self, LearningView},
    },
    window::{
        WindowDb,
        asked::{self, OperatorWish, WishAnswer},
        devices,
    },
};

/// How often it is looked what was asked.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is written who was seen.
const WRITE: Duration = Duration::from_secs(30);
/// The end of the gateway waits so long for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    window: Arc<WindowDb>,
    shared: Arc<Shared>,
    /// Ends with it.
    _clerk: JoinSet<()>,
}

#[derive(Debug)]
struct Clerk {
    window: Arc<WindowDb>,
    shared: Arc<Shared>,
    instruments: Arc<Instruments>,
    tell: mpsc::Sender<()>,
    /// Captures that commands wait for, with the rows that asked.
    captures: Vec<(i64, String)>,
    learning: Option<LearningView>,
}

impl Desk {
    /// Begins; `tell` hears when what `status` shows has changed.
    pub(super) fn start(
        window: &Arc<WindowDb>,
        shared: &Arc<Shared>,
        instruments: &Arc<Instruments>,
        tell: mpsc::Sender<()>,
    ) -> Self {
        let clerk = Clerk {
            window: Arc::clone(window),
            shared: Arc::clone(shared),
            instruments: Arc::clone(instruments),
            tell,
            captures: Vec::new(),
            learning: None,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(clerk.run());
        Self {
            window: Arc::clone(window),
            shared: Arc::clone(shared),
            _clerk: tasks,
        }
    }

    /// The last time.
    pub(super) async fn finish(self) {
        let _ = tokio::time::timeout(PATIENCE, write(&self.window, &self.shared)).await;
    }
}

impl Clerk {
    async fn run(mut self) {
        let recalled = self.window.run(|tx| {
            asked::forget_all(tx)?;
            devices::latest(tx, DEVICES)
        });
        match recalled.await {
            Ok(rows) => self.shared.devices.recall(rows),
            Err(error) => {
                warn!(event = "devices", error = %error, "who was seen before is not known");
            }
        }
        let (mut version, mut written) = (None, Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.window.version().await.ok();
            if now != version || now.is_none() {
                version = now;
                self.answer().await;
            }
            self.tell_captures().await;
            let learning = self.shared.learning.view();
            if learning != self.learning {
                self.learning = learning;
                // It is told already where it is full.
                let _ = self.tell.try_send(());
            }
            if written.elapsed() >= WRITE {
                written = Instant::now();
                write(&self.window, &self.shared).await;
            }
        }
    }

    /// Does what was asked since the last look.
    async fn answer(&mut self) {
        // Asked again in a second.
        let Ok(open) = self.window.read(asked::open).await else {
            return;
        };
        for (id, wish) in open {
            let answer = match wish {
                Some(wish) => self.carry_out(id, wish),
                None => WishAnswer::Refused("this gateway is another version".to_owned()),
            };
            self.window.later(move |tx| asked::answer(tx, id, &answer));
        }
    }

    fn carry_out(&mut self, id: i64, wish: OperatorWish) -> WishAnswer {
        let Shared {
            learning, captures, ..
        } = &*self.shared;
        match wish {
            OperatorWish::Learn {
                networks,
                seconds,
                external,
            } => {
                let length = Duration::from_secs(seconds);
                match learning::bounded(&networks, length) {
                    Ok(networks) => {
                        WishAnswer::Done(learning.begin(networks, length, external).until)
                    }
                    Err(why) => WishAnswer::Refused(why),
                }
            }
            OperatorWish::Unlearn => {
                if learning.stop() {
                    WishAnswer::Done(String::new())
                } else {
                    WishAnswer::Refused("nothing is learned".to_owned())
                }
            }
            OperatorWish::Capture { address, seconds } => {
                match bounded(&address, Duration::from_secs(seconds)) {
                    Ok((address, length)) => {
                        let capture = captures.begin(address, length, true);
                        self.captures.push((id, capture.clone()));
                        WishAnswer::Done(capture)
                    }
                    Err(why) => WishAnswer::Refused(why),
                }
            }
            OperatorWish::Credentials => {
                self.instruments.ends.asked.notify_one();
                WishAnswer::Done(String::new())
            }
            OperatorWish::Release { capture } => {
                for (_, of) in self.captures.iter().filter(|(id, _)| *id == capture) {
                    captures.end(of);
                }
                WishAnswer::Done(String::new())
            }
        }
    }

    /// The commands get what was said since the last look.
    async fn tell_captures(&mut self) {
        for (id, capture) in std::mem::take(&mut self.captures) {
            let (lines, is_over) = self
                .shared
                .captures
                .take_told(&capture)
                .unwrap_or((Vec::new(), true));
            if !is_over {
                self.captures.push((id, capture));
            }
            if !lines.is_empty() || is_over {
                let told =
                    move |tx: &rusqlite::Transaction<'_>| asked::tell(tx, id, &lines, is_over);
                // What cannot be told is kept in memory all the same.
                let _ = self.window.run(told).await;
            }
        }
    }
}

async fn write(window: &WindowDb, shared: &Shared) {
    let (changed, gone) = shared.devices.take_changes();
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    let rows = Arc::new((changed, gone));
    let again = Arc::clone(&rows);
    let written = window
        .run(move |tx| devices::write(tx, &rows.0, &rows.1))
        .await;
    if let Err(error) = written {
        warn!(event = "devices", error = %error, "who was seen could not be written down");
        shared.devices.still_changed(&again.0, again.1.clone());
    }
}

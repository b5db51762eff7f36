//! What waits to be written, and how much of it goes into one transaction: as long as another one is under way, a small one waits for company.
//!
//! A commit costs the server about as much for one message as for ten. Several gateways on one database have each a share of the mail,
//! so without this they would commit several times as often as one of them alone.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::{Mutex, Notify, mpsc};

/// Operations of one transaction.
const BATCH: usize = 64;
/// With so many it waits for no more.
const COMPANY: usize = 32;
/// So long it waits for them: about what a commit takes.
const PATIENCE: Duration = Duration::from_millis(5);

/// Where those who write find their work.
#[derive(Debug)]
pub(super) struct WriteTray<T> {
    work: Mutex<mpsc::Receiver<T>>,
    under_way: AtomicUsize,
    ended: Notify,
}

/// A transaction under way, until it is dropped.
pub(super) struct UnderWay<'a, T>(&'a WriteTray<T>);

impl<T> Drop for UnderWay<'_, T> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        // Whoever gathers may be the only one now.
        self.0.ended.notify_one();
    }
}

impl<T> WriteTray<T> {
    pub(super) fn new(work: mpsc::Receiver<T>) -> Self {
        Self {
            work: Mutex::new(work),
            under_way: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    /// What goes into the next transaction, in the order in which it came. `None`: there will be no more.
    ///
    /// It is at once what waits, while no other transaction is under way, and else what came until there is enough, or time is over.
    pub(super) async fn take(&self) -> Option<(Vec<T>, UnderWay<'_, T>)> {
        let mut work = self.work.lock().await;
        let mut batch = vec![work.recv().await?];
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            while batch.len() < BATCH
                && let Ok(next) = work.try_recv()
            {
                batch.push(next);
            }
            if batch.len() >= COMPANY || self.under_way.load(Ordering::Acquire) == 0 {
                break;
            }
            tokio::select! {
                () = &mut patience => break,
                () = self.ended.notified() => {}
                next = work.recv() => match next {
                    Some(next) => batch.push(next),
                    None => break,
                },
            }
        }
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Some((batch, UnderWay(self)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    fn tray() -> (mpsc::Sender<usize>, WriteTray<usize>) {
        let (inbox, work) = mpsc::channel(1024);
        (inbox, WriteTray::new(work))
    }

    async fn fill(inbox: &mpsc::Sender<usize>, count: usize) {
        for n in 0..count {
            inbox.send(n).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_transaction_waits_for_nobody() {
        let (inbox, tray) = tray();
        let begun = Instant::now();
        fill(&inbox, 3).await;
        let (batch, _) = tray.take().await.unwrap();
        assert_eq!(batch, [0, 1, 2]);
        fill(&inbox, 1).await;
        let (batch, _) = tray.take().await.unwrap();
        assert_eq!((batch, begun.elapsed()), (vec![0], Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn beside_another_it_waits_for_company_but_not_for_long() {
        let (inbox, tray) = tray();
        fill(&inbox, 1).await;
        let (_, _first) = tray.take().await.unwrap();
        let begun = Instant::now();
        fill(&inbox, 1).await;
        let later = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            fill(&inbox, 2).await;
        };
        let (taken, ()) = tokio::join!(tray.take(), later);
        assert_eq!(taken.unwrap().0, [0, 0, 1]);
        assert!(
            begun.elapsed() <= Duration::from_millis(6),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn enough_goes_at_once_and_never_too_much() {
        let (inbox, tray) = tray();
        fill(&inbox, 1).await;
        let (_, _first) = tray.take().await.unwrap();
        let begun = Instant::now();
        fill(&inbox, COMPANY).await;
        let (batch, _second) = tray.take().await.unwrap();
        assert_eq!((batch.len(), begun.elapsed()), (COMPANY, Duration::ZERO));
        fill(&inbox, 100).await;
        let (batch, _third) = tray.take().await.unwrap();
        assert_eq!((batch.len(), begun.elapsed()), (BATCH, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_as_soon_as_the_other_has_ended_and_ends_with_the_last() {
        let (inbox, tray) = tray();
        fill(&inbox, 1).await;
        let (_, first) = tray.take().await.unwrap();
        fill(&inbox, 1).await;
        let begun = Instant::now();
        let ends = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(first);
        };
        let (taken, ()) = tokio::join!(tray.take(), ends);
        assert_eq!(taken.unwrap().0, [0]);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        drop(inbox);
        let last = timeout(Duration::from_secs(1), tray.take()).await.unwrap();
        assert!(last.is_none());
    }
}

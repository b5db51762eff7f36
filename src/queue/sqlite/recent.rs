//! Mail that was accepted a moment ago and waits for its turn: kept in memory too, so that a claim need not read it back.
//!
//! It is a copy and never the truth: what is not here is read from the store, and what is here is given out
//! only for a row that the store has just leased. It is bounded, and forgets what nobody comes for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::claim::Leased;
use crate::{
    mail::{
        message::{Body, Message, MessageId},
        recipient::Recipient,
    },
    queue::store::{Job, JobId},
    route::Routed,
};

/// Octets that are kept at most. What is due first is claimed first, so what comes when it is full is left out.
const ROOM: usize = 16 * 1024 * 1024;
/// What one entry takes besides its content, roughly.
const ENTRY: usize = 1024;
/// What was not claimed by then is not about to be: it waits for something.
const RECENT: Duration = Duration::from_secs(20);
/// Between two looks for what is that old.
const LOOK: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RecentMail(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    jobs: HashMap<JobId, RecentEntry>,
    octets: usize,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct RecentEntry {
    message: Arc<Message>,
    recipients: Vec<Recipient>,
    octets: usize,
    since: Instant,
}

impl RecentMail {
    /// Keeps a message whose jobs were just inserted, if there is room.
    pub(super) fn put(&self, mail: &Routed, jobs: &[JobId], now: Instant) {
        let message = &mail.message;
        // What is in a file is looked at when it is claimed: whether it still is what it was.
        let Body::Memory(body) = &message.body else {
            return;
        };
        let to = &message.envelope.recipients;
        let originals = to
            .iter()
            .filter_map(|to| to.dsn.as_ref()?.original.as_ref());
        let addresses = to.len() * 128 + originals.map(String::len).sum::<usize>();
        let octets = ENTRY + message.header.len() + body.len() + addresses;
        let mut inner = self.lock();
        inner.tidy(now);
        for (job, (_, recipients)) in jobs.iter().zip(&mail.jobs) {
            if inner.octets + octets > ROOM {
                return;
            }
            let entry = RecentEntry {
                message: Arc::clone(message),
                recipients: recipients.clone(),
                octets,
                since: now,
            };
            inner.octets += octets;
            if let Some(old) = inner.jobs.insert(*job, entry) {
                inner.octets -= old.octets;
            }
        }
    }

    /// Takes out a job that was just leased for its first attempt, if it is here and of that message (the numbers of rows
    /// that were deleted are given again).
    fn take(&self, job: JobId, id: MessageId) -> Option<(Arc<Message>, Vec<Recipient>)> {
        let mut inner = self.lock();
        let entry = inner.jobs.remove(&job)?;
        inner.octets -= entry.octets;
        (entry.message.id == id).then_some((entry.message, entry.recipients))
    }

    /// A job just leased whose message is still here: at its first attempt all of its recipients are open.
    pub(super) fn job(&self, leased: &Leased) -> Option<Job> {
        let (message, recipients) = self.take(JobId(leased.id), leased.of)?;
        let is_first = leased.attempts == 0 && leased.pinned.is_empty();
        is_first.then(|| leased.with(message, recipients))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Forgets what is old, now and then.
    fn tidy(&mut self, now: Instant) {
        if self.looked.is_none_or(|at| now >= at + LOOK) {
            self.looked = Some(now);
            self.jobs.retain(|_, entry| now < entry.since + RECENT);
            self.octets = self.jobs.values().map(|entry| entry.octets).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::{
        fixture::{self, address},
        mail::message::Envelope,
        route::RouteName,
    };

    fn mail(number: u128, octets: usize) -> Routed {
        let to: Recipient = address("b@corp.example").into();
        Routed {
            message: Arc::new(Message {
                id: MessageId::new(SystemTime::UNIX_EPOCH, number),
                envelope: Envelope {
                    sender: None,
                    recipients: vec![to.clone()],
                    eight_bit: false,
                    dsn: None,
                },
                origin: fixture::origin(SystemTime::UNIX_EPOCH),
                header: Bytes::from_static(b"Subject: x\r\n"),
                body: Body::Memory(Bytes::from(vec![b'x'; octets])),
            }),
            jobs: vec![(RouteName::from("r"), vec![to])],
            copies: Vec::new(),
        }
    }

    #[test]
    fn what_was_put_is_taken_once() {
        let (recent, now) = (RecentMail::default(), Instant::now());
        let one = mail(1, 10);
        recent.put(&one, &[JobId(7)], now);
        let (message, recipients) = recent.take(JobId(7), one.message.id).unwrap();
        assert_eq!((message.id, recipients.len()), (one.message.id, 1));
        assert!(recent.take(JobId(7), one.message.id).is_none());
        assert_eq!(recent.lock().octets, 0);
    }

    #[test]
    fn the_number_of_a_deleted_row_given_again_is_another_message() {
        let (recent, now) = (RecentMail::default(), Instant::now());
        recent.put(&mail(1, 10), &[JobId(7)], now);
        assert!(recent.take(JobId(7), mail(2, 10).message.id).is_none());
        recent.put(&mail(1, 10), &[JobId(7)], now);
        recent.put(&mail(2, 10), &[JobId(7)], now);
        assert!(recent.take(JobId(7), mail(2, 10).message.id).is_some());
        assert_eq!(recent.lock().octets, 0);
    }

    #[test]
    fn it_is_bounded_and_forgets() {
        let (recent, now) = (RecentMail::default(), Instant::now());
        for number in 0..10_000 {
            recent.put(&mail(number, 10_000), &[JobId(number as i64)], now);
        }
        let first = recent.lock().jobs.len();
        assert!(recent.lock().octets <= ROOM && (1400..1600).contains(&first));
        // What is due first is here.
        assert!(recent.lock().jobs.contains_key(&JobId(0)));
        let later = now + RECENT;
        recent.put(&mail(10_000, 10_000), &[JobId(10_000)], later);
        assert_eq!(recent.lock().jobs.len(), 1);
        // A message that is larger than all the room is left out.
        recent.put(&mail(1, ROOM), &[JobId(1)], later);
        assert_eq!(recent.lock().jobs.len(), 1);
    }
}

//! A store in memory, which can be told to fail, and a connector that follows a script: the doubles of the delivery tests.
//!
//! The store stands every case of the suite in `store.rs`, so what delivery does over it, it does over the real one. It keeps jobs
//! that are done, for the tests to look at.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use postern::mail::outcome::LaneState;
use postern::{
    connector::{Connector, Deadline},
    delivery::clock,
    mail::{
        address::Address,
        headers,
        message::{Message, MessageId},
        outcome::{Obstacle, Onward, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    queue::{
        body::BodyStore,
        settling::{self, Before},
        store::{
            Ask, Beat, CLOCK, Commanded, Due, Entry, EntryRecipient, Event, EventKind, Filter,
            FoundEntries, Health, Inserted, Job, JobId, JobState, KeepTimes, Kept, LaneRow,
            LateNotice, Lease, ListMark, Maintained, NodeId, NodeRow, RecipientState, Retention,
            Search, Settlement, Shift, Standing, Start, Stats, Store, StoreError, Used, Verb,
            Whose,
        },
        turns::{Cursors, LOOKED_AT, Pair, Pairs, RouteLane},
    },
    route::{ConnectorName, LaneId, RouteName, Routed},
};
use tokio::sync::Notify;

/// What was written while the clock was being looked at.
const MEANWHILE: Duration = Duration::from_secs(10);

/// A job; one that is done stays.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// As it is handed out, but for the recipients.
    pub(crate) job: Job,
    pub(crate) state: JobState,
    pub(crate) due: SystemTime,
    pair: Pair,
    pub(crate) recipients: Vec<Addressee>,
    wishes: Vec<Verb>,
}

#[derive(Debug, Clone)]
pub(crate) struct Addressee {
    pub(crate) address: Address,
    pub(crate) state: RecipientState,
    reply: Option<String>,
    /// When, and how it was served.
    delivery: Option<(SystemTime, String)>,
    /// In the envelope.
    position: usize,
}

impl Row {
    fn id(&self) -> MessageId {
        self.job.message.id
    }

    fn waits(&self) -> bool {
        self.state == JobState::Waiting
    }

    fn place(&self) -> RouteLane {
        let job = self.job.clone();
        (job.route, job.pinned, job.lane)
    }

    pub(crate) fn is_leased(&self) -> bool {
        self.state == JobState::Sending
    }

    fn is_of_quota(&self) -> bool {
        let lane = self.job.lane.as_ref();
        lane.is_some_and(|lane| lane.holder().is_some())
    }

    /// No quota holds it any more.
    fn let_go(&mut self) {
        if self.is_of_quota() {
            self.job.lane = None;
        }
    }

    /// What a verb means something to.
    fn takes(&self, verb: &Verb, has_content: bool) -> bool {
        match (verb, self.state) {
            (_, JobState::Done) | (Verb::Hold, JobState::Held) => false,
            (Verb::Retry, state) => match state {
                JobState::Failed => has_content,
                state => state != JobState::Held,
            },
            // In flight there is something to release only after a wish to hold.
            (Verb::Release, JobState::Sending) => !self.wishes.is_empty(),
            (Verb::Release, state) => state == JobState::Held,
            (Verb::Expire, state) => state == JobState::Held && self.is_of_quota(),
            (Verb::Hold | Verb::Fail, state) => state != JobState::Failed,
            (Verb::Drop | Verb::Reroute(_), _) => true,
        }
    }

    /// A verb on a job that is not in flight.
    fn obey(&mut self, verb: &Verb, now: SystemTime) {
        let mut turn = |from: &dyn Fn(RecipientState) -> bool, to| {
            for recipient in self.recipients.iter_mut().filter(|r| from(r.state)) {
                recipient.state = to;
            }
        };
        match verb {
            Verb::Retry => {
                turn(
                    &|state| state == RecipientState::Failed,
                    RecipientState::Waiting,
                );
                (self.state, self.due) = (JobState::Waiting, now);
            }
            Verb::Hold => self.state = JobState::Held,
            Verb::Release => {
                self.state = JobState::Waiting;
                self.let_go();
            }
            Verb::Expire => (self.state, self.due) = (JobState::Waiting, now),
            Verb::Fail => {
                turn(&RecipientState::is_open, RecipientState::Failed);
                self.state = JobState::Failed;
                self.let_go();
            }
            Verb::Drop => {
                turn(
                    &|state| state.is_open() || state == RecipientState::Failed,
                    RecipientState::Dropped,
                );
                self.state = JobState::Done;
            }
            Verb::Reroute(route) => {
                self.job.route = route.clone();
                self.job.pinned = None;
                if !self.is_of_quota() {
                    self.job.lane = None;
                }
            }
        }
    }
}

/// What waits in a lane, oldest due first, and what is claimed of it.
struct InLane<'a> {
    rows: Vec<&'a mut Row>,
    now: SystemTime,
    jobs: Vec<Job>,
}

impl InLane<'_> {
    fn take_those(&mut self, which: &dyn Fn(&Row) -> bool, limit: usize) -> usize {
        let rows = self.rows.iter_mut();
        let those = rows.filter(|row| row.waits() && row.due <= self.now && which(row));
        let before = self.jobs.len();
        self.jobs.extend(those.take(limit).map(|row| {
            row.state = JobState::Sending;
            let mut job = row.job.clone();
            let is_open = |known: &Addressee, asked: &Recipient| {
                known.state.is_open() && known.address == asked.address
            };
            job.recipients
                .retain(|asked| row.recipients.iter().any(|known| is_open(known, asked)));
            job
        }));
        self.jobs.len() - before
    }
}

impl Pairs for InLane<'_> {
    type Error = Infallible;

    fn from(&mut self, pair: Pair) -> Result<Option<(Pair, bool)>, Infallible> {
        let rows = self
            .rows
            .iter()
            .filter(|row| row.waits() && row.pair >= pair);
        let first = rows.min_by_key(|row| (row.pair, row.due));
        Ok(first.map(|row| (row.pair, row.due <= self.now)))
    }

    fn take(&mut self, pair: Pair, limit: usize) -> Result<usize, Infallible> {
        Ok(self.take_those(&|row| row.pair == pair, limit))
    }
}

/// A message, as long as it is remembered.
#[derive(Debug)]
struct Mail {
    message: Arc<Message>,
    accepted: SystemTime,
    /// When the last of its jobs ended.
    ended: Option<SystemTime>,
    has_content: bool,
    tells_late: bool,
    events: Vec<Event>,
}

/// Messages and jobs in the order in which they came.
#[derive(Debug, Default)]
struct Tables {
    mails: Vec<Mail>,
    rows: Vec<Row>,
    /// The number of the last job.
    numbers: i64,
    lanes: BTreeMap<LaneId, LaneRow>,
    notes: BTreeMap<String, String>,
    cursors: Cursors,
    /// Of gateways that have a name.
    nodes: BTreeMap<NodeId, NodeRow>,
    /// Who has which shared lane, and what was used of it when it was given back.
    holders: BTreeMap<LaneId, (Option<NodeId>, Used)>,
}

impl Tables {
    /// As one of several. The double tells members apart by their names alone: the same name is the same directory.
    fn beat(&mut self, standing: &Standing) -> Beat {
        let node = standing.node.unwrap_or_else(|| {
            let before = self.nodes.values_mut();
            let gone: Vec<NodeId> = before
                .filter(|row| row.name == standing.name)
                .map(|row| {
                    row.is_gone = true;
                    row.id
                })
                .collect();
            self.free_lanes(&gone);
            NodeId(self.nodes.len() as u64 + 1)
        });
        let row = self.nodes.entry(node).or_default();
        if !row.is_gone {
            *row = NodeRow {
                id: node,
                name: standing.name.clone(),
                token: standing.name.clone(),
                version: standing.version.clone(),
                config_hash: standing.config_hash.clone(),
                lanes: 0,
                seen: row.seen + 1,
                dead_after: standing.dead_after,
                knew: standing.knew,
                is_draining: standing.is_draining,
                is_apart: standing.is_apart,
                is_gone: standing.is_leaving,
            };
        }
        Beat {
            node,
            nodes: self.nodes.values().cloned().collect(),
            changes: 0,
        }
    }

    fn free_lanes(&mut self, gone: &[NodeId]) {
        for (holder, used) in self.holders.values_mut() {
            if holder.is_some_and(|holder| gone.contains(&holder)) {
                (*holder, *used) = (None, Used::default());
            }
        }
    }

    fn mail(&mut self, id: MessageId) -> Option<&mut Mail> {
        self.mails.iter_mut().find(|mail| mail.message.id == id)
    }

    fn row(&mut self, id: JobId) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.job.id == id)
    }

    fn tell(&mut self, id: MessageId, at: SystemTime, kind: &str, text: String) {
        let event = Event {
            at,
            kind: EventKind::parse(kind),
            recipients: Vec::new(),
            text,
        };
        self.mail(id).unwrap().events.push(event);
    }

    fn number(&mut self) -> JobId {
        self.numbers += 1;
        JobId(self.numbers)
    }

    /// `None`: there is one of this id.
    fn insert(&mut self, routed: &Routed, starts: &[Start], now: SystemTime) -> Option<Vec<JobId>> {
        let message = &routed.message;
        if self.mail(message.id).is_some() {
            return None;
        }
        self.mails.push(Mail {
            message: Arc::clone(message),
            accepted: now,
            ended: None,
            has_content: true,
            tells_late: message.envelope.sender.is_some()
                && message
                    .envelope
                    .recipients
                    .iter()
                    .any(Recipient::tells_delay),
            events: Vec::new(),
        });
        let pair = Pair::of_message(message);
        let mut jobs = Vec::new();
        for (at, (route, recipients)) in routed.jobs.iter().enumerate() {
            let id = self.number();
            let (state, lane) = match starts.get(at) {
                Some(Start::Now(..)) => (JobState::Sending, None),
                Some(Start::In(lane)) => (JobState::Waiting, Some(lane.clone())),
                Some(Start::Held(lane)) => (JobState::Held, Some(lane.clone())),
                _ => (JobState::Waiting, None),
            };
            let position = |recipient| {
                let mut envelope = message.envelope.recipients.iter();
                envelope.position(|r| r == recipient).unwrap_or(usize::MAX)
            };
            self.rows.push(Row {
                job: Job {
                    id,
                    lease: Lease::default(),
                    message: Arc::clone(message),
                    route: route.clone(),
                    recipients: recipients.clone(),
                    pinned: None,
                    lane,
                    attempts: 0,
                    accepted: now,
                },
                state,
                due: now,
                pair,
                recipients: recipients
                    .iter()
                    .map(|recipient| Addressee {
                        address: recipient.address.clone(),
                        state: RecipientState::Waiting,
                        reply: None,
                        delivery: None,
                        position: position(recipient),
                    })
                    .collect(),
                wishes: Vec::new(),
            });
            jobs.push(id);
        }
        for copy in &routed.copies {
            self.insert(copy, &[], now);
        }
        Some(jobs)
    }

    fn lease(&mut self, ask: &Ask, now: SystemTime) -> Vec<Job> {
        let place = ask.place();
        let mut rows: Vec<&mut Row> = self
            .rows
            .iter_mut()
            .filter(|row| row.waits() && row.place() == place)
            .collect();
        rows.sort_by_key(|row| row.due);
        let jobs = Vec::new();
        let mut lane = InLane { rows, now, jobs };
        let Ok(_) = match ask.whose {
            Whose::InTurns => self
                .cursors
                .of(place)
                .claim(&mut lane, ask.limit)
                .map(|()| 0),
            Whose::Of(pair) => lane.take(pair, ask.limit),
            Whose::AcceptedBy(by) => Ok(lane.take_those(&|row| row.job.accepted <= by, ask.limit)),
        };
        lane.jobs
    }

    fn due(&self, now: SystemTime) -> Vec<Due> {
        let mut pairs: BTreeMap<_, BTreeMap<Pair, SystemTime>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.waits()) {
            let of_it = pairs.entry(row.place()).or_default();
            let first = of_it.entry(row.pair).or_insert(row.due);
            *first = row.due.min(*first);
        }
        let due = pairs.into_iter().map(|((route, pinned, lane), pairs)| {
            let at = pairs.values().take(LOOKED_AT).min().copied().unwrap();
            let is_more = pairs.len() > LOOKED_AT;
            Due {
                route,
                pinned,
                lane,
                at: if is_more { at.min(now) } else { at },
                whose: Whose::met(*pairs.keys().next().unwrap(), pairs.len()),
            }
        });
        due.collect()
    }

    fn settle(&mut self, settlement: &Settlement, now: SystemTime, is_strict: bool) {
        let Some(row) = self.row(settlement.job) else {
            assert!(!is_strict, "a settlement for a job that is not there");
            return;
        };
        assert!(
            row.state == JobState::Sending || !is_strict,
            "settled without a lease"
        );
        let before = Before {
            pinned: row.job.pinned.clone(),
            attempts: row.job.attempts,
            recipients: row
                .recipients
                .iter()
                .map(|r| (r.address.to_string(), r.state))
                .collect(),
        };
        let after = settling::apply(&before, settlement);
        assert!(
            after.strangers.is_empty() || !is_strict,
            "{:?}",
            after.strangers
        );
        for change in &after.changes {
            let recipient = &mut row.recipients[change.at];
            recipient.state = change.state;
            recipient.reply = Some(change.reply.clone());
            recipient.delivery = change.delivery.map(|event| (event.at, event.text.clone()));
        }
        row.job.attempts = after.attempts;
        let wishes = std::mem::take(&mut row.wishes);
        let mut parts = Vec::new();
        for split in &after.splits {
            let mut part = row.clone();
            (part.state, part.due) = (JobState::Waiting, split.due);
            (part.job.pinned, part.job.lane) = (split.pinned.clone(), None);
            part.recipients = split
                .recipients
                .iter()
                .map(|at| row.recipients[*at].clone())
                .collect();
            parts.push(part);
        }
        let leaves = |at: &usize| after.splits.iter().any(|s| s.recipients.contains(at));
        let mut at = 0..;
        row.recipients
            .retain(|_| at.next().is_none_or(|at| !leaves(&at)));
        match after.job {
            None => row.state = JobState::Done,
            Some(standing) => {
                row.state = if standing.is_failed {
                    JobState::Failed
                } else {
                    JobState::Waiting
                };
                row.due = standing.due;
                (row.job.pinned, row.job.lane) = (standing.pinned, standing.lane);
            }
        }
        let mut jobs = vec![settlement.job];
        for mut part in parts {
            part.job.id = self.number();
            jobs.push(part.job.id);
            self.rows.push(part);
        }
        let events = settlement
            .events
            .iter()
            .filter(|e| e.kind != EventKind::Delivered);
        let mail = self.mail(settlement.message).unwrap();
        mail.events.extend(events.cloned());
        for report in settlement.reports() {
            self.insert(report, &[], now);
        }
        for wish in wishes {
            self.apply(&wish, &jobs, now);
        }
        self.close(settlement.message, now);
    }

    /// Somebody still waits for it.
    fn is_open(&self, mail: &Mail) -> bool {
        let mut rows = self.rows.iter().filter(|row| row.id() == mail.message.id);
        rows.any(|row| (row.state as usize) < JobState::Failed as usize)
    }

    /// Ends a message whose jobs have all ended; without a failed recipient its content goes at once.
    fn close(&mut self, id: MessageId, now: SystemTime) {
        let of_it = self.rows.iter().filter(|row| row.id() == id);
        let least = of_it.map(|row| row.state as usize).min();
        let mail = self.mail(id).unwrap();
        if least.is_some_and(|least| least < JobState::Failed as usize) {
            return;
        }
        mail.ended.get_or_insert(now);
        if least != Some(JobState::Failed as usize) {
            mail.has_content = false;
        }
    }

    /// The entries that a filter takes, with their jobs, oldest first.
    fn entries(&self, filter: &Filter) -> Vec<(&Mail, RouteName, Vec<&Row>)> {
        let mut found = Vec::new();
        for mail in &self.mails {
            let of_it = || self.rows.iter().filter(|r| r.id() == mail.message.id);
            let routes: BTreeSet<&str> = of_it().map(|row| row.job.route.as_str()).collect();
            for route in routes {
                let rows: Vec<&Row> = of_it().filter(|r| r.job.route.as_str() == route).collect();
                let entry = entry(
                    (mail, RouteName::from(route), rows.clone()),
                    filter.subjects,
                );
                if filter.takes(&entry) && filter.limit.is_none_or(|limit| found.len() < limit) {
                    found.push((mail, RouteName::from(route), rows));
                }
            }
        }
        found
    }

    /// Newest first; the number of a message is its place.
    fn search(&self, search: &Search) -> FoundEntries {
        let mut found = FoundEntries::default();
        let place = |id| {
            self.mails
                .iter()
                .position(|mail| mail.message.id == id)
                .unwrap() as i64
        };
        let mut entries: Vec<(i64, Entry)> = self
            .entries(&search.filter)
            .into_iter()
            .map(|of| entry(of, search.filter.subjects))
            .map(|entry| (place(entry.id), entry))
            .collect();
        entries.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.route.cmp(&other.route)));
        entries.retain(|(place, entry)| {
            let Some(mark) = &search.from else {
                return true;
            };
            let behind = mark.behind.as_ref();
            *place < mark.message
                || *place == mark.message && behind.is_some_and(|behind| entry.route > *behind)
        });
        for (message, entry) in entries.into_iter().take(search.limit) {
            let behind = Some(entry.route.clone());
            found.entries.push(entry);
            if found.entries.len() == search.limit {
                found.next = Some(ListMark { message, behind });
            }
        }
        found
    }

    /// How many entries a verb would take of these jobs.
    fn count(&self, verb: &Verb, jobs: &[JobId]) -> u64 {
        let rows = self.rows.iter().filter(|row| jobs.contains(&row.job.id));
        let has_content = |id| {
            let mut mails = self.mails.iter();
            mails.any(|mail| mail.message.id == id && mail.has_content)
        };
        let taken = rows.filter(|row| row.takes(verb, has_content(row.id())));
        let taken: BTreeSet<(MessageId, &str)> = taken
            .map(|row| (row.id(), row.job.route.as_str()))
            .collect();
        taken.len() as u64
    }

    /// A verb on some jobs; the number of entries it took.
    fn apply(&mut self, verb: &Verb, jobs: &[JobId], now: SystemTime) -> u64 {
        let (kind, text) = match verb {
            Verb::Retry => ("retried", "by the operator, route "),
            Verb::Hold => ("held", "by the operator, route "),
            Verb::Release => ("released", "by the operator, route "),
            Verb::Expire => ("held", "for too long, route "),
            Verb::Fail => ("failed", "given up by the operator, route "),
            Verb::Drop => ("dropped", "by the operator, route "),
            Verb::Reroute(_) => ("rerouted", "by the operator, from route "),
        };
        let to = match verb {
            Verb::Reroute(route) => format!(" to {route}"),
            _ => String::new(),
        };
        let mut taken: BTreeMap<(MessageId, String), bool> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        for id in jobs {
            let Some(row) = self.row(*id) else { continue };
            let message = row.id();
            let mail = self.mail(message).unwrap();
            let has_content = mail.has_content;
            let row = self.row(*id).unwrap();
            if !row.takes(verb, has_content) {
                continue;
            }
            let is_sent = row.state == JobState::Sending;
            *taken
                .entry((message, row.job.route.to_string()))
                .or_default() |= is_sent;
            if is_sent {
                // Said twice it is kept once.
                if row.wishes.last() != Some(verb) {
                    row.wishes.push(verb.clone());
                }
                continue;
            }
            row.obey(verb, now);
            match verb {
                Verb::Retry => self.mail(message).unwrap().ended = None,
                Verb::Fail | Verb::Drop => {
                    ended.insert(message);
                }
                _ => {}
            }
        }
        for ((message, route), is_sent) in &taken {
            let later = if *is_sent { ", when it settles" } else { "" };
            self.tell(*message, now, kind, format!("{text}{route}{to}{later}"));
        }
        for message in ended {
            self.close(message, now);
        }
        taken.len() as u64
    }

    /// After a restart: what was leased may have been sent or not.
    fn recover(&mut self) {
        let now = SystemTime::now();
        let sending = self.rows.iter().filter(|r| r.state == JobState::Sending);
        let jobs: Vec<(JobId, MessageId)> = sending.map(|row| (row.job.id, row.id())).collect();
        for (job, message) in jobs {
            let text = "the gateway ended while it was being sent: it may arrive twice";
            self.tell(message, now, "interrupted", text.into());
            let row = self.row(job).unwrap();
            row.state = JobState::Waiting;
            for wish in std::mem::take(&mut row.wishes) {
                self.apply(&wish, &[job], now);
            }
        }
    }

    fn prune(&mut self, failed: SystemTime, history: SystemTime, now: SystemTime) -> Vec<String> {
        let mut lines = Vec::new();
        for mail in &mut self.mails {
            // By a clock that was ahead: its time begins now.
            mail.ended = mail.ended.map(|ended| ended.min(now));
            if !mail.has_content || mail.ended.is_none_or(|ended| ended > failed) {
                continue;
            }
            let id = mail.message.id;
            let mut to = Vec::new();
            for row in self.rows.iter_mut().filter(|row| row.id() == id) {
                row.state = JobState::Done;
                let failed = row.recipients.iter();
                let failed = failed.filter(|r| r.state == RecipientState::Failed);
                to.extend(failed.map(|r| r.address.to_string()));
            }
            let sender = mail.message.envelope.sender.as_ref();
            let sender = sender.map(Address::to_string).unwrap_or_default();
            lines.push(format!("{id} from <{sender}> to {}", to.join(", ")));
            mail.has_content = false;
        }
        let is_over =
            |mail: &Mail| !mail.has_content && mail.ended.is_some_and(|ended| ended <= history);
        let over: BTreeSet<MessageId> = self
            .mails
            .iter()
            .filter(|mail| is_over(mail))
            .map(|mail| mail.message.id)
            .collect();
        self.mails.retain(|mail| !over.contains(&mail.message.id));
        self.rows.retain(|row| !over.contains(&row.id()));
        lines
    }

    fn shift(&mut self, shift: &Shift) {
        let latest = shift.now + shift.longest;
        let is_ahead = |row: &Row| row.due > latest || row.job.accepted > shift.now + MEANWHILE;
        let is_over = |row: &Row| row.state == JobState::Done;
        if shift.by == 0 && !self.rows.iter().any(|row| !is_over(row) && is_ahead(row)) {
            return;
        }
        self.notes.insert(CLOCK.to_owned(), shift.note.clone());
        let is_new = |at: SystemTime| shift.since <= at && at <= shift.now + MEANWHILE;
        let moved = |at: SystemTime, latest: SystemTime| {
            let by = if is_new(at) { 0 } else { shift.by };
            clock::moved(at, by).min(latest)
        };
        for lane in self.lanes.values_mut() {
            lane.since = moved(lane.since, shift.now);
            lane.probe = lane.probe.map(|probe| moved(probe, latest));
        }
        for mail in &mut self.mails {
            let accepted = mail.accepted;
            let mut rows: Vec<&mut Row> = self
                .rows
                .iter_mut()
                .filter(|row| row.job.message.id == mail.message.id)
                .collect();
            // Only what is not over moves; where nothing moves, only what lies in the future.
            let is_moved = rows
                .iter()
                .any(|row| !is_over(row) && (shift.by != 0 || is_ahead(row)));
            if !is_moved || (shift.by < 0 && is_new(accepted)) {
                continue;
            }
            for row in &mut rows {
                row.job.accepted = moved(accepted, shift.now);
                row.due = match row.due {
                    due if due == accepted => moved(due, shift.now),
                    due if shift.by > 0 && due >= shift.since => due.min(latest),
                    due => moved(due, latest),
                };
                for (at, _) in row
                    .recipients
                    .iter_mut()
                    .filter_map(|r| r.delivery.as_mut())
                {
                    *at = moved(*at, shift.now);
                }
            }
            mail.accepted = moved(accepted, shift.now);
            mail.ended = mail.ended.map(|at| moved(at, shift.now));
            for event in &mut mail.events {
                event.at = moved(event.at, shift.now);
            }
        }
    }

    fn events(&self, id: MessageId) -> Option<Vec<Event>> {
        let mail = self.mails.iter().find(|mail| mail.message.id == id)?;
        let origin = &mail.message.origin;
        let from = format!("from {} by listener {}", origin.peer, origin.listener);
        let rules = origin.rules.iter().cloned();
        let mut events = vec![Event {
            at: mail.accepted,
            kind: EventKind::Accepted,
            recipients: Vec::new(),
            text: std::iter::once(from)
                .chain(rules)
                .collect::<Vec<_>>()
                .join("; "),
        }];
        events.extend(mail.events.iter().cloned());
        let of_it = self.rows.iter().filter(|row| row.id() == id);
        let mut served: Vec<&Addressee> = of_it.flat_map(|row| &row.recipients).collect();
        served.sort_by_key(|r| (r.delivery.as_ref().map(|(at, _)| *at), r.position));
        let mut deliveries: Vec<Event> = Vec::new();
        for recipient in served {
            let Some((at, text)) = &recipient.delivery else {
                continue;
            };
            let address = recipient.address.to_string();
            match deliveries
                .iter_mut()
                .find(|event| (event.at, &event.text) == (*at, text))
            {
                Some(event) => event.recipients.push(address),
                None => deliveries.push(Event {
                    at: *at,
                    kind: EventKind::Delivered,
                    recipients: vec![address],
                    text: text.clone(),
                }),
            }
        }
        for delivery in deliveries {
            let earlier = events.iter().rposition(|event| event.at <= delivery.at);
            events.insert(earlier.map_or(1, |at| at + 1), delivery);
        }
        Some(events)
    }
}

fn entry((mail, route, rows): (&Mail, RouteName, Vec<&Row>), with_subject: bool) -> Entry {
    let message = &mail.message;
    let is_kept = with_subject && mail.has_content;
    let mut recipients: Vec<&Addressee> = rows.iter().flat_map(|row| &row.recipients).collect();
    recipients.sort_by_key(|recipient| recipient.position);
    let waiting = || rows.iter().filter(|row| row.waits());
    let state = rows.iter().map(|row| row.state).min_by_key(|s| *s as usize);
    let is_open = |row: &&&Row| (row.state as usize) < JobState::Failed as usize;
    Entry {
        id: mail.message.id,
        route,
        state: state.unwrap(),
        envid: message.envelope.dsn.as_ref().and_then(|dsn| dsn.id.clone()),
        sender: mail
            .message
            .envelope
            .sender
            .as_ref()
            .map(Address::to_string),
        recipients: recipients
            .into_iter()
            .map(|recipient| EntryRecipient {
                notify: (message.envelope.recipients.iter())
                    .find(|one| **one == recipient.address)
                    .and_then(Recipient::notify),
                address: recipient.address.to_string(),
                state: recipient.state,
                last_reply: recipient.reply.clone(),
            })
            .collect(),
        attempts: rows.iter().map(|row| row.job.attempts).max().unwrap_or(0),
        next_attempt: waiting().map(|row| row.due).min(),
        pinned: rows
            .iter()
            .filter(is_open)
            .find_map(|row| row.job.pinned.clone()),
        lane: waiting().find_map(|row| row.job.lane.clone()),
        held_by: rows
            .iter()
            .filter(|row| state == Some(JobState::Held) && row.state == JobState::Held)
            .find_map(|row| Some(row.job.lane.as_ref()?.holder()?.to_owned())),
        size: mail.message.size(),
        accepted: mail.accepted,
        client: message.origin.client.clone(),
        copy_of: message.origin.copy_of,
        subject: headers::subject(&message.header).filter(|_| is_kept),
        accepted_by: None,
        sent_by: None,
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    tables: Mutex<Tables>,
    /// Every write fails as long as this is set.
    pub(crate) broken: AtomicBool,
    /// A settlement of what is not leased ends the test: delivery must not do that.
    is_strict: bool,
    unhealthy: AtomicBool,
    changed: Notify,
    bodies: BodyStore,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            tables: Mutex::default(),
            broken: AtomicBool::default(),
            is_strict: false,
            unhealthy: AtomicBool::default(),
            changed: Notify::new(),
            bodies: BodyStore::new("/nonexistent".as_ref()),
        }
    }
}

impl Memory {
    /// One that takes no settlement of what is not leased.
    pub(crate) fn strict() -> Arc<Self> {
        Arc::new(Self {
            is_strict: true,
            ..Self::default()
        })
    }

    fn read(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    fn write(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        let broken = self.broken.load(Ordering::SeqCst);
        self.unhealthy.store(broken, Ordering::SeqCst);
        if broken {
            return Err(StoreError::Unavailable("told to".into()));
        }
        Ok(self.read())
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.read().rows.clone()
    }

    /// The state of a recipient, whichever row it is in.
    pub(crate) fn state(&self, recipient: &str) -> Option<String> {
        let tables = self.read();
        let mut recipients = tables.rows.iter().flat_map(|row| &row.recipients);
        let found = recipients.find(|r| r.address.to_string() == recipient);
        found.map(|recipient| recipient.state.to_string())
    }

    pub(crate) fn lane(&self, lane: &str) -> Option<LaneRow> {
        self.read().lanes.get(&LaneId::parse(lane)).cloned()
    }

    /// What `queue retry` in another process does: a probe now.
    pub(crate) fn wish_probe(&self, lane: &str, now: SystemTime) {
        if let Some(row) = self.read().lanes.get_mut(&LaneId::parse(lane)) {
            row.probe = Some(now);
            row.version += 1;
        }
        self.changed.notify_one();
    }
}

#[async_trait]
impl Store for Memory {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        let jobs = self.write()?.insert(mail, starts, now);
        let jobs = jobs.ok_or_else(|| StoreError::Unavailable("it is already there".into()))?;
        let leased = starts
            .iter()
            .filter(|start| matches!(start, Start::Now(..)));
        let leases = vec![Lease::default(); leased.count()];
        Ok(Inserted { jobs, leases })
    }

    async fn claim(
        &self,
        asks: &[Ask],
        _: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        let mut tables = self.write()?;
        Ok(asks.iter().flat_map(|ask| tables.lease(ask, now)).collect())
    }

    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<Kept, StoreError> {
        self.write()?.settle(&settlement, now, self.is_strict);
        Ok(Kept::Written)
    }

    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        let tables = self.read();
        let mut late: Vec<&Mail> = tables
            .mails
            .iter()
            .filter(|mail| mail.tells_late && mail.accepted <= by && tables.is_open(mail))
            .collect();
        late.sort_by_key(|mail| mail.accepted);
        let ids = late.iter().take(limit).map(|mail| mail.message.id);
        Ok(ids.collect())
    }

    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError> {
        let mut tables = self.write()?;
        let is_open = (tables.mails.iter())
            .any(|mail| mail.message.id == notice.message && tables.is_open(mail));
        let Some(mail) = tables
            .mail(notice.message)
            .filter(|m| m.tells_late && is_open)
        else {
            return Ok(false);
        };
        mail.tells_late = false;
        mail.events.extend(notice.event);
        for report in &notice.reports {
            tables.insert(report, &[], now);
        }
        Ok(true)
    }

    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError> {
        Ok(self.read().due(now))
    }

    async fn list(&self, filter: &Filter, _: SystemTime) -> Result<Vec<Entry>, StoreError> {
        let tables = self.read();
        Ok(tables
            .entries(filter)
            .into_iter()
            .map(|of| entry(of, filter.subjects))
            .collect())
    }

    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        let mut tables = self.read();
        let mail = tables.mail(id).filter(|mail| mail.has_content);
        Ok(mail.map(|mail| Arc::clone(&mail.message)))
    }

    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        Ok(self.read().events(id).unwrap_or_default())
    }

    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        Ok(self.read().search(search))
    }

    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        let mut tables = self.write()?;
        let found = tables.entries(filter);
        let jobs = found.iter().flat_map(|(_, _, rows)| rows.iter());
        let jobs: Vec<JobId> = jobs.map(|row| row.job.id).collect();
        let count = tables.count(verb, &jobs);
        if expect.is_some_and(|expected| expected != count) {
            return Ok(Commanded::Unexpected(count));
        }
        Ok(Commanded::Taken(tables.apply(verb, &jobs, now)))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let tables = self.read();
        let count = |state| tables.rows.iter().filter(|row| row.state == state).count() as u64;
        Ok(Stats {
            waiting: count(JobState::Waiting),
            sending: count(JobState::Sending),
            held: count(JobState::Held),
            failed: count(JobState::Failed),
            in_doubt: tables
                .rows
                .iter()
                .filter(|row| row.waits() && row.job.pinned.is_some())
                .count() as u64,
            oldest: tables
                .rows
                .iter()
                .filter(|row| row.waits())
                .map(|row| row.job.accepted)
                .min(),
        })
    }

    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError> {
        let mut places: BTreeMap<RouteLane, u64> = BTreeMap::new();
        for row in self.read().rows.iter().filter(|row| row.waits()) {
            *places.entry(row.place()).or_default() += 1;
        }
        Ok(places.into_iter().collect())
    }

    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        Ok(self.read().lanes.values().cloned().collect())
    }

    async fn set_lane(&self, mut lane: LaneRow) -> Result<bool, StoreError> {
        let mut tables = self.write()?;
        let found = tables.lanes.get(&lane.lane).map_or(0, |row| row.version);
        if found != lane.version {
            return Ok(false);
        }
        lane.version += 1;
        // Of mailboxes there are as many as senders: one that is open again is like one never seen.
        if lane.state == LaneState::Open && lane.lane.mailbox.is_some() {
            tables.lanes.remove(&lane.lane);
        } else {
            tables.lanes.insert(lane.lane.clone(), lane);
        }
        Ok(true)
    }

    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        let mut tables = self.write()?;
        if let Some(shift) = shift {
            tables.shift(shift);
        }
        Ok(())
    }

    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.read().notes.get(key).cloned())
    }

    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        let mut write = self.write()?;
        let there = write.notes.get(key);
        let is_ours = there == seen.as_ref() || there == Some(&value);
        if is_ours {
            write.notes.insert(key.to_owned(), value);
        }
        Ok(is_ours)
    }

    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        self.write()?.notes.insert(key.to_owned(), value);
        Ok(())
    }

    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError> {
        let mut done = Maintained::default();
        if let Some(KeepTimes { failed, history }) = retention.keep {
            done.deleted = self.write()?.prune(now - failed, now - history, now);
        }
        Ok(done)
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError> {
        let mut tables = self.write()?;
        if !standing.name.is_empty() {
            return Ok(tables.beat(standing));
        }
        if standing.node.is_none() {
            tables.recover();
        }
        let node = NodeId::default();
        Ok(Beat {
            node,
            nodes: vec![NodeRow::default()],
            changes: 0,
        })
    }

    async fn take_over(
        &self,
        silent: &NodeRow,
        _: SystemTime,
        _: SystemTime,
    ) -> Result<bool, StoreError> {
        let mut tables = self.write()?;
        let row = tables.nodes.get_mut(&silent.id);
        let Some(row) = row.filter(|row| row.seen == silent.seen && !row.is_gone) else {
            return Ok(false);
        };
        row.is_gone = true;
        tables.free_lanes(&[silent.id]);
        Ok(true)
    }

    async fn hold(&self, lane: &LaneId, node: NodeId) -> Result<Option<Used>, StoreError> {
        let mut tables = self.write()?;
        let (holder, used) = tables.holders.entry(lane.clone()).or_default();
        if holder.is_some() {
            return Ok(None);
        }
        *holder = Some(node);
        Ok(Some(std::mem::take(used)))
    }

    async fn let_go(&self, lane: &LaneId, node: NodeId, used: &Used) -> Result<(), StoreError> {
        if let Some(held) = self.write()?.holders.get_mut(lane)
            && held.0 == Some(node)
        {
            *held = (None, used.clone());
        }
        Ok(())
    }

    fn health(&self) -> Health {
        if self.unhealthy.load(Ordering::SeqCst) {
            Health::Failing
        } else {
            Health::Fine
        }
    }

    fn bodies(&self) -> &BodyStore {
        &self.bodies
    }
}

/// What the scripted connector does next.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Takes everything.
    Take,
    /// Takes nothing.
    Obstacle(Obstacle),
    /// An outcome for each recipient by its local part; the others are delivered.
    Mixed(Vec<(&'static str, Outcome)>),
    /// Panics.
    Panic,
    /// Waits that long, then takes everything.
    Slow(Duration),
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: tokio::time::Instant,
    pub(crate) message: Arc<Message>,
    pub(crate) recipients: Vec<String>,
}

/// Follows a script, then does `otherwise`.
#[derive(Debug)]
pub(crate) struct Scripted {
    name: ConnectorName,
    script: Mutex<VecDeque<Act>>,
    pub(crate) otherwise: Mutex<Act>,
    pub(crate) calls: Mutex<Vec<Call>>,
    /// Who tells the sender of what it takes.
    pub(crate) onward: Mutex<Onward>,
    /// What a login finds.
    pub(crate) login: Mutex<Result<(), Obstacle>>,
    pub(crate) logins: AtomicU64,
}

impl Scripted {
    pub(crate) fn new(name: &str, script: impl IntoIterator<Item = Act>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            script: Mutex::new(script.into_iter().collect()),
            otherwise: Mutex::new(Act::Take),
            calls: Mutex::default(),
            onward: Mutex::default(),
            login: Mutex::new(Ok(())),
            logins: AtomicU64::new(0),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// The recipients of each call.
    pub(crate) fn seen(&self) -> Vec<Vec<String>> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|c| c.recipients.clone()).collect()
    }
}

#[async_trait]
impl Connector for Scripted {
    fn lane(&self, _: &Message) -> LaneId {
        LaneId::of(&self.name)
    }

    async fn deliver(&self, message: &Message, recipients: &[Recipient], _: &Deadline) -> Report {
        self.calls.lock().unwrap().push(Call {
            at: tokio::time::Instant::now(),
            message: Arc::new(message.clone()),
            recipients: recipients.iter().map(ToString::to_string).collect(),
        });
        let act = self.script.lock().unwrap().pop_front();
        let act = act.unwrap_or_else(|| self.otherwise.lock().unwrap().clone());
        let ok = Outcome::Delivered(Reply::new(250, (2, 0, 0), "taken"));
        let mixed = match act {
            Act::Obstacle(obstacle) => return obstacle.into(),
            Act::Panic => panic!("as the script says"),
            Act::Take => Vec::new(),
            Act::Slow(time) => {
                tokio::time::sleep(time).await;
                Vec::new()
            }
            Act::Mixed(mixed) => mixed,
        };
        let outcomes = recipients.iter().map(|recipient| {
            let outcome = mixed
                .iter()
                .find(|(local, _)| *local == recipient.address.local());
            (
                recipient.address.clone(),
                outcome.map_or_else(|| ok.clone(), |(_, outcome)| outcome.clone()),
            )
        });
        Report::Tried {
            outcomes: outcomes.collect(),
            via: format!("{}.example[192.0.2.1]:25", self.name),
            onward: self.onward.lock().unwrap().clone(),
            pause: None,
        }
    }

    async fn probe(&self, _: Instant) -> Result<String, Obstacle> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        self.login.lock().unwrap().clone().map(|()| "in".to_owned())
    }
}

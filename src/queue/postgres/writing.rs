//! What settlements change, gathered for one statement each.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Row;

use super::{
    clock::Moments,
    event::LifeLines,
    fault::DbFault,
    insert::{MailRows, of},
    link::{DbLink, Spoken},
    stored::{JobKey, StoredJob, ToSettle},
    values::{clean, int, octets, small},
    verbs::{Numbers, close, obey},
};
use crate::{
    mail::message::MessageId,
    queue::{
        coded::{self, FAILED, WAITING},
        event::EventKind,
        settling::{self, After},
        store::{Kept, Settled},
    },
};

const WRITE_RECIPIENTS: &str = "UPDATE recipient r SET state = u.state, reply = coalesce(u.reply, r.reply),
        at = coalesce(u.at, r.at), said = coalesce(u.said, r.said), node = coalesce(u.node, r.node), job = u.job,
        route = u.route, attempts = u.attempts, claim = u.claim
    FROM unnest($1::bytea[], $2::int[], $3::smallint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::int[],
                $9::text[], $10::int[], $11::int[])
         AS u (message, position, state, reply, at, said, node, job, route, attempts, claim)
    WHERE r.message = u.message AND r.position = u.position";
const WRITE_JOBS: &str = "UPDATE job j SET state = u.state, pinned = u.pinned, lane = u.lane, due = u.due, attempts = u.attempts,
        node = NULL, connector = NULL, wishes = NULL
    FROM unnest($1::bytea[], $2::int[], $3::smallint[], $4::text[], $5::text[], $6::bigint[], $7::int[])
         AS u (message, nr, state, pinned, lane, due, attempts)
    WHERE j.message = u.message AND j.nr = u.nr";
const DELETE: &str = "DELETE FROM job j USING unnest($1::bytea[], $2::int[]) AS a (message, nr)
    WHERE j.message = a.message AND j.nr = a.nr";
const SPLIT: &str = "INSERT INTO job (message, nr, route, pinned, lane, client, sender, state, due, attempts, claim)
    SELECT u.message, u.nr, u.route, u.pinned, '', u.client, u.sender, 2, u.due, u.attempts, 0
    FROM unnest($1::bytea[], $2::int[], $3::text[], $4::text[], $5::smallint[], $6::smallint[], $7::bigint[], $8::int[])
         AS u (message, nr, route, pinned, client, sender, due, attempts)";

/// Recipients as they are from now on.
#[derive(Default)]
struct RecipientChanges {
    messages: Vec<Vec<u8>>,
    positions: Vec<i32>,
    states: Vec<i16>,
    replies: Vec<Option<String>>,
    at: Vec<Option<i64>>,
    said: Vec<Option<String>>,
    nodes: Vec<Option<i64>>,
    jobs: Vec<i32>,
    routes: Vec<Option<String>>,
    attempts: Vec<Option<i32>>,
    claims: Vec<Option<i32>>,
}

#[derive(Default)]
struct JobChanges {
    numbers: Numbers,
    states: Vec<i16>,
    pinned: Vec<String>,
    lanes: Vec<String>,
    due: Vec<i64>,
    attempts: Vec<i32>,
}

#[derive(Default)]
struct NewSplits {
    numbers: Numbers,
    routes: Vec<String>,
    pinned: Vec<String>,
    clients: Vec<i16>,
    senders: Vec<i16>,
    due: Vec<i64>,
    attempts: Vec<i32>,
}

/// All that is to be written.
#[derive(Default)]
pub(super) struct Writing {
    recipients: RecipientChanges,
    jobs: JobChanges,
    done: Numbers,
    splits: NewSplits,
    lines: BTreeMap<i64, LifeLines>,
    /// Bounces, and whatever else is inserted with them.
    pub(super) mail: MailRows,
    /// Messages of which a job may have been the last.
    over: BTreeSet<MessageId>,
    /// Jobs whose wishes are obeyed behind all that.
    wishes: Vec<(Vec<JobKey>, String, (i64, i64))>,
    pub(super) now: i64,
}

impl Writing {
    fn lines(&mut self, node: i64) -> &mut LifeLines {
        self.lines
            .entry(node)
            .or_insert_with(|| LifeLines::of(node))
    }

    /// Somebody else has claimed the job since: where this one was delivered, the life of the message says so; whoever settles tells the log.
    pub(super) fn twice(&mut self, one: &ToSettle) {
        if one.kept != Kept::Lost {
            return;
        }
        let recipients = one.settlement.recipients.iter();
        let done = recipients.filter(|(_, settled)| matches!(settled, Settled::Done(_)));
        let done: Vec<String> = done.map(|(address, _)| address.to_string()).collect();
        if done.is_empty() {
            return;
        }
        let message = one.settlement.message;
        let event = settling::sent_twice(std::time::SystemTime::UNIX_EPOCH, done);
        let (node, now) = (of(one.settlement.lease.node), one.moments.now());
        self.lines(node)
            .add(message, now, event.kind, &event.recipients, &event.text);
    }

    pub(super) fn add(
        &mut self,
        one: &ToSettle,
        job: &StoredJob,
        last: &mut HashMap<MessageId, i32>,
    ) {
        let (settlement, moments) = (&one.settlement, one.moments);
        let key = one.key();
        let node = of(settlement.lease.node);
        let after = settling::apply(&job.before, settlement);
        for address in &after.strangers {
            tracing::error!(id = %settlement.message, %address, "settled a recipient that is not the job's");
        }
        let parts = self.split(key, job, &after, moments, last);
        self.change_recipients(one, job, &after, &parts);
        self.change_job(one, &after);
        for event in settlement
            .events
            .iter()
            .filter(|e| e.kind != EventKind::Delivered)
        {
            let at = moments.theirs(event.at);
            self.lines(node).add(
                settlement.message,
                at,
                event.kind,
                &event.recipients,
                &event.text,
            );
        }
        for report in settlement.reports() {
            self.mail
                .add(report, &[], settlement.lease.node, moments.now());
        }
        if let Some(wishes) = job.wishes.clone().filter(|_| one.kept == Kept::Written) {
            let mut jobs = vec![key];
            jobs.extend(parts.iter().map(|(nr, _)| (key.0, *nr)));
            self.wishes.push((jobs, wishes, (moments.now(), node)));
        }
        self.over.insert(settlement.message);
    }

    /// Jobs of their own for some: the numbers of these, with the places of their recipients.
    fn split<'a>(
        &mut self,
        (message, _): JobKey,
        job: &StoredJob,
        after: &'a After<'_>,
        moments: Moments,
        last: &mut HashMap<MessageId, i32>,
    ) -> Vec<(i32, &'a [usize])> {
        let mut parts = Vec::new();
        for split in &after.splits {
            let nr = last.entry(message).or_default();
            *nr = nr.saturating_add(1);
            let new = &mut self.splits;
            new.numbers.messages.push(message.to_bytes().to_vec());
            new.numbers.nrs.push(*nr);
            new.routes.push(job.route.clone());
            new.pinned.push(
                split
                    .pinned
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
            );
            new.clients.push(job.client);
            new.senders.push(job.sender);
            new.due.push(moments.theirs(split.due));
            new.attempts.push(int(after.attempts));
            parts.push((*nr, split.recipients.as_slice()));
        }
        parts
    }

    /// Those of which something is new, those that go another way, and, where the job is done, all of them.
    fn change_recipients(
        &mut self,
        one: &ToSettle,
        job: &StoredJob,
        after: &After<'_>,
        parts: &[(i32, &[usize])],
    ) {
        let (message, nr) = one.key();
        let is_done = after.job.is_none();
        let changes: HashMap<usize, _> = after
            .changes
            .iter()
            .map(|change| (change.at, change))
            .collect();
        let parts = parts
            .iter()
            .flat_map(|(nr, places)| places.iter().map(move |at| (*at, *nr)));
        let parts: HashMap<usize, i32> = parts.collect();
        for (at, (position, (_, state))) in
            job.positions.iter().zip(&job.before.recipients).enumerate()
        {
            let (change, part) = (changes.get(&at), parts.get(&at));
            if change.is_none() && part.is_none() && !is_done {
                continue;
            }
            let delivery = change.and_then(|change| change.delivery);
            let new = &mut self.recipients;
            new.messages.push(message.to_bytes().to_vec());
            new.positions.push(*position);
            let state = change.map_or(*state, |change| change.state);
            new.states.push(small(coded::recipient_state_number(state)));
            new.replies
                .push(change.map(|change| clean(&change.reply).into_owned()));
            new.at
                .push(delivery.map(|event| one.moments.theirs(event.at)));
            new.said
                .push(delivery.map(|event| clean(&event.text).into_owned()));
            new.nodes
                .push(delivery.map(|_| of(one.settlement.lease.node)));
            new.jobs.push(part.copied().unwrap_or(nr));
            new.routes.push(is_done.then(|| job.route.clone()));
            new.attempts.push(is_done.then(|| int(after.attempts)));
            new.claims.push(is_done.then_some(job.claim));
        }
    }

    fn change_job(&mut self, one: &ToSettle, after: &After<'_>) {
        let (message, nr) = one.key();
        let Some(open) = &after.job else {
            self.done.messages.push(message.to_bytes().to_vec());
            self.done.nrs.push(nr);
            return;
        };
        // What is left of a job that was taken over goes the way that was decided then.
        if one.kept == Kept::Late && !open.is_failed {
            return;
        }
        let new = &mut self.jobs;
        new.numbers.messages.push(message.to_bytes().to_vec());
        new.numbers.nrs.push(nr);
        new.states
            .push(small(if open.is_failed { FAILED } else { WAITING }));
        let pinned = open.pinned.as_ref();
        new.pinned
            .push(pinned.map_or_else(String::new, ToString::to_string));
        new.lanes
            .push(clean(&coded::lane(open.lane.as_ref())).into_owned());
        new.due.push(one.moments.theirs(open.due));
        new.attempts.push(int(after.attempts));
    }

    /// Writes it all, and commits.
    pub(super) async fn write(&self, link: &mut DbLink) -> Result<Vec<Row>, DbFault> {
        let mut spoken: Vec<Spoken<'_>> = Vec::new();
        let (new, jobs, splits) = (&self.recipients, &self.jobs, &self.splits);
        if !splits.numbers.is_empty() {
            spoken.push((
                SPLIT,
                vec![
                    &splits.numbers.messages,
                    &splits.numbers.nrs,
                    &splits.routes,
                    &splits.pinned,
                    &splits.clients,
                    &splits.senders,
                    &splits.due,
                    &splits.attempts,
                ],
            ));
        }
        if !new.messages.is_empty() {
            spoken.push((
                WRITE_RECIPIENTS,
                vec![
                    &new.messages,
                    &new.positions,
                    &new.states,
                    &new.replies,
                    &new.at,
                    &new.said,
                    &new.nodes,
                    &new.jobs,
                    &new.routes,
                    &new.attempts,
                    &new.claims,
                ],
            ));
        }
        if !jobs.numbers.is_empty() {
            spoken.push((
                WRITE_JOBS,
                vec![
                    &jobs.numbers.messages,
                    &jobs.numbers.nrs,
                    &jobs.states,
                    &jobs.pinned,
                    &jobs.lanes,
                    &jobs.due,
                    &jobs.attempts,
                ],
            ));
        }
        if !self.done.is_empty() {
            spoken.push((DELETE, vec![&self.done.messages, &self.done.nrs]));
        }
        spoken.extend(
            self.lines
                .values()
                .filter(|lines| !lines.is_empty())
                .map(LifeLines::spoken),
        );
        let inserts = (!self.mail.is_empty()).then_some(spoken.len());
        if inserts.is_some() {
            spoken.push(self.mail.spoken());
        }
        let over = octets(&self.over);
        if self.wishes.is_empty() {
            spoken.extend(close(&over, &self.now));
            let found = link.commit(&spoken).await?;
            return Ok(inserts
                .and_then(|at| found.into_iter().nth(at))
                .unwrap_or_default());
        }
        let found = link.go_on(&spoken).await?;
        for (jobs, wishes, at) in &self.wishes {
            obey(link, jobs, wishes, *at).await?;
        }
        link.commit(&close(&over, &self.now)).await?;
        Ok(inserts
            .and_then(|at| found.into_iter().nth(at))
            .unwrap_or_default())
    }
}

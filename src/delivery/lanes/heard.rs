//! What reports, logins and the time change in the lanes, and what the log says of it.

use std::{
    sync::MutexGuard,
    time::{Duration, Instant},
};

use super::{
    LanePermits, Lanes,
    alarms::{Alarm, News},
    gate::{GateState, PAUSE_PROBE},
    now,
    table::LaneTable,
};
use crate::{
    mail::{
        outcome::{Obstacle, ObstacleKind},
        reply::Reply,
    },
    route::{ConnectorName, LaneId},
    telemetry::maillog,
};

impl Lanes {
    /// What was heard of a job with these permits: how long nothing else is wanted, or what is in the way. `lane` is that of the
    /// message, `jitter` is in 0..1.
    pub(in crate::delivery) fn apply(
        &self,
        permits: &LanePermits,
        lane: &LaneId,
        heard: &Result<Option<Duration>, Obstacle>,
        jitter: f64,
    ) {
        let connector = &permits.connector.lane;
        let mut table = self.table();
        let now = now();
        // Where mailboxes are limited, the upstream counts by mailbox.
        let counted = match &permits.sender.mailbox {
            Some(permit) if table.per_mailbox(&connector.connector).is_some() => &permit.lane,
            _ => connector,
        };
        let (kind, reply, wait) = match heard {
            Err(obstacle) => (obstacle.kind, &obstacle.reply, obstacle.retry_after),
            Ok(wait) => {
                table.open(connector, now);
                table.open(&lane.of_mailbox(), now);
                table.strangers.took(lane);
                if lane.from.is_some() {
                    table.open(lane, now);
                }
                if let Some(wait) = wait {
                    let seconds = wait.as_secs();
                    let text =
                        format!("the upstream asked for a pause of {seconds} s (Retry-After)");
                    let reply = Reply::new(451, (4, 3, 2), text);
                    table.hold(counted, &reply, Some(*wait), false, self.at(now));
                }
                return self.log_news(table, now);
            }
        };
        match kind {
            // The mailbox was not what it failed for.
            ObstacleKind::Down
            | ObstacleKind::Intercepted
            | ObstacleKind::Misconfigured
            | ObstacleKind::Stopped => {
                table.strangers.was_not_asked(lane);
            }
            ObstacleKind::Throttled => {
                table.strangers.came_to_nothing(lane);
            }
            ObstacleKind::MailboxRefused | ObstacleKind::FromRefused => {}
        }
        match kind {
            // Its turn did not come: whoever else waits need not wait for that.
            ObstacleKind::Throttled if wait == Some(Duration::ZERO) => {}
            ObstacleKind::Throttled => table.hold(counted, reply, wait, true, self.at(now)),
            ObstacleKind::Down | ObstacleKind::Intercepted => {
                let asked = wait.unwrap_or_default();
                table.close(
                    connector,
                    reply,
                    asked,
                    permits.connector.probe,
                    jitter,
                    self.at(now),
                );
            }
            ObstacleKind::Misconfigured => table.pause(connector, reply, self.at(now)),
            // No upstream says that.
            ObstacleKind::Stopped => {}
            ObstacleKind::MailboxRefused => {
                table.open(connector, now);
                table.refuse_mailbox(lane, reply, self.at(now));
            }
            ObstacleKind::FromRefused => {
                table.open(connector, now);
                table.refuse(lane, reply, self.at(now));
            }
        }
        self.log_news(table, now);
    }

    /// Logs what is new, and wakes everybody who waits.
    pub(super) fn log_news(&self, mut table: MutexGuard<'_, LaneTable>, now: Instant) {
        let mut news = std::mem::take(&mut table.news);
        let is_quiet = news.is_empty();
        // However often they change, the log can be read.
        news.retain(|(lane, news)| match news.alarm(lane) {
            Some(alarm) => table.alarms.has_line(&lane.connector, alarm, now),
            None => true,
        });
        drop(table);
        for (lane, news) in &news {
            let lane = lane.to_string();
            match news {
                News::Shut(state, reply) => maillog::connector_paused(&lane, *state, reply),
                News::Throttled(wait, reply) => {
                    maillog::connector_throttled(&lane, self.clock.wall() + *wait, reply);
                }
                News::Resumed => maillog::connector_resumed(&lane),
                News::More(alarm, count) => {
                    let (event, state) = alarm.words();
                    maillog::more_alarms(&lane, event, state, *count);
                }
            }
        }
        if !is_quiet {
            self.wake_all();
        }
    }

    /// Whether an alarm of that kind has a line of its own; if not it is counted, and the count is logged once the minute is over.
    pub(in crate::delivery) fn has_line(&self, connector: &ConnectorName, alarm: Alarm) -> bool {
        self.table().alarms.has_line(connector, alarm, now())
    }

    /// What time alone changes: waits that are over, mailboxes that are idle.
    pub(in crate::delivery) fn pass_time(&self) {
        let mut table = self.table();
        let now = now();
        table.pass_time(now);
        self.log_news(table, now);
    }

    /// Connectors whose login is to be tried now.
    pub(in crate::delivery) fn logins(&self) -> Vec<ConnectorName> {
        let now = now();
        self.table()
            .lanes
            .iter_mut()
            .filter_map(|(lane, entry)| {
                (lane.mailbox.is_none() && entry.gate.take_login(now))
                    .then(|| lane.connector.clone())
            })
            .collect()
    }

    /// What the login of a paused lane came to.
    pub(in crate::delivery) fn logged_in(
        &self,
        connector: &ConnectorName,
        worked: Result<(), Reply>,
    ) {
        let lane = LaneId::of(connector);
        {
            let mut table = self.table();
            let now = now();
            let Some(entry) = table.lanes.get_mut(&lane) else {
                return;
            };
            if entry.gate.state() == GateState::Stopped {
                return;
            }
            match worked {
                Ok(()) => {
                    if entry.gate.open() {
                        table.news.push((lane.clone(), News::Resumed));
                    }
                }
                Err(reply) => {
                    entry.gate.pause(now + PAUSE_PROBE);
                    entry.why = Some(reply);
                }
            }
            table.dirty.insert(lane);
            self.log_news(table, now);
        }
        self.wake.notify_one();
    }
}

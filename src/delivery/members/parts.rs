//! Which limits hold for all members together, and what a part of a limit comes to.

use std::time::Duration;

use crate::connector::{self, LaneLimits, Rate, Upload};

/// Members of a queue, at most.
pub const MOST_MEMBERS: usize = 8;

/// What decides whether the limits of a lane can be divided among the members without a word, or hold for all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneFacts {
    /// It is a mailbox with limits of its own.
    pub is_mailbox: bool,
    /// Somebody has written out how many messages it takes, in a time or at once.
    pub is_limited: bool,
    /// Connections, where those are what is counted.
    pub connections: Option<usize>,
    /// As many connections as the upstream turned out to take.
    pub learned: Option<usize>,
}

impl LaneFacts {
    /// Of the lane of a connector.
    pub fn of(settings: &connector::Settings, learned: Option<usize>) -> Self {
        let (_, per_mailbox) = settings.limits();
        let is_of_mailboxes = per_mailbox.is_some();
        let is_limited = settings.rate.is_some() || settings.is_concurrency_given;
        Self {
            is_mailbox: !is_of_mailboxes && settings.kind.counts_by_mailbox(),
            is_limited: !is_of_mailboxes && is_limited,
            connections: settings.kind.max_connections(),
            learned,
        }
    }

    /// Whether one member at a time sends from the lane, so that its limits hold for all together.
    pub fn is_shared(&self) -> bool {
        self.is_mailbox
            || self.is_limited
            || self.connections.is_some_and(|most| most < MOST_MEMBERS)
            || self.learned.is_some()
    }
}

/// Each number of some limits after `part`, which turns a limit into so much of it.
pub fn divided(limits: &LaneLimits, part: impl Fn(u64) -> u64) -> LaneLimits {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let concurrent = u64::try_from(limits.concurrent).unwrap_or(u64::MAX);
    LaneLimits {
        concurrent: usize::try_from(part(concurrent)).unwrap_or(usize::MAX),
        rate: limits.rate.map(|rate| Rate {
            count: small(part(u64::from(rate.count))),
            per: rate.per,
        }),
        upload: limits.upload.map(|upload| Upload {
            octets: part(upload.octets),
            per: upload.per,
        }),
    }
}

/// Whether nothing at all may start under these limits.
pub fn is_nothing(limits: &LaneLimits) -> bool {
    limits.concurrent == 0
        || limits.rate.is_some_and(|rate| rate.count == 0)
        || limits.upload.is_some_and(|upload| upload.octets == 0)
}

/// For how long after its end a message counts.
pub fn window(limits: &LaneLimits) -> Duration {
    let rate = limits.rate.map_or(Duration::ZERO, |rate| rate.per);
    let upload = limits.upload.map_or(Duration::ZERO, |upload| upload.per);
    rate.max(upload)
}

/// The part of a learned number: at least 1, since the upstream itself refuses what is too much.
pub fn of_learned(learned: usize, part: impl Fn(u64) -> u64) -> usize {
    let part = part(u64::try_from(learned).unwrap_or(u64::MAX));
    usize::try_from(part).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_shared_where_its_limits_cannot_be_divided() {
        let plain = LaneFacts {
            is_mailbox: false,
            is_limited: false,
            connections: Some(20),
            learned: None,
        };
        for (facts, is_shared) in [
            (plain, false),
            (
                LaneFacts {
                    is_mailbox: true,
                    ..plain
                },
                true,
            ),
            (
                LaneFacts {
                    is_limited: true,
                    ..plain
                },
                true,
            ),
            (
                LaneFacts {
                    connections: Some(8),
                    ..plain
                },
                false,
            ),
            (
                LaneFacts {
                    connections: Some(7),
                    ..plain
                },
                true,
            ),
            (
                LaneFacts {
                    connections: None,
                    ..plain
                },
                false,
            ),
            (
                LaneFacts {
                    learned: Some(9),
                    ..plain
                },
                true,
            ),
        ] {
            assert_eq!(facts.is_shared(), is_shared, "{facts:?}");
        }
    }

    #[test]
    fn every_number_of_a_limit_is_divided_and_no_window() {
        let minute = Duration::from_mins(1);
        let limits = LaneLimits {
            concurrent: 4,
            rate: Some(Rate {
                count: 30,
                per: minute,
            }),
            upload: Some(Upload {
                octets: 150,
                per: minute * 5,
            }),
        };
        assert_eq!(window(&limits), minute * 5);
        let third = divided(&limits, |limit| limit / 3);
        assert_eq!(third.concurrent, 1);
        assert_eq!(
            third.rate.map(|rate| (rate.count, rate.per)),
            Some((10, minute))
        );
        assert_eq!(third.upload.map(|upload| upload.octets), Some(50));
        assert!(!is_nothing(&third));
        assert!(is_nothing(&divided(&limits, |limit| limit / 5)));
        assert_eq!(of_learned(2, |limit| limit / 3), 1);
    }
}

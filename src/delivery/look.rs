//! What is due, and what the lanes say to it: what is claimed, what is given another route, and when to look again.
//!
//! It takes the permits that it finds, and asks nobody but the lanes: no store, no clock.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    lanes::{Capacity, LanePermits, Lanes},
    setup::Built,
    shared::Backlog,
};
use crate::{
    queue::store::{Ask, Due},
    route::{ConnectorName, LaneId, Route, RouteName},
};

/// Messages of a quota that are given up together.
const EXPIRED: usize = 50;

/// Mail of one route, pin and lane that is due.
pub(super) struct Claim {
    pub(super) ask: Ask,
    pub(super) route: Arc<Route>,
    /// The connectors that may take it, in their order.
    pub(super) candidates: Vec<ConnectorName>,
    /// Which of them the permits are for.
    pub(super) start: usize,
    /// One for each job to be claimed.
    pub(super) permits: Vec<LanePermits>,
    /// It is claimed before it is due.
    pub(super) is_early: bool,
}

/// What a look found.
#[derive(Default)]
pub(super) struct Look {
    /// With permits.
    pub(super) claims: Vec<Claim>,
    /// Every connector is shut, or the upstream asked for a pause: what is past its time is given up.
    pub(super) sweeps: Vec<Claim>,
    /// Routes that are gone from the configuration.
    pub(super) reroutes: Vec<RouteName>,
    /// Connectors that are gone and that mail in doubt is pinned to, with its route.
    pub(super) lost_pins: Vec<(RouteName, ConnectorName)>,
    /// All that is due.
    pub(super) backlog: Backlog,
    /// After this something is due, or a lane takes mail again; `None`: nothing is known to come.
    pub(super) wait: Option<Duration>,
    /// Something is due and waits for a permit.
    pub(super) wants_work: bool,
    /// What quotas have held for too long: it is given up.
    pub(super) expired: Vec<Ask>,
    /// Lanes that one gateway at a time sends from, and not this one so far.
    pub(super) unheld: Vec<LaneId>,
}

/// Looks at what waits (the oldest first).
pub(super) fn look(
    due: &[Due],
    built: &Built,
    lanes: &Arc<Lanes>,
    (now, wall): (Instant, SystemTime),
) -> Look {
    let mut found = Look::default();
    for due in due {
        let later = due.at.duration_since(wall).unwrap_or_default();
        // What was refused is not due before the next probe; when a probe is wished for, it is.
        let is_wished = |lane: &LaneId| lanes.is_wished(lane);
        let is_early = !later.is_zero() && due.lane.as_ref().is_some_and(is_wished);
        if !later.is_zero() && !is_early {
            found.wait_for(later);
            continue;
        }
        if due
            .lane
            .as_ref()
            .is_some_and(|lane| lane.holder().is_some())
        {
            found.expired.push(Ask {
                route: due.route.clone(),
                pinned: due.pinned.clone(),
                lane: due.lane.clone(),
                whose: due.whose,
                connector: None,
                limit: EXPIRED,
            });
            continue;
        }
        found.backlog.insert((due.route.clone(), due.lane.clone()));
        let Some(route) = built.routes.get(&due.route) else {
            found.reroutes.push(due.route.clone());
            continue;
        };
        if let Some(pin) = &due.pinned
            && !built.connectors.contains_key(pin)
        {
            found.lost_pins.push((due.route.clone(), pin.clone()));
        }
        let mut claim = Claim {
            ask: Ask {
                route: due.route.clone(),
                pinned: due.pinned.clone(),
                lane: due.lane.clone(),
                whose: due.whose,
                connector: None,
                limit: 0,
            },
            route: Arc::clone(route),
            candidates: built.candidates(route, due.pinned.as_ref()),
            start: 0,
            permits: Vec::new(),
            is_early,
        };
        match claim.take(lanes, &mut found.unheld) {
            Capacity::Free(permits) => {
                claim.ask.limit = permits.len();
                claim.permits = permits;
                found.claims.push(claim);
            }
            Capacity::Full => found.wants_work = true,
            Capacity::At(at) => found.wait_for(at.saturating_duration_since(now)),
            Capacity::Held(at) => {
                found.wait_for(at.saturating_duration_since(now));
                found.sweeps.push(claim);
            }
            Capacity::Shut => found.sweeps.push(claim),
        }
    }
    found
}

impl Look {
    fn wait_for(&mut self, wait: Duration) {
        self.wait = Some(self.wait.map_or(wait, |before| before.min(wait)));
    }
}

impl Claim {
    /// The lane of that connector that this mail waits in.
    pub(super) fn mailbox(&self, connector: &ConnectorName) -> Option<LaneId> {
        let lane = self.ask.lane.as_ref()?;
        (lane.connector == *connector && lane.mailbox.is_some()).then(|| lane.clone())
    }

    /// The permits of the first connector that is not shut, as many as there are.
    fn take(&mut self, lanes: &Arc<Lanes>, unheld: &mut Vec<LaneId>) -> Capacity {
        for (at, name) in self.candidates.iter().enumerate() {
            let elsewhere = lanes.unheld(name, self.mailbox(name).as_ref());
            unheld.extend(elsewhere.filter(|lane| !unheld.contains(lane)));
            let capacity = lanes.take_all(name, self.mailbox(name).as_ref());
            if !matches!(capacity, Capacity::Shut) {
                self.start = at;
                self.ask.connector = Some(name.clone());
                return capacity;
            }
        }
        Capacity::Shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::store::Whose;
    use crate::{
        connector::{self, Kind, Rate, discard::Discard},
        delivery::{BounceSettings, Settings, Setup, timekeeper::MachineClock},
        fixture,
        mail::{
            outcome::{Obstacle, ObstacleKind},
            reply::Reply,
        },
        route::Router,
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// The routes `r` to a and b, and `s` to b, each connector with three permits; b starts five a minute.
    struct World {
        built: Built,
        lanes: Arc<Lanes>,
        now: (Instant, SystemTime),
    }

    impl World {
        fn new() -> Self {
            let settings = |name: &str| connector::Settings {
                name: name.into(),
                max_concurrent: 3,
                is_concurrency_given: false,
                probe: Duration::from_mins(1),
                rate: (name == "b").then_some(Rate {
                    count: 5,
                    per: SECOND * 60,
                }),
                timeout: SECOND,
                max_recipients: 100,
                kind: Kind::Discard,
            };
            let connectors = ["a", "b"].map(|name| {
                let out: Arc<dyn connector::Connector> = Arc::new(Discard::new(name.into()));
                (settings(name), out)
            });
            let lanes = Arc::new(Lanes::new(Arc::new(MachineClock), None));
            let routes = vec![
                fixture::route("r", &["a", "b"]),
                fixture::route("s", &["b"]),
            ];
            let built = Built::new(Setup {
                router: Router {
                    routes,
                    ..Router::default()
                },
                policy: fixture::policy("*", "*"),
                connectors: connectors.into(),
                settings: Settings {
                    in_doubt_wait: SECOND,
                    bounce: BounceSettings {
                        to_sender: true,
                        from: fixture::address("postmaster@relay.example"),
                        is_from_given: false,
                        copy_to: Vec::new(),
                        delay_notice: None,
                        full_limit: 1024 * 1024,
                        hostname: "relay.example".into(),
                    },
                },
                keep_failed: SECOND,
                keep_history: SECOND,
            });
            lanes.configure(&built);
            Self {
                built,
                lanes,
                now: (Instant::now(), SystemTime::now()),
            }
        }

        /// Mail of a route, a pin and a lane (empty: none), due in so many seconds.
        fn due(&self, route: &str, pin: &str, lane: &str, seconds: u64) -> Due {
            Due {
                route: route.into(),
                pinned: (!pin.is_empty()).then(|| pin.into()),
                lane: (!lane.is_empty()).then(|| LaneId::parse(lane)),
                at: self.now.1 + SECOND * u32::try_from(seconds).unwrap(),
                whose: Whose::InTurns,
            }
        }

        /// A job of that connector, and of that lane of it, came to this.
        fn heard(&self, lane: &str, kind: ObstacleKind, wait: Option<Duration>) {
            let lane = LaneId::parse(lane);
            let permits = self.lanes.take(&lane.connector, None).unwrap();
            let obstacle = Obstacle::new(kind, Reply::new(451, (4, 3, 2), "no")).after(wait);
            self.lanes.apply(&permits, &lane, &Err(obstacle), 0.5);
        }

        fn look(&self, due: &[Due]) -> Look {
            look(due, &self.built, &self.lanes, self.now)
        }
    }

    /// What was found, in one line: `claim ROUTE CONNECTOR×PERMITS`, `sweep ROUTE`, `reroute ROUTE`, `lost PIN`, `wait SECONDS`, `wants
    /// work`, and how much is due.
    fn said(found: &Look) -> String {
        let mut words = Vec::new();
        for claim in &found.claims {
            assert_eq!(claim.ask.limit, claim.permits.len());
            words.push(format!(
                "claim {} {}×{}{}",
                claim.ask.route,
                claim.candidates[claim.start],
                claim.permits.len(),
                if claim.is_early { " early" } else { "" }
            ));
        }
        words.extend(
            found
                .sweeps
                .iter()
                .map(|c| format!("sweep {}", c.ask.route)),
        );
        words.extend(found.reroutes.iter().map(|r| format!("reroute {r}")));
        words.extend(found.lost_pins.iter().map(|(_, pin)| format!("lost {pin}")));
        if let Some(wait) = found.wait {
            words.push(format!("wait {:.0}", wait.as_secs_f64()));
        }
        if found.wants_work {
            words.push("wants work".to_owned());
        }
        words.push(format!("{} due", found.backlog.len()));
        words.join(", ")
    }

    #[test]
    fn what_is_due_meets_the_lanes() {
        use ObstacleKind::{Down, MailboxRefused, Misconfigured, Throttled};
        // What was heard of a lane before, what is due (route, pin, lane, in seconds), what is found.
        type Heard = (&'static str, ObstacleKind, Option<u32>);
        type Waiting = (&'static str, &'static str, &'static str, u64);
        let cases: &[(&[Heard], &[Waiting], &str)] = &[
            (&[], &[], "0 due"),
            (&[], &[("r", "", "", 0)], "claim r a×3, 1 due"),
            (&[], &[("r", "", "", 7), ("s", "", "", 5)], "wait 5, 0 due"),
            // Both routes want the permits of b, which the first of them gets.
            (
                &[],
                &[("s", "", "", 0), ("r", "b", "", 0)],
                "claim s b×3, wants work, 2 due",
            ),
            (
                &[],
                &[("s", "", "", 0), ("r", "", "", 0), ("s", "", "", 9)],
                "claim s b×3, claim r a×3, wait 9, 2 due",
            ),
            (&[], &[("gone", "", "", 0)], "reroute gone, 1 due"),
            (&[], &[("r", "x", "", 0)], "claim r a×3, lost x, 1 due"),
            // What is shut sends mail to the next connector, and leaves it where there is none.
            (
                &[("a", Down, None)],
                &[("r", "", "", 0)],
                "claim r b×3, 1 due",
            ),
            (&[("a", Down, None)], &[("r", "a", "", 0)], "sweep r, 1 due"),
            (
                &[("a", Misconfigured, None)],
                &[("r", "a", "", 0), ("s", "", "", 0)],
                "claim s b×3, sweep r, 2 due",
            ),
            // A wait does not, but what is past its time is given up meanwhile.
            (
                &[("a", Throttled, Some(20))],
                &[("r", "", "", 0)],
                "sweep r, wait 20, 1 due",
            ),
            // Mail in the lane of a refused mailbox waits there; other mail goes.
            (
                &[("a/m@x", MailboxRefused, None)],
                &[("r", "a", "a/m@x", 0), ("r", "", "", 0)],
                "claim r a×3, sweep r, 2 due",
            ),
            // It is no lane of b, which takes it.
            (
                &[("a/m@x", MailboxRefused, None)],
                &[("r", "", "a/m@x", 0)],
                "claim r b×3, 1 due",
            ),
        ];
        for (heard, due, expected) in cases {
            let world = World::new();
            for (lane, kind, wait) in *heard {
                world.heard(lane, *kind, wait.map(|seconds| SECOND * seconds));
            }
            let due: Vec<Due> = due
                .iter()
                .map(|(route, pin, lane, at)| world.due(route, pin, lane, *at))
                .collect();
            assert_eq!(said(&world.look(&due)), *expected, "{heard:?} {due:?}");
        }
    }

    #[test]
    fn permits_that_are_not_used_come_back() {
        let world = World::new();
        let due = [world.due("s", "", "", 0)];
        let first = world.look(&due);
        assert_eq!(said(&first), "claim s b×3, 1 due");
        assert_eq!(said(&world.look(&due)), "wants work, 1 due");
        drop(first);
        assert_eq!(said(&world.look(&due)), "claim s b×3, 1 due");
    }

    /// What was refused is due when its lane is probed; somebody who mended it wants to know at once.
    #[test]
    fn a_wished_probe_is_claimed_before_it_is_due() {
        let world = World::new();
        world.heard("a/m@x", ObstacleKind::MailboxRefused, None);
        let due = [world.due("r", "a", "a/m@x", 200)];
        assert_eq!(said(&world.look(&due)), "wait 200, 0 due");
        world.lanes.configure(&world.built);
        assert_eq!(said(&world.look(&due)), "claim r a×1 early, 1 due");
    }
}

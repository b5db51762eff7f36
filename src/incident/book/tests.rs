use std::collections::BTreeMap;

use super::*;
use crate::fixture;

/// A gateway's memory of incidents and a clock, without a file.
struct Desk {
    book: Book,
    rows: BTreeMap<i64, IncidentRow>,
    now: Moment,
    settings: IncidentSettings,
    /// `KIND OBJECT TRANSITION NUMBER` of all that was told.
    told: Vec<String>,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Desk {
    fn new() -> Self {
        Self {
            book: Book::default(),
            rows: BTreeMap::new(),
            now: Moment {
                wall: SystemTime::UNIX_EPOCH + seconds(1_800_000_000),
                boot: seconds(1_000),
            },
            settings: IncidentSettings {
                open_after: seconds(120),
                recover_after: seconds(300),
                remind: seconds(86_400),
                channels: Vec::new(),
                expected: Vec::new(),
            },
            told: Vec::new(),
        }
    }

    /// So much later these are so.
    fn look(&mut self, later: u64, seen: &[IncidentCondition]) -> Vec<String> {
        self.now.wall += seconds(later);
        self.now.boot += seconds(later);
        let since = remembered(self.now.wall);
        let known: Vec<IncidentRow> = self
            .rows
            .values()
            .filter(|row| row.state != RECOVERED || row.recovered >= Some(since))
            .cloned()
            .collect();
        let mut told = Vec::new();
        for IncidentChange {
            mut row,
            transition,
        } in self.book.look(&known, seen, self.now, &self.settings)
        {
            if row.id == 0 {
                row.id = self.rows.len() as i64 + 1;
            }
            if let Some(transition) = transition {
                told.push(format!(
                    "{} {} {transition:?} {}",
                    row.kind, row.object, row.number
                ));
            }
            self.rows.insert(row.id, row);
        }
        self.told.extend(told.iter().cloned());
        told
    }

    /// Looks every five seconds.
    fn pass(&mut self, for_seconds: u64, seen: &[IncidentCondition]) -> Vec<String> {
        (0..for_seconds / 5)
            .flat_map(|_| self.look(5, seen))
            .collect()
    }
}

fn closed(name: &str) -> IncidentCondition {
    IncidentCondition::new(
        IncidentKind::ConnectorClosed,
        name,
        vec!["451 no".to_owned()],
    )
}

fn paused(name: &str) -> IncidentCondition {
    IncidentCondition::new(
        IncidentKind::ConnectorPaused,
        name,
        vec!["535 no".to_owned()],
    )
}

#[test]
fn a_condition_opens_when_it_held_and_recovers_once_when_it_is_gone() {
    let mut desk = Desk::new();
    assert!(desk.pass(115, &[closed("up")]).is_empty());
    // It went away for a moment: it has to hold anew.
    assert!(desk.look(5, &[]).is_empty());
    assert!(desk.pass(120, &[closed("up")]).is_empty());
    assert_eq!(
        desk.look(5, &[closed("up")]),
        ["connector_closed up Opened 1"]
    );
    assert!(desk.pass(600, &[closed("up")]).is_empty());
    // What flaps is one incident.
    for _ in 0..5 {
        assert!(desk.pass(295, &[]).is_empty());
        assert!(desk.pass(50, &[closed("up")]).is_empty());
    }
    assert!(desk.pass(300, &[]).is_empty());
    assert_eq!(desk.look(5, &[]), ["connector_closed up Recovered 2"]);
    assert!(desk.pass(10_000, &[]).is_empty());
    assert_eq!(desk.rows[&1].count, 1);
}

#[test]
fn what_is_ours_to_mend_opens_at_once() {
    let mut desk = Desk::new();
    assert_eq!(
        desk.look(5, &[paused("up"), closed("other")]),
        ["connector_paused up Opened 1"]
    );
    let row = &desk.rows[&1];
    assert_eq!(
        (row.severity.as_str(), row.evidence.as_slice()),
        ("critical", &["535 no".to_owned()][..])
    );
}

#[test]
fn opened_again_within_an_hour_it_is_the_same_and_later_it_is_another() {
    let mut desk = Desk::new();
    desk.look(5, &[paused("up")]);
    desk.pass(305, &[]);
    assert_eq!(desk.rows[&1].state, RECOVERED);
    assert_eq!(
        desk.look(3_500, &[paused("up")]),
        ["connector_paused up Opened 3"]
    );
    assert_eq!((desk.rows.len(), desk.rows[&1].count), (1, 2));
    assert_eq!(desk.rows[&1].recovered, None);
    desk.pass(305, &[]);
    assert_eq!(
        desk.look(3_700, &[paused("up")]),
        ["connector_paused up Opened 1"]
    );
    assert_eq!((desk.rows.len(), desk.rows[&2].count), (2, 1));
}

#[test]
fn somebody_is_reminded_daily_until_somebody_looks_after_it() {
    let mut desk = Desk::new();
    desk.look(5, &[paused("up")]);
    assert!(desk.look(86_395, &[paused("up")]).is_empty());
    assert_eq!(
        desk.look(10, &[paused("up")]),
        ["connector_paused up Reminded 2"]
    );
    assert!(desk.look(86_395, &[paused("up")]).is_empty());
    // A clock that is set ahead reminds nobody.
    desk.now.wall += seconds(1_000_000);
    assert!(desk.look(1, &[paused("up")]).is_empty());
    assert_eq!(
        desk.look(10, &[paused("up")]),
        ["connector_paused up Reminded 3"]
    );
    // A restart forgets nothing of it.
    desk.look(40_000, &[paused("up")]);
    desk.book = Book::default();
    assert!(desk.look(46_000, &[paused("up")]).is_empty());
    assert_eq!(
        desk.look(500, &[paused("up")]),
        ["connector_paused up Reminded 4"]
    );
    desk.rows.get_mut(&1).unwrap().state = ACKNOWLEDGED.to_owned();
    for _ in 0..30 {
        assert!(desk.look(86_400, &[paused("up")]).is_empty());
    }
    assert_eq!(desk.rows[&1].state, ACKNOWLEDGED);
    desk.look(5, &[]);
    assert_eq!(desk.look(400, &[]), ["connector_paused up Recovered 5"]);
    // It is so again, and nobody looks after that.
    assert_eq!(
        desk.look(5, &[paused("up")]),
        ["connector_paused up Opened 6"]
    );
    assert_eq!(desk.rows[&1].state, OPEN);
}

#[test]
fn what_gets_worse_is_said() {
    let mut desk = Desk::new();
    let old = |severity| IncidentCondition {
        severity,
        ..IncidentCondition::new(IncidentKind::QueueOld, "all", Vec::new())
    };
    desk.look(5, &[old(IncidentSeverity::Warning)]);
    assert_eq!(
        desk.look(5, &[old(IncidentSeverity::Critical)]),
        ["queue_old all Worse 2"]
    );
    assert_eq!(desk.rows[&1].severity, "critical");
    assert!(desk.look(5, &[old(IncidentSeverity::Critical)]).is_empty());
    // Less bad is no news.
    assert!(desk.look(5, &[old(IncidentSeverity::Warning)]).is_empty());
    let ends = |stage| IncidentCondition {
        stage,
        ..IncidentCondition::new(IncidentKind::CredentialExpires, "up", Vec::new())
    };
    let old = old(IncidentSeverity::Warning);
    let mut told = Vec::new();
    for stage in [1, 1, 2, 3, 3, 4] {
        told.extend(desk.look(5, &[old.clone(), ends(stage)]));
    }
    let expected = [
        "credential_expires up Opened 1",
        "credential_expires up Worse 2",
        "credential_expires up Worse 3",
        "credential_expires up Worse 4",
    ];
    assert_eq!(told, expected);
}

#[test]
fn many_at_once_are_one_storm_that_lists_them() {
    let mut desk = Desk::new();
    let many: Vec<IncidentCondition> = (0..40).map(|n| paused(&format!("c{n:02}"))).collect();
    let ten = &many[..10];
    assert_eq!(Desk::new().look(5, ten).len(), 10);
    assert_eq!(desk.look(5, &many), ["storm  Opened 1"]);
    assert_eq!(desk.rows.len(), 1);
    let storm = &desk.rows[&1];
    assert_eq!(
        (storm.members.len(), storm.severity.as_str()),
        (40, "critical")
    );
    assert_eq!(storm.evidence[0], "connector_paused c00: 535 no");
    assert!(desk.pass(3_600, &many).is_empty());
    // Another one belongs to it while it is the minute of many, and has its own afterwards.
    let mut more = many.clone();
    more.push(paused("x"));
    assert_eq!(desk.look(5, &more), ["connector_paused x Opened 1"]);
    // One of them is enough for it to go on.
    assert!(desk.pass(600, &[many[7].clone(), paused("x")]).is_empty());
    assert!(desk.pass(300, &[]).is_empty());
    let mut over = desk.look(5, &[]);
    over.sort();
    assert_eq!(
        over,
        ["connector_paused x Recovered 2", "storm  Recovered 2"]
    );
}

#[test]
fn the_eleventh_within_a_minute_makes_a_storm() {
    let mut desk = Desk::new();
    let mut seen = Vec::new();
    let mut told = Vec::new();
    for n in 0..15 {
        seen.push(paused(&format!("c{n:02}")));
        told.extend(desk.look(4, &seen));
    }
    assert_eq!(told.len(), 11, "{told:?}");
    assert_eq!(told[10], "storm  Opened 1");
    let storm = desk.rows.values().find(|row| row.kind == "storm").unwrap();
    assert_eq!(storm.members.len(), 15);
    // One each minute is none.
    let mut desk = Desk::new();
    let mut seen = Vec::new();
    for n in 0..30 {
        seen.push(paused(&format!("c{n:02}")));
        assert_eq!(desk.look(60, &seen).len(), 1);
    }
}

/// Whatever happens: each incident opens before it is reminded of or recovers, its transitions are numbered without a gap, and in the
/// end, when nothing is wrong any more, nothing is open.
#[test]
fn any_course_of_things_is_told_in_order() {
    for seed in 0..fixture::times(300) as u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut desk = Desk::new();
        let all: Vec<IncidentCondition> = (0..14)
            .map(|n| {
                if n % 2 == 0 {
                    paused(&format!("c{n}"))
                } else {
                    closed(&format!("c{n}"))
                }
            })
            .collect();
        let mut on = vec![false; all.len()];
        for _ in 0..200 {
            for one in &mut on {
                if random.u8(..) < 20 {
                    *one = !*one;
                }
            }
            let seen: Vec<IncidentCondition> = all
                .iter()
                .zip(&on)
                .filter(|(_, on)| **on)
                .map(|(c, _)| c.clone())
                .collect();
            desk.look(random.u64(1..400), &seen);
            if random.u8(..) < 8 {
                desk.book = Book::default();
            }
            if random.u8(..) < 20
                && let Some(row) = desk.rows.values_mut().find(|row| row.state == OPEN)
            {
                row.state = ACKNOWLEDGED.to_owned();
            }
        }
        desk.look(5, &[]);
        desk.look(400, &[]);
        let open: Vec<&IncidentRow> = desk.rows.values().filter(|row| is_live(row)).collect();
        assert!(open.is_empty(), "seed {seed}: {open:?}");
        let mut last: BTreeMap<String, (u32, bool)> = BTreeMap::new();
        for line in &desk.told {
            let (rest, number) = line.rsplit_once(' ').unwrap();
            let (name, what) = rest.rsplit_once(' ').unwrap();
            let number: u32 = number.parse().unwrap();
            let (before, is_open) = last.get(name).copied().unwrap_or_default();
            match what {
                "Opened" => assert!(
                    !is_open && (number == before + 1 || number == 1),
                    "seed {seed}: {line} after {before}"
                ),
                _ => assert!(
                    is_open && number == before + 1,
                    "seed {seed}: {line} after {before}"
                ),
            }
            last.insert(name.to_owned(), (number, what != "Recovered"));
        }
    }
}

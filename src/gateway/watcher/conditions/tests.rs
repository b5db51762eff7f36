use super::*;
use crate::{
    route::LaneId,
    view::{Credential, Reload, ReloadCause},
};

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

/// Nothing is wrong.
fn calm() -> Sight {
    Sight {
        quotas: Vec::new(),
        now: at(0),
        connectors: ["up", "graph"].map(str::to_owned).into(),
        lanes: vec![
            lane("up", LaneState::Open, ""),
            lane("graph", LaneState::Throttled, "slowly"),
        ],
        row: StatusRow::default(),
        oldest: BTreeMap::new(),
        in_doubt: BTreeMap::new(),
        health: Health::Fine,
        free: Some(10 << 30),
        least: 256 << 20,
        silent: BTreeMap::new(),
        failed_mail: BTreeMap::new(),
        failed_logins: BTreeMap::new(),
        tokens: BTreeMap::new(),
        failing: Vec::new(),
        step: None,
        window: Vec::new(),
        cluster: None,
        twice: 0,
    }
}

fn lane(name: &str, state: LaneState, why: &str) -> LaneRow {
    LaneRow {
        lane: LaneId::parse(name),
        state,
        since: at(0),
        why: why.to_owned(),
        probe: None,
        version: 1,
        node: crate::queue::store::NodeId::default(),
    }
}

/// `KIND OBJECT SEVERITY STAGE`.
fn found(sight: &Sight) -> Vec<String> {
    let all = conditions(sight);
    let mut found: Vec<String> = all
        .iter()
        .map(|one| {
            format!(
                "{} {} {} {}",
                one.kind,
                one.object,
                one.severity.as_str(),
                one.stage
            )
        })
        .collect();
    found.sort();
    for one in &all {
        assert!(
            one.evidence.iter().all(|line| !line.contains(['\n', '\r'])),
            "{one:?}"
        );
        assert!(
            one.evidence.iter().all(|line| !line.contains("kim@")),
            "{one:?}"
        );
    }
    found
}

fn listed<T: ToString>(expected: impl IntoIterator<Item = T>) -> Vec<String> {
    expected.into_iter().map(|one| one.to_string()).collect()
}

fn with(change: impl FnOnce(&mut Sight)) -> Vec<String> {
    let mut sight = calm();
    change(&mut sight);
    found(&sight)
}

fn of_connector() -> Credential {
    Credential {
        connector: Some("up".to_owned()),
        ..Credential::default()
    }
}

fn of_listener() -> Credential {
    Credential {
        listener: Some("lan".to_owned()),
        ..Credential::default()
    }
}

fn ends(owner: Credential, after: i64) -> Credential {
    let at = if after < 0 {
        at(0) - Duration::from_secs(after.unsigned_abs())
    } else {
        at(after.unsigned_abs())
    };
    Credential {
        file: Some("a.pem".to_owned()),
        not_after: crate::mail::time::rfc3339(at),
        ..owner
    }
}

/// Each fault makes exactly its own.
#[test]
fn each_fault_is_its_own_kind() {
    assert!(found(&calm()).is_empty());
    let said = "535 5.7.8 <kim@corp.example>\r\nno";
    for (state, name, expected) in [
        (
            LaneState::Paused,
            "up",
            Some("connector_paused up critical 0"),
        ),
        (
            LaneState::Closed,
            "up",
            Some("connector_closed up warning 0"),
        ),
        (
            LaneState::Paused,
            "up/a@corp.example",
            Some("mailbox_refused up/a@corp.example warning 0"),
        ),
        (
            LaneState::Stopped,
            "up",
            Some("connector_stopped up info 0"),
        ),
        (LaneState::Throttled, "up", None),
        (LaneState::Throttled, "up/a@corp.example", None),
        (LaneState::Paused, "gone", None),
    ] {
        let seen = with(|sight| sight.lanes.push(lane(name, state, said)));
        assert_eq!(seen, listed(expected), "{name} {state}");
    }
    for (waits, expected) in [
        (50 * MINUTE, None),
        (61 * MINUTE, Some("queue_old all warning 0")),
        (6 * HOUR + 1, Some("queue_old all critical 0")),
    ] {
        let seen = with(|sight| {
            sight
                .oldest
                .insert("all".to_owned(), at(0) - Duration::from_secs(waits));
        });
        assert_eq!(seen, listed(expected), "{waits}");
    }
    let seen = with(|sight| {
        let found = (1, said.to_owned());
        sight.in_doubt.insert("all".to_owned(), found);
    });
    assert_eq!(seen, ["mail_in_doubt all info 0"]);
    let seen = with(|sight| {
        let failed = (3, said.to_owned());
        sight.failed_mail.insert("all".to_owned(), failed);
    });
    assert_eq!(seen, ["mail_failed all warning 0"]);
    let seen = with(|sight| {
        let failed = (1, said.to_owned());
        sight.failed_mail.insert("archive all".to_owned(), failed);
    });
    assert_eq!(seen, ["archive all warning 0"]);
    assert_eq!(
        with(|sight| sight.health = Health::Failing),
        ["store_failing  critical 0"]
    );
    assert_eq!(
        with(|sight| sight.health = Health::Full),
        ["disk_low  critical 0"]
    );
    assert_eq!(
        with(|sight| sight.free = Some((512 << 20) - 1)),
        ["disk_low  critical 0"]
    );
    assert!(with(|sight| sight.free = Some(512 << 20)).is_empty());
    assert!(with(|sight| (sight.free, sight.least) = (Some(0), 0)).is_empty());
    let seen = with(|sight| {
        sight.tokens.insert("graph".to_owned(), said.to_owned());
    });
    assert_eq!(seen, ["token_failing graph warning 0"]);
    let seen = with(|sight| {
        let (at, error) = (String::new(), Some(format!("error: x\n\n  ^\n{said}")));
        sight.row.reload = Some(Reload {
            at,
            cause: ReloadCause::Asked,
            error,
        });
    });
    assert_eq!(seen, ["reload_refused  warning 0"]);
    for (count, expected) in [(20, None), (21, Some("login_attack 192.0.2.7 warning 0"))] {
        let seen = with(|sight| {
            sight.failed_logins.insert("192.0.2.7".to_owned(), count);
        });
        assert_eq!(seen, listed(expected));
    }
    let seen = with(|sight| {
        let since = (at(0) - Duration::from_hours(24), Duration::from_hours(24));
        sight.silent.insert("printer".to_owned(), since);
    });
    assert_eq!(seen, ["client_silent printer warning 0"]);
    assert_eq!(
        with(|sight| sight.step = Some(-301)),
        ["clock_jumped  warning 0"]
    );
    let seen = with(|sight| sight.failing.push(("oncall".to_owned(), said.to_owned())));
    assert_eq!(seen, ["notify_failing oncall warning 0"]);
    assert_eq!(
        with(|sight| sight.window.push("x".to_owned())),
        ["window_failing  warning 0"]
    );
}

#[test]
fn what_ends_is_said_in_steps() {
    let day = 86_400;
    for (left, expected) in [
        (31 * day, None),
        (30 * day - 1, Some("warning 1")),
        (14 * day - 1, Some("warning 2")),
        (7 * day - 1, Some("warning 3")),
        (day - 1, Some("warning 4")),
        (0, Some("warning 4")),
        (-1, Some("critical 5")),
        (-100 * day, Some("critical 5")),
    ] {
        let seen = with(|sight| {
            // Of two the first counts.
            sight.row.credentials =
                vec![ends(of_connector(), 300 * day), ends(of_connector(), left)];
        });
        let expected = expected.map(|expected| format!("credential_expires up {expected}"));
        assert_eq!(seen, listed(expected), "{left}");
    }
    for (left, word, expected) in [
        (300 * day, "failed", Some("rotation_failed up warning 0")),
        (30 * day, "failed", Some("rotation_failed up warning 0")),
        (300 * day, "proving", None),
        (300 * day, "off", None),
    ] {
        let seen = with(|sight| {
            let credential = Credential {
                rotation: Some(word.to_owned()),
                why: Some("it refused <kim@corp.example>\r\nno".to_owned()),
                ..of_connector()
            };
            sight.row.credentials = vec![ends(credential, left)];
        });
        assert_eq!(seen, listed(expected), "{left} {word}");
    }
    let seen = with(|sight| {
        let credential = Credential {
            rotation: Some("failed".to_owned()),
            ..of_connector()
        };
        sight.row.credentials = vec![ends(credential, 30 * day - 1)];
    });
    let expected = [
        "credential_expires up warning 1",
        "rotation_failed up critical 0",
    ];
    assert_eq!(seen, expected);
    let seen = with(|sight| {
        sight.row.credentials = vec![ends(of_listener(), -1)];
    });
    assert_eq!(seen, ["certificate_expires lan critical 5"]);
}

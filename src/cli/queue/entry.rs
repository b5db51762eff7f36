//! An entry of the queue for programs, and what keeps it waiting.
//!
//! Apart from `queue`, which finds the entries and prints them for people. It asks nobody.

use serde_json::{Value, json};

use crate::{
    cli::output,
    queue::store::{Entry, LaneRow, State},
    route::Router,
};

/// The first connector of the route, when all of them are closed or paused; an in-doubt message has only one.
pub(super) fn blocked(entry: &Entry, router: &Router, lanes: &[LaneRow]) -> Option<String> {
    if !matches!(entry.state, State::Waiting) {
        return None;
    }
    let shut = |name: &str| {
        lanes.iter().any(|lane| {
            // A mailbox that has to wait holds up its own mail alone.
            let waits = lane.state == "throttled" && lane.lane.contains('/');
            lane.state != "open" && !waits && lane.lane.split('/').next() == Some(name)
        })
    };
    if let Some(pinned) = &entry.pinned {
        return shut(pinned.as_str()).then(|| pinned.to_string());
    }
    let route = router.named(&entry.route)?;
    let all = route.connectors.iter().all(|name| shut(name.as_str()));
    route
        .connectors
        .first()
        .filter(|_| all)
        .map(ToString::to_string)
}

/// As `--json` shows it.
pub(super) fn json(entry: &Entry, router: &Router, lanes: &[LaneRow]) -> Value {
    json!({
        "id": entry.id.to_string(),
        "route": entry.route.as_str(),
        "state": entry.state.as_str(),
        "sender": entry.sender.as_deref().unwrap_or("<>"),
        "recipients": entry.recipients.iter().map(|r| json!({
            "address": r.address,
            "state": r.state,
            "last_reply": r.last_reply,
        })).collect::<Vec<_>>(),
        "attempts": entry.attempts,
        "next_attempt": entry.next_attempt.map(output::rfc3339),
        "blocked_by": blocked(entry, router, lanes),
        "waits_for": entry.lane,
        "size": entry.size,
        "accepted_at": output::rfc3339(entry.accepted),
    })
}

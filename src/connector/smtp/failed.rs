//! Why there is no connection, and whether another address may do better.
//!
//! The opening itself meets one address at a time; here stands what several of them come to.

use std::fmt;

use crate::{
    mail::{
        outcome::{Obstacle, ObstacleKind},
        text::cut,
    },
    smtp::client::class::Crowding,
};

/// Why there is no connection.
pub(super) struct Failed {
    pub(super) obstacle: Obstacle,
    /// Another address may do better.
    pub(super) other: bool,
    /// Another token may do.
    pub(super) is_token_refused: bool,
    /// It said nothing in the time it was given.
    pub(super) is_silent: bool,
    /// The same address may do without TLS, where TLS is taken as it comes.
    pub(super) is_tls: bool,
    /// There may be too many connections, and nothing else be wrong.
    pub(super) crowding: Option<Crowding>,
}

impl Failed {
    pub(super) fn new(obstacle: Obstacle, other: bool) -> Self {
        Self {
            obstacle,
            other,
            is_token_refused: false,
            is_silent: false,
            is_tls: false,
            crowding: None,
        }
    }
}

impl From<Obstacle> for Failed {
    fn from(obstacle: Obstacle) -> Self {
        Self::new(obstacle, false)
    }
}

/// What to report when no address worked: one obstacle, which tells of all.
pub(super) fn together<Hop: fmt::Display>(mut tried: Vec<(Hop, Failed)>) -> Option<Failed> {
    if tried.len() < 2 {
        return tried.pop().map(|(_, failed)| failed);
    }
    let all: Vec<String> = tried
        .iter()
        .map(|(target, failed)| {
            let reply = &failed.obstacle.reply;
            // A code of our own says nothing.
            let is_own = matches!(reply.enhanced, Some((4, 4, 1) | (4, 3, 5)));
            let code = if is_own {
                String::new()
            } else {
                format!("{} ", reply.code)
            };
            format!("{target}: {code}{}", cut(&reply.text, 900 / tried.len()))
        })
        .collect();
    // A final refusal counts; otherwise a fault that may pass at one of them counts before what is wrong with us.
    let place = match tried.last() {
        Some((_, failed)) if !failed.other => tried.len() - 1,
        _ => tried
            .iter()
            .position(|(_, f)| f.obstacle.kind == ObstacleKind::Down)
            .unwrap_or(0),
    };
    // An address that is dead besides makes the one that has too many no less so.
    let crowding = tried.iter().filter_map(|(_, failed)| failed.crowding).max();
    let mut chosen = tried.swap_remove(place).1;
    chosen.crowding = crowding;
    chosen.obstacle.reply.text = all.join("; ");
    Some(chosen)
}

//! A login at a connector, without sending anything; and what an obstacle is in plain words.

use std::time::{Duration, Instant};

use crate::{
    connector::{self, Services},
    mail::outcome::{Obstacle, ObstacleKind},
};

/// One login, all in all.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why a login did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFault {
    /// That which the connector would be in.
    pub state: &'static str,
    /// With the remedy.
    pub why: String,
}

/// What was found at the upstream; takes up to two minutes.
///
/// # Errors
/// It did not work.
pub async fn log_in(
    settings: &connector::Settings,
    services: Services,
) -> Result<String, LoginFault> {
    let deadline = Instant::now() + PATIENCE;
    let fault = |state, why| LoginFault { state, why };
    let connector = settings
        .build(services)
        .map_err(|text| fault("misconfigured", text))?;
    // The connector keeps the deadline; the second clock is for one that does not.
    match tokio::time::timeout(PATIENCE * 2, connector.probe(deadline)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(obstacle)) => Err(fault(obstacle.kind.as_str(), said(&obstacle))),
        Err(_) => Err(fault("down", "no answer in time".to_owned())),
    }
}

/// An obstacle, in plain words.
pub fn said(Obstacle { kind, reply, .. }: &Obstacle) -> String {
    match kind {
        ObstacleKind::Down => format!("the upstream is not taking mail: {reply}"),
        ObstacleKind::Misconfigured => {
            format!("our configuration or credentials are not accepted: {reply}")
        }
        ObstacleKind::Stopped => format!("the connector is stopped: {reply}"),
        ObstacleKind::MailboxRefused => format!("the sending mailbox is not accepted: {reply}"),
        ObstacleKind::FromRefused => {
            format!("this From is not accepted in the sending mailbox: {reply}")
        }
        ObstacleKind::Intercepted => format!("the upstream was not reached: {reply}"),
        ObstacleKind::Throttled => format!("the upstream asks us to slow down: {reply}"),
    }
}

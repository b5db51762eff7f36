//! SENDING: claim, pass the gate, deliver, settle.
use std::time::Duration;

use crate::mail::address::Address;

pub mod bounce;
pub mod gate;
pub mod plan;

/// What delivery needs of the configuration besides router and connectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Before a message whose outcome is unknown is sent again.
    pub in_doubt_wait: Duration,
    /// `[bounce]`.
    pub bounce: BounceSettings,
}

/// `[bounce]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BounceSettings {
    /// Whether the sender gets one.
    pub to_sender: bool,
    /// The visible From.
    pub from: Address,
    /// The administrators.
    pub copy_to: Vec<Address>,
    /// Reporting-MTA.
    pub hostname: String,
}

//! Postern (map to come).

pub mod mail;
pub mod secret;

pub mod policy;
pub mod route;

pub mod smtp;

pub mod listener;
pub mod queue;

pub mod connector;
pub mod delivery;
pub mod telemetry;

pub mod config;
pub mod gateway;
pub mod systemd;

pub mod cli;

//! The one integration binary: the real gateway, real sockets, real peers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unreachable_pub, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::format_collect,
    clippy::assigning_clones,
    clippy::cloned_ref_to_slice_refs
)]

mod harness;

mod back;
mod behind;
mod big;
mod cli;
mod client_certificates;
mod clients;
mod clock;
mod cloud;
mod cluster;
mod cluster_clients;
mod cluster_clock;
mod cluster_database;
mod cluster_docs;
mod cluster_incidents;
mod cluster_keys;
mod cluster_restored;
mod cluster_rolling;
mod cluster_seen;
mod commands;
mod config;
mod connector;
mod copies;
mod crash;
mod credentials;
mod delivery;
mod described;
mod devices;
mod dkim;
mod doctor;
mod dsn;
mod durability;
mod early;
mod end_to_end;
mod faults;
mod fuzz;
mod graph;
mod graph_large;
mod health;
mod hostile;
mod http;
mod import;
mod incident;
mod incident_kinds;
mod json;
mod line;
mod listener;
mod members;
mod mistakes;
mod moving;
mod oauth;
mod old_clients;
mod old_tls;
mod old_upstreams;
mod operator;
mod packages;
mod pages;
mod places;
mod postgres;
mod postgres_restored;
mod postgres_server;
mod postgres_standby;
mod proposals;
mod proxy;
mod quotas;
mod readers;
mod refusals;
mod relays;
mod report;
mod rotation;
mod search;
mod secrets;
mod setup;
mod shaping;
mod smarthost;
mod spill;
mod stopped;
mod store;
mod turns;
mod utf8;
mod width;
mod window;
mod window_bounds;
mod window_faults;
mod writing;

// The fuzz targets take it in with their properties.
use fuzz::properties::fixture;

//! The one integration binary: the real gateway, real sockets, real peers.

mod harness;

mod big;
mod cli;
mod clients;
mod crash;
mod end_to_end;
mod smarthost;

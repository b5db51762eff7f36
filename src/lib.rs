//! Postern: a local SMTP relay gateway. This page is the map; the code below it is the path of a message.
//!
//! ```text
//!  application ──▶ listener::connection ──bytes──▶ smtp::server::Session ──▶ policy ──▶ route     (pure, in memory)
//!                         │  Step::Enqueue
//!                         ▼
//!                  queue.accept ── one transaction, on disk ──▶ then, and only then, "250 queued as ID"
//!                         ▼ wake
//!                  delivery: claim Job ─▶ gate ─▶ connector.deliver ─▶ Report
//!                         ▼
//!                  plan(job, report, now) ─▶ Settlement
//!                         ▼
//!                  queue.settle ── one transaction: outcomes + next attempt + the bounce, if any
//! ```
//!
//! A bounce is a new message through the same door, with `<>` as its sender, so it can never bounce again. `send` and the
//! `sendmail` drop-in speak SMTP to the listener: one way in. `queue` commands open the store directly, so they work while
//! the gateway is down.
//!
//! # The folders, in the order a message meets them
//!
//! - `mail/` the words every module shares: addresses, messages, headers, replies, outcomes; how text from outside (`text.rs`)
//!   and times (`time.rs`) are written
//! - `policy/` MAY IT? pure rules over settings; `judge.rs` has the questions in the order of a session, `explain` plays one
//! - `route.rs` WHERE TO?
//! - `smtp/` HOW IT IS SAID: `server/` (its state machine in `session/`) and `client/` (what a refusal means in `class/`,
//!   who waits for it in `dialogue/`), bytes in, steps out, no sockets
//! - `listener/` SOCKETS IN: `connection/` drives one session, `acceptor/` looks at what a TLS client offers and chooses who answers;
//!   `old_tls/` is the library for old devices, below all that uses it
//! - `queue/` NOTHING IS LOST: `store.rs` is the trait, `settling.rs` what a settlement makes of a job, `turns.rs` whose turn it is in a
//!   lane, `sqlite/` the rows and the one writer, `postgres/` the rows that several gateways share, `spill/` both of them: what lies here while
//!   those are away; `body.rs` has the large bodies, `lock.rs` says who has a directory
//! - `delivery/` SENDING: `round.rs` is the loop, `look.rs` finds what it claims; `attempt.rs` is one job, `plan.rs` (by
//!   `verdict.rs`, for each recipient) decides what follows, `settlement.rs` writes it down and `reports/` tells who asked; `lanes/`
//!   gives the permits, as `gate.rs` allows; `members/` says who else is at work on the queue, and what is left for
//!   oneself, and `member.rs` asks the store
//! - `connector/` WAYS OUT: `smtp/`, `graph/`, capture, discard, and in its `mod.rs` what is known of each kind; `oauth/` gets access
//!   tokens and replaces an application's certificate, `http/` says what a request may have done and why it failed, `tls/` whose certificate is trusted; `outbound.rs` says
//!   which hosts are reached, and how
//! - `telemetry/` the log: `maillog.rs` holds one function for each event; what is counted: `counted.rs` sends and reads it,
//!   `metrics.rs` is the text of `/metrics`
//! - `view/` what is shown: status, lanes, entries and lives as types, for `--json` and the status row
//! - `window/` the file beside the queue where the page keeps what it needs: logins, the audit, proposals, incidents
//! - `incident/` WHO IS TOLD: `catalogue.rs` has the words of every kind, `book.rs` decides what opens and ends, `outbox.rs` writes down
//!   what is to be told, `channels/` says it
//! - `admin/` THE OPERATOR'S WINDOW: `server.rs` takes connections, `gate.rs` asks who it is and whether he may, `api/` answers programs and
//!   `pages/` people; what it asks of the gateway is in `host.rs`
//! - `config/` TEXT TO SETTINGS: `load.rs` takes a file or says all that is wrong with it, `keys.rs` is every key as data,
//!   `table.rs` reads them and collects every problem (`table/` has the days), `sections/` makes each section its module's own settings; `edit/` changes the
//!   text by operations, and nothing else of it
//! - `gateway.rs` builds everything from a configuration; run, reload, drain (`gateway/` writes the status row and the health file
//!   that commands read); `instruments.rs` shows what there is, `watcher/` looks for what needs somebody, `report/` finds out what is
//!   shown, and tries what is to be tried; `watch.rs` sees which files have changed
//! - `cli/` one file for each command: arguments, print, exit status (`queue/` has the .eml, `cert/` what another server shows); `demo/`
//!   holds the stand-in smarthost, `sendmail/` what becomes of the text, `setup/` what the three kinds of a first configuration share,
//!   `import/` what the files of other programs become (`postfix/`, `iis/`, `smtp2graph/`, `msmtp/`)
//!
//! # Who may import whom
//!
//! ```text
//! cli │ gateway │ config │ admin │ incident │ view │ delivery │ listener, connector │ smtp, queue, window │ policy, route, telemetry │ old_tls │ mail, secret, systemd, watch
//! ```
//! A module imports only from rows to its right; neighbours in a row do not know each other. `config` sits above what it builds:
//! nobody below has heard of TOML, environment variables or files. A test (`tidy`) holds this, that the decisions are pure, that files
//! lead to each other in no circle, that a type name means one thing, and how much code a module may have.
//!
//! # Invariants
//!
//! 1. `250` after DATA is written only after `insert` returned, and `insert` returns only when it is on disk.
//! 2. Every change to queued mail is one store transaction; a failure and its bounce are the same one, and so is any other report.
//! 3. Only `listener` and `delivery` insert; only `delivery` sends mail of the queue (`test`, `check --connect` and mail about incidents call a
//!    connector by its name);
//!    connectors see neither queue nor routes.
//! 4. A lease names its node (a start of a gateway) and ends with it: a node frees what its predecessor held. There is no repair code.
//! 5. A delivery has a deadline; only the connector knows at which stage it was cut.
//! 6. Unknown keys, dangling names, unmatched senders: refused at load or at RCPT, never at 3 a.m. in the queue.
//! 7. No statics but the log subscriber and, in `main.rs`, the allocator. No `unwrap` outside tests. A panic ends one connection or one job.
//! 8. Bytes of the body leave exactly as they came (line-ending repair and added header fields excepted).
//! 9. Secrets have no `Display` and no `Serialize`.
//! 10. Text from outside reaches a log, a terminal or a reply only through `mail::text`.

#![cfg_attr(
    test,
    allow(clippy::too_many_lines, reason = "a test's table may be long")
)]

#[cfg(test)]
extern crate self as postern;
#[cfg(test)]
#[path = "../tests/fixture/mod.rs"]
mod fixture;

pub mod mail;
pub mod old_tls;
pub mod secret;

pub mod policy;
pub mod route;

pub mod smtp;

pub mod listener;
pub mod queue;
pub mod window;

pub mod connector;
pub mod delivery;
pub mod telemetry;
pub mod view;

pub mod incident;

pub mod admin;

pub mod config;
pub mod gateway;
pub mod systemd;
pub mod watch;

pub mod cli;

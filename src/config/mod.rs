//! TEXT TO SETTINGS: one file, read once, into each module's own checked settings.
//!
//! It stands above everything it builds, so nobody below has heard of TOML, environment variables or files. It
//! reports every problem in one run and starts nothing.

pub mod cluster;
pub mod diagnostic;
pub mod edit;
mod file;
mod form;
pub mod forms;
mod glance;
mod keys;
mod load;
mod schema;
mod secrecy;
mod sections;
mod settings;
pub mod shown;
mod source;
mod table;
pub mod values;
mod wording;
mod words;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use glance::{Glance, glance};
pub use load::{again, find, load, parse};
pub use schema::schema;
pub use settings::{Config, Environment, Secrets};

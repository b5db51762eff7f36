//! What an upstream's refusal means: the message, the moment, one sender, or ourselves.
//!
//! This is the one place where a code becomes a consequence (the outcome table), with the corrections of the configuration
//! before it. What is known stands in `table`; of a text only the upstream's own words are read, by `wording`.

mod crowding;
mod diagnosis;
mod meaning;
mod table;
mod wording;

pub use crowding::{Crowding, crowding};
pub(super) use diagnosis::heals_by_renewal;
pub use diagnosis::{Diagnosis, Narrow, Override, annotated, classify, diagnose, is_out_of_step};
pub use meaning::{Class, Place};

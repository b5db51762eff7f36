//! CHANGES OF THE FILE: operations go in, the same file comes out with nothing else changed, or why not.
//!
//! ```text
//! view::Changes ─▶ model (what they mean) ─▶ rules (may they) ─▶ splice (the text) ─▶ proof (text = meaning) ─▶ check ─▶ Proposal
//! ```
//! The file stays the truth: its text is never written anew from values, and what cannot be shown to have changed exactly as it
//! was asked is refused. `write` alone touches the file, `keep` the files of secrets; everything else is text to text.

mod draft;
mod keep;
mod layout;
mod lexis;
mod lists;
mod mask;
mod model;
mod place;
mod proposal;
mod refusal;
mod regions;
mod render;
mod rules;
mod splice;
#[cfg(test)]
mod tests;
mod write;

pub use draft::draft;
pub use keep::{directory as secrets_directory, forget};
pub use mask::{diff, masked};
pub use proposal::{Edited, Ground, Plan, Proposal, digest};
pub use refusal::{EditRefusal, Why};
pub use write::{Unwritten, Written, writable, writable_for, write};

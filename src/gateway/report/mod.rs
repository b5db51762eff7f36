//! What is found out for whoever looks, a command or the gateway itself, as `view` shows it.
//!
//! Nothing here prints, and nothing opens a store or asks who holds it: the caller says what it looks at.

pub mod composed;
pub mod examined;
pub mod explain;
pub mod life;
mod lines;
pub mod login;
pub mod services;
pub mod site;
pub mod situation;
pub mod status;
pub mod trial;
pub mod verbs;

//! One integration binary; a module for each subject.

mod harness;
mod store;

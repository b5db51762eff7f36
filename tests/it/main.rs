//! The whole gateway from outside, one module for each subject.

mod config;

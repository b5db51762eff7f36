//! One binary for all tests that open sockets or files.

mod connector;

//! Every integration test, in one binary: real sockets, real files.

mod common;
mod upstream;

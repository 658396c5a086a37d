//! The words that every part of promptkeep speaks: a [`prompt`](prompt::Prompt) and the answer it gets, the
//! [`key`] and scope computed from it, the cached [`entry`](entry::Entry), the [`model`] calls that were made, the
//! [`outcome`](outcome::Outcome) and the [`error`](error::Error) of a request. Plain data and pure functions: no
//! transport, no store, no runtime.

pub mod codec;
pub mod embedding;
pub mod entry;
pub mod error;
pub mod key;
pub mod model;
pub mod outcome;
pub mod prompt;

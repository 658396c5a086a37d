//! Memory tier, store and index as one cache.

pub mod entry;
pub mod index;

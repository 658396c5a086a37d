//! The integration tests, in one binary so that they link once.
#![expect(clippy::unwrap_used, reason = "what cannot go on in a test should fail it")]

mod fault_store;
mod index;
mod store;

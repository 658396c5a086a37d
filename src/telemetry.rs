//! What operators see of the running server: [`metrics`] for Prometheus, the ledger of [`stats`] behind `GetStats` and
//! the dashboard, [`trace`]s, and the [`request_log`]. Plain values, passed in; never a prompt, an answer or a key.

pub mod metrics;
pub mod request_log;
pub mod stats;
pub mod trace;

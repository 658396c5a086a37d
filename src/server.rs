//! A running promptkeep: `new`, `listen`, `shutdown`.

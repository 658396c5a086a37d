//! The ledger: counts, money and percentiles.

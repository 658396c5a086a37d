//! The settings of the index.

/// `[cache.index]`
#[derive(Clone, Debug, PartialEq)]
pub struct IndexConfig {
    pub kind: IndexKind,
    /// Kind `auto`: vectors in one scope above which the graph takes over from the scan.
    pub scan_max: usize,
    /// Share of removed vectors that starts a rebuild in the background.
    pub rebuild_at: f32,
}

/// How the nearest vectors are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// By size.
    Auto,
    Scan,
    Hnsw,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self { kind: IndexKind::Auto, scan_max: 250_000, rebuild_at: 0.2 }
    }
}

//! The settings of the index.

/// `[cache.index]`
#[derive(Clone, Debug, PartialEq)]
pub struct IndexConfig {
    pub kind: IndexKind,
    /// Kind `auto`: maximum number of vectors in one scope that are scanned; larger scopes use the graph.
    pub scan_max: usize,
    /// Fraction of removed vectors above which a background rebuild starts.
    pub rebuild_at: f32,
}

/// How the nearest vectors are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Scans small scopes and uses the graph for large ones.
    Auto,
    Scan,
    Hnsw,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self { kind: IndexKind::Auto, scan_max: 250_000, rebuild_at: 0.2 }
    }
}

//! Configuration of the index.

/// `[cache.index]`
#[derive(Clone, Debug, PartialEq)]
pub struct IndexConfig {
    /// How scopes are searched.
    pub kind: IndexKind,
    /// Kind `auto`: maximum number of vectors of a scope that is scanned. Larger scopes use the graph.
    pub scan_max: usize,
    /// Fraction of removed vectors above which a scope is rebuilt in the background, 0 to 1.
    pub rebuild_at: f32,
}

/// How scopes are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Scans small scopes and uses the graph for large ones.
    Auto,
    /// Scans all scopes.
    Scan,
    /// Uses the graph for all scopes with at least one full block.
    Hnsw,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self { kind: IndexKind::Auto, scan_max: 250_000, rebuild_at: 0.2 }
    }
}

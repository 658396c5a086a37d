//! What a running server can change.

use super::{CacheConfig, Config};

/// Names of the sections and keys that differ and need a restart; all others may be swapped under a running
/// server. Listeners, the store and vectors of another model cannot be changed beneath requests under way,
/// and memory tier and index keep the sizes that they were made with.
pub fn changed_needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let Config {
        server,
        store,
        embedding,
        cache:
            CacheConfig {
                mode: _,
                min_similarity: _,
                max_error_rate: _,
                max_wrong_hits: _,
                audit_rate: _,
                keep: _,
                careful_ttl: _,
                ttl: _,
                ttl_jitter: _,
                stale_while_revalidate: _,
                serve_lower_tier: _,
                max_memory,
                max_entries,
                index,
                learning,
                namespaces: _,
            },
        routing: _,
        upstream: _,
        dashboard,
        telemetry,
        tenants: _,
        providers: _,
        models: _,
    } = old;
    let mut changed = Vec::new();
    for (section, same) in [
        ("server", *server == new.server),
        ("store", *store == new.store),
        ("embedding", *embedding == new.embedding),
        ("dashboard", *dashboard == new.dashboard),
        ("telemetry", *telemetry == new.telemetry),
        ("cache.max_memory", *max_memory == new.cache.max_memory),
        ("cache.max_entries", *max_entries == new.cache.max_entries),
        ("cache.index", *index == new.cache.index),
        ("cache.learning", *learning == new.cache.learning),
    ] {
        if !same {
            changed.push(section);
        }
    }
    changed
}

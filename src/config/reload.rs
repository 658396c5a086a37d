//! Which changes of the configuration a running server can apply.

use super::{CacheConfig, Config, RoutingConfig};

/// Names of the sections and keys that differ and need a restart; a running server applies all others. Listeners,
/// the store and the embedder cannot be replaced under requests in flight, and the memory tier, the index, the
/// learners and the classifier's cache keep the sizes with which they were built.
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
                ignore_fields: _,
                zero_hit_usage: _,
                max_memory,
                max_entries,
                index,
                learning,
                verify: _,
                namespaces: _,
            },
        routing:
            RoutingConfig {
                default: _,
                fallback: _,
                fallback_named: _,
                easy: _,
                moderate: _,
                hard: _,
                classifier: _,
                classifier_timeout: _,
                classifier_ttl: _,
                classifier_cache,
                namespaces: _,
            },
        upstream: _,
        dashboard,
        telemetry,
        tenants: _,
        providers: _,
        models: _,
    } = old;
    let sections = [
        ("server", *server == new.server),
        ("store", *store == new.store),
        ("embedding", *embedding == new.embedding),
        ("dashboard", *dashboard == new.dashboard),
        ("telemetry", *telemetry == new.telemetry),
        ("cache.max_memory", *max_memory == new.cache.max_memory),
        ("cache.max_entries", *max_entries == new.cache.max_entries),
        ("cache.index", *index == new.cache.index),
        ("cache.learning", *learning == new.cache.learning),
        ("routing.classifier_cache", *classifier_cache == new.routing.classifier_cache),
    ];
    sections.into_iter().filter(|(_, is_same)| !is_same).map(|(section, _)| section).collect()
}

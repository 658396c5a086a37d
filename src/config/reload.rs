//! What a running server can change.

use super::Config;

/// Names of the sections that differ and need a restart; all others may be swapped under a running
/// server. Listeners, the store and vectors of another model cannot be changed beneath requests under way.
pub fn changed_needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let Config {
        server,
        store,
        embedding,
        cache: _,
        routing: _,
        upstream: _,
        tenants: _,
        providers: _,
        models: _,
    } = old;
    let mut changed = Vec::new();
    for (section, same) in [
        ("server", *server == new.server),
        ("store", *store == new.store),
        ("embedding", *embedding == new.embedding),
    ] {
        if !same {
            changed.push(section);
        }
    }
    changed
}

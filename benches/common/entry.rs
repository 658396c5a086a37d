//! Entries for the benches of stores.

use std::time::{Duration, SystemTime};

use promptkeep::{
    embed::Embedding,
    entry::Entry,
    key::{CacheKey, Owner, Scope},
    model::Usage,
    prompt::{Completion, FinishReason},
};

/// Returns entry number `n`, an answer of about a hundred tokens.
pub fn entry(n: u64, scope: Scope, vector: Vec<f32>, embedder: &str) -> Entry {
    let created = SystemTime::now();
    Entry {
        key: key(n),
        scope,
        owner: Owner::Tenant("default".to_owned()),
        namespace: "support".to_owned(),
        requested_model: "auto".to_owned(),
        text: Some(format!("how do I change the delivery address of order {n}?")),
        embedding: Embedding::normalized(vector),
        embedder: embedder.to_owned(),
        completion: Completion {
            content: "Open the order, choose “change address” and confirm. ".repeat(8),
            tool_calls: None,
            finish_reason: FinishReason::Stop,
            model: "gpt-4o".to_owned(),
            tier: "hot".to_owned(),
            usage: Usage { prompt_tokens: 40, completion_tokens: 96, cost_usd: 0.001, ..Usage::default() },
            ..Completion::default()
        },
        tags: Vec::new(),
        created,
        expires: created + Duration::from_secs(24 * 60 * 60),
        stale_for: Duration::ZERO,
        difficulty: None,
    }
}

/// Returns the key of entry `n`, as random as a hash.
pub fn key(n: u64) -> CacheKey {
    CacheKey::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

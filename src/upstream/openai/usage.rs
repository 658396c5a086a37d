//! Reader of the usage blocks of all endpoints and providers, which count in three ways what they cached.

use serde_json::Value;

/// Token counts as the provider sent them. Parts are at most what they are part of; nothing else is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportedUsage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Part of `prompt_tokens`.
    pub cached_prompt_tokens: u64,
    /// Part of `prompt_tokens`.
    pub cache_write_tokens: u64,
    /// Part of `completion_tokens`.
    pub reasoning_tokens: u64,
}

/// Tokens of the prompt that are part of `prompt_tokens`: OpenAI and Gemini, its Responses API, DeepSeek, Moonshot.
const CACHED: [&str; 4] = [
    "/prompt_tokens_details/cached_tokens",
    "/input_tokens_details/cached_tokens",
    "/prompt_cache_hit_tokens",
    "/cached_tokens",
];
const CACHE_WRITES: [&str; 2] =
    ["/prompt_tokens_details/cache_write_tokens", "/prompt_tokens_details/cache_creation_tokens"];
/// Anthropic's counts, which `input_tokens` does not contain.
const CACHE_READ: [&str; 1] = ["/cache_read_input_tokens"];
const CACHE_CREATION: [&str; 1] = ["/cache_creation_input_tokens"];
const REASONING: [&str; 3] = [
    "/completion_tokens_details/reasoning_tokens",
    "/output_tokens_details/reasoning_tokens",
    "/reasoning_tokens",
];

/// Reads a usage block; `None` if it holds no counts.
pub fn read(usage: &Value) -> Option<ReportedUsage> {
    let prompt = usage.get("prompt_tokens").or_else(|| usage.get("input_tokens"))?.as_u64()?;
    // Embeddings have none.
    let completion = match usage.get("completion_tokens").or_else(|| usage.get("output_tokens")) {
        Some(tokens) => tokens.as_u64()?,
        None => 0,
    };
    let total = usage.get("total_tokens").and_then(Value::as_u64);
    let (prompt_tokens, cached, written) = read_prompt(usage, prompt, completion, total);
    let reasoning = find(usage, &REASONING).unwrap_or(0);
    let is_apart =
        reasoning > completion || total == Some(prompt.saturating_add(completion).saturating_add(reasoning));
    let completion_tokens = if is_apart { completion.saturating_add(reasoning) } else { completion };
    let cached_prompt_tokens = cached.min(prompt_tokens);
    Some(ReportedUsage {
        prompt_tokens,
        completion_tokens,
        cached_prompt_tokens,
        cache_write_tokens: written.min(prompt_tokens - cached_prompt_tokens),
        reasoning_tokens: reasoning,
    })
}

/// Tokens of the prompt, and those of them that the provider read from its cache and wrote to it.
fn read_prompt(usage: &Value, prompt: u64, completion: u64, total: Option<u64>) -> (u64, u64, u64) {
    let creation = find(usage, &CACHE_CREATION).unwrap_or(0);
    let written = find(usage, &CACHE_WRITES).unwrap_or(creation);
    if let Some(cached) = find(usage, &CACHED) {
        return (prompt, cached, written);
    }
    let cached = find(usage, &CACHE_READ).unwrap_or(0);
    let apart = cached.saturating_add(creation);
    let whole = prompt.saturating_add(apart);
    // Gateways translate Anthropic's counts to `prompt_tokens` with or without what was cached.
    let is_apart = usage.get("prompt_tokens").is_none()
        || apart > prompt
        || (apart > 0 && total == Some(whole.saturating_add(completion)));
    (if is_apart { whole } else { prompt }, cached, written)
}

fn find(usage: &Value, paths: &[&str]) -> Option<u64> {
    paths.iter().find_map(|path| usage.pointer(path)?.as_u64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Prompt, cached, written, completion and reasoning tokens.
    fn counts(usage: &Value) -> Option<[u64; 5]> {
        read(usage).map(|u| {
            [
                u.prompt_tokens,
                u.cached_prompt_tokens,
                u.cache_write_tokens,
                u.completion_tokens,
                u.reasoning_tokens,
            ]
        })
    }

    #[test]
    fn every_providers_cached_tokens_are_read() {
        let cases = [
            // OpenAI, and Gemini's OpenAI endpoint.
            (
                json!({ "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
                    "prompt_tokens_details": { "cached_tokens": 1920, "audio_tokens": 0 },
                    "completion_tokens_details": { "reasoning_tokens": 64 } }),
                [2006, 1920, 0, 300, 64],
            ),
            // OpenAI's Responses API.
            (
                json!({ "input_tokens": 75, "input_tokens_details": { "cached_tokens": 70 },
                    "output_tokens": 1186, "output_tokens_details": { "reasoning_tokens": 1024 }, "total_tokens": 1261 }),
                [75, 70, 0, 1186, 1024],
            ),
            // DeepSeek.
            (
                json!({ "prompt_tokens": 100, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36,
                    "completion_tokens": 9, "total_tokens": 109 }),
                [100, 64, 0, 9, 0],
            ),
            // Anthropic.
            (
                json!({ "input_tokens": 21, "cache_creation_input_tokens": 188, "cache_read_input_tokens": 1000,
                    "output_tokens": 393 }),
                [1209, 1000, 188, 393, 0],
            ),
            // Anthropic's counts behind a gateway: apart by their size, apart by the total, and contained.
            (
                json!({ "prompt_tokens": 21, "completion_tokens": 5, "cache_read_input_tokens": 1000 }),
                [1021, 1000, 0, 5, 0],
            ),
            (
                json!({ "prompt_tokens": 2000, "completion_tokens": 5, "cache_read_input_tokens": 1000, "total_tokens": 3005 }),
                [3000, 1000, 0, 5, 0],
            ),
            (
                json!({ "prompt_tokens": 2000, "completion_tokens": 5, "cache_read_input_tokens": 1000,
                    "cache_creation_input_tokens": 500, "total_tokens": 2005 }),
                [2000, 1000, 500, 5, 0],
            ),
            // OpenRouter.
            (
                json!({ "prompt_tokens": 194, "completion_tokens": 2, "total_tokens": 196,
                    "prompt_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 100 } }),
                [194, 0, 100, 2, 0],
            ),
            // xAI counts reasoning apart.
            (
                json!({ "prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
                    "completion_tokens_details": { "reasoning_tokens": 94 } }),
                [32, 0, 0, 103, 94],
            ),
            // An embedding.
            (json!({ "prompt_tokens": 8, "total_tokens": 8 }), [8, 0, 0, 0, 0]),
        ];
        for (usage, expected) in cases {
            assert_eq!(counts(&usage), Some(expected), "{usage}");
        }
    }

    #[test]
    fn malformed_details_are_ignored_and_parts_are_bounded() {
        let with = |details: Value| {
            let mut usage = json!({ "prompt_tokens": 10, "completion_tokens": 4 });
            usage.as_object_mut().unwrap().extend(details.as_object().unwrap().clone());
            counts(&usage)
        };
        let plain = Some([10, 0, 0, 4, 0]);
        assert_eq!(
            with(json!({ "prompt_tokens_details": null, "completion_tokens_details": "many" })),
            plain
        );
        assert_eq!(with(json!({ "prompt_tokens_details": { "cached_tokens": -3 } })), plain);
        assert_eq!(with(json!({ "cache_read_input_tokens": 1.5, "reasoning_tokens": "two" })), plain);
        assert_eq!(with(json!({ "prompt_cache_hit_tokens": 11 })), Some([10, 10, 0, 4, 0]));
        assert_eq!(
            with(json!({ "cached_tokens": 8, "cache_creation_input_tokens": u64::MAX })),
            Some([10, 8, 2, 4, 0])
        );
        let huge = json!({ "prompt_tokens": u64::MAX, "completion_tokens": u64::MAX,
            "cache_read_input_tokens": u64::MAX, "reasoning_tokens": u64::MAX, "total_tokens": u64::MAX });
        assert!(counts(&huge).is_some());
        assert_eq!(counts(&json!({ "prompt_tokens": 10, "completion_tokens": -4 })), None);
    }
}

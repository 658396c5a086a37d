//! Checks the tokens and the cost that a caller states of a completion that it stores. They are returned with every
//! hit, and the tokens are what savings are computed from.

use crate::{error::Error, model::Usage, prompt::Completion, upstream::Upstreams};

/// Maximum tokens of a prompt, and of an answer. The largest context windows have a tenth of it.
const TOKENS_MAX: u64 = 100_000_000;

/// Maximum cost in US dollars of an answer whose model the catalog has no price of.
const UNKNOWN_MODEL_USD_MAX: f64 = 10_000.0;

/// Rounding in US dollars that a caller's own computation may have: up to the next cent.
const ROUNDING_USD: f64 = 0.01;

/// Refuses figures that no model call can have.
///
/// # Errors
/// [`Error::InvalidArgument`], which names the field.
pub(super) fn check(completion: &Completion, upstreams: &Upstreams) -> Result<(), Error> {
    let Usage {
        prompt_tokens,
        completion_tokens,
        cached_prompt_tokens,
        cache_write_tokens,
        reasoning_tokens,
        cost_usd,
        estimated: _,
    } = completion.usage;
    let not_cached = prompt_tokens.saturating_sub(cached_prompt_tokens);
    let limits = [
        ("prompt_tokens", prompt_tokens, TOKENS_MAX),
        ("completion_tokens", completion_tokens, TOKENS_MAX),
        ("cached_prompt_tokens", cached_prompt_tokens, prompt_tokens),
        ("cache_write_tokens", cache_write_tokens, not_cached),
        ("reasoning_tokens", reasoning_tokens, completion_tokens),
    ];
    if let Some((name, _, max)) = limits.into_iter().find(|(_, tokens, max)| tokens > max) {
        let field = format!("completion.usage.{name}");
        return Err(Error::invalid(field, format!("must be at most {max}")));
    }
    let field = "completion.usage.cost_usd";
    if !cost_usd.is_finite() || cost_usd < 0.0 {
        return Err(Error::invalid(field, "must be a non-negative number of US dollars"));
    }
    let is_in_catalog = upstreams.price(&completion.model, completion.usage).is_some();
    let (max, why) = if is_in_catalog {
        let max = upstreams.at_dearest_model(completion.usage) + ROUNDING_USD;
        (max, ", which the dearest model of the catalog asks for these tokens")
    } else {
        (UNKNOWN_MODEL_USD_MAX, "")
    };
    if cost_usd > max {
        return Err(Error::invalid(field, format!("must be at most {max:.4} US dollars{why}")));
    }
    Ok(())
}

//! A provider's reply to a request for embeddings.

use serde::Deserialize;
use serde_json::Value;

/// The vectors of a reply.
#[derive(Debug, PartialEq)]
pub(super) struct ProviderReply {
    /// JSON of each vector with its share of the tokens, in the order of the inputs.
    pub vectors: Vec<(String, u64)>,
    /// Tokens of all inputs.
    pub tokens: u64,
}

/// Most tokens of a request that are believed.
const TOKENS_MAX: u64 = 100_000_000;

#[derive(Deserialize)]
struct Reply {
    data: Vec<Item>,
    #[serde(default)]
    usage: Usage,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Value,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Value,
}

impl ProviderReply {
    /// Decodes a reply; `None` unless it has one vector for each of `inputs`.
    pub fn decode(body: &[u8], inputs: &[Value]) -> Option<Self> {
        let Reply { data, usage } = serde_json::from_slice(body).ok()?;
        let mut vectors: Vec<Option<String>> = vec![None; inputs.len()];
        if data.len() != inputs.len() {
            return None;
        }
        for Item { index, embedding } in data {
            let is_vector = embedding.as_array().is_some_and(|numbers| !numbers.is_empty())
                || embedding.as_str().is_some_and(|base64| !base64.is_empty());
            *vectors.get_mut(index)? = is_vector.then(|| embedding.to_string());
        }
        let vectors: Vec<String> = vectors.into_iter().collect::<Option<_>>()?;
        let tokens = usage.prompt_tokens.as_u64().filter(|tokens| *tokens <= TOKENS_MAX).unwrap_or(0);
        Some(Self { vectors: vectors.into_iter().zip(shares(tokens, inputs)).collect(), tokens })
    }
}

/// Divides the tokens of a request among its inputs by their sizes, since providers report the sum only.
fn shares(tokens: u64, inputs: &[Value]) -> Vec<u64> {
    let size = |input: &Value| match input {
        Value::String(text) => text.len() as u64,
        Value::Array(ids) => ids.len() as u64,
        _ => 1,
    };
    let total: u64 = inputs.iter().map(size).sum::<u64>().max(1);
    let (mut sizes, mut given) = (0, 0);
    let mut share = |input: &Value| {
        sizes += size(input);
        // At most 10^8 tokens and the bytes of one request, so that the product fits.
        let until_here = tokens * sizes / total;
        let share = until_here - given;
        given = until_here;
        share
    };
    inputs.iter().map(&mut share).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decoded(reply: &Value, inputs: &[Value]) -> Option<ProviderReply> {
        ProviderReply::decode(reply.to_string().as_bytes(), inputs)
    }

    #[test]
    fn vectors_are_put_into_the_order_of_the_inputs() {
        let reply = json!({ "object": "list", "usage": { "prompt_tokens": 10, "total_tokens": 10 }, "data": [
            { "object": "embedding", "index": 1, "embedding": "AAA=" },
            { "object": "embedding", "index": 0, "embedding": [0.5, -1] },
        ] });
        let vectors = vec![("[0.5,-1]".to_owned(), 2), ("\"AAA=\"".to_owned(), 8)];
        assert_eq!(
            decoded(&reply, &[json!("a"), json!("bbbb")]),
            Some(ProviderReply { vectors, tokens: 10 })
        );
    }

    #[test]
    fn anything_but_one_vector_for_each_input_is_refused() {
        let item = |index: u64, embedding: Value| json!({ "index": index, "embedding": embedding });
        let inputs = [json!("a"), json!("b")];
        for data in [
            json!([]),
            json!([item(0, json!([1]))]),
            json!([item(0, json!([1])), item(0, json!([2]))]),
            json!([item(0, json!([1])), item(2, json!([2]))]),
            json!([item(0, json!([1])), item(1, json!([]))]),
            json!([item(0, json!([1])), item(1, json!(7))]),
        ] {
            assert_eq!(decoded(&json!({ "data": data }), &inputs), None, "{data}");
        }
        assert_eq!(ProviderReply::decode(b"<html>", &inputs), None);
    }

    #[test]
    fn impossible_counts_are_zero_and_shares_add_up() {
        let reply = |tokens: Value| json!({ "data": [{ "index": 0, "embedding": [1] }], "usage": { "prompt_tokens": tokens } });
        for tokens in [json!(-1), json!(u64::MAX), json!("ten"), json!(null)] {
            assert_eq!(decoded(&reply(tokens), &[json!("a")]).map(|reply| reply.tokens), Some(0));
        }
        let inputs: Vec<Value> = (0..7).map(|n| json!("x".repeat(n))).collect();
        assert_eq!(shares(100, &inputs).iter().sum::<u64>(), 100);
    }
}

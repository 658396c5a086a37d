//! Chat completion bodies and the prompts decoded from them.

use serde_json::json;

use super::*;

fn decoded(body: Value) -> Result<Decoded, Error> {
    let Value::Object(body) = body else { panic!("an object") };
    decode(body)
}

/// The prompt of a request that the cache can answer.
fn prompt_of(body: Value) -> Option<Prompt> {
    match decoded(body).unwrap() {
        Decoded::Prompt { prompt, .. } => Some(*prompt),
        Decoded::Uncacheable { .. } => None,
    }
}

/// A valid body with these fields added.
fn with(more: &Value) -> Value {
    let mut body = json!({ "model": "auto", "messages": [{ "role": "user", "content": "hello" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn known_fields_are_decoded_and_the_rest_is_extra() {
    let prompt = prompt_of(with(&json!({
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 5, "stop": "x", "seed": -1,
        "response_format": { "type": "json_object" }, "tools": [], "tool_choice": "auto",
        "n": 1, "logprobs": false, "stream": true, "stream_options": { "include_usage": true },
        "reasoning_effort": "low", "user": "u", "verbosity": null,
    })))
    .unwrap();
    assert_eq!((prompt.temperature, prompt.top_p, prompt.max_tokens), (Some(0.5), Some(0.9), Some(5)));
    assert_eq!((prompt.stop, prompt.seed), (vec!["x".to_owned()], Some(-1)));
    assert_eq!(Value::Object(prompt.extra), json!({ "reasoning_effort": "low", "user": "u" }));
}

#[test]
fn stream_options_are_not_part_of_the_prompt() {
    let body = with(&json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let Decoded::Prompt { prompt, shape } = decoded(body).unwrap() else { panic!("plain") };
    assert_eq!(shape, Shape { stream: true, include_usage: true });
    assert_eq!(Some(*prompt), prompt_of(with(&json!({ "stream": false }))));
}

#[test]
fn text_parts_are_joined_and_other_parts_are_passed_on() {
    let parts = |parts| json!({ "messages": [{ "role": "user", "content": parts, "refusal": null, "annotations": [] }] });
    let prompt = prompt_of(parts(json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }])));
    let message = &prompt.unwrap().messages[0];
    assert_eq!((message.content.as_str(), message.extra.len()), ("a\nb", 0));
    assert_eq!(message.parts.as_ref().map(|parts| parts[1]["text"].clone()), Some(json!("b")));
    assert_eq!(prompt_of(parts(json!([{ "type": "image_url", "image_url": { "url": "u" } }]))), None);
    let marked = json!([{ "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } }]);
    let prompt = prompt_of(parts(marked.clone())).unwrap();
    assert_eq!((prompt.messages[0].content.as_str(), &prompt.messages[0].parts), ("a", &Some(marked)));
    let unknown = json!([{ "type": "text", "text": "a", "x_emphasis": true }]);
    assert_eq!(prompt_of(parts(unknown)), None);
}

#[test]
fn requests_whose_answers_an_entry_cannot_hold_are_passed_on() {
    for more in [
        json!({ "n": 2 }),
        json!({ "logprobs": true }),
        json!({ "top_logprobs": 3 }),
        json!({ "modalities": ["text", "audio"], "audio": {} }),
        json!({ "functions": [] }),
        json!({ "web_search_options": {} }),
        json!({ "messages": [{ "role": "function", "name": "f", "content": "1" }] }),
        json!({ "messages": [{ "role": "assistant", "content": "x", "audio": { "id": "a" } }] }),
    ] {
        assert_eq!(prompt_of(with(&more)), None, "{more}");
    }
}

#[test]
fn further_fields_of_a_turn_are_kept() {
    let turn = json!({ "role": "assistant", "content": "x", "reasoning_content": "y", "reasoning": null,
        "reasoning_details": [{ "type": "reasoning.text", "text": "y" }], "annotations": [] });
    let prompt = prompt_of(with(&json!({ "messages": [turn, { "role": "user", "content": "z" }] }))).unwrap();
    assert_eq!(
        Value::Object(prompt.messages[0].extra.clone()),
        json!({ "reasoning_content": "y", "reasoning_details": [{ "type": "reasoning.text", "text": "y" }] })
    );
}

#[test]
fn a_passed_on_request_is_unchanged_and_can_be_routed() {
    let image = json!({ "type": "image_url", "image_url": { "url": "u" } });
    let body = with(
        &json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "a" }, image] }] }),
    );
    let Decoded::Uncacheable { route, body: kept } = decoded(body.clone()).unwrap() else {
        panic!("uncacheable")
    };
    assert_eq!(Value::Object(kept), body);
    assert_eq!((route.model.as_str(), route.messages[0].content.as_str()), ("auto", "a"));
}

#[test]
fn errors_name_the_field() {
    for (more, field) in [
        (json!({ "messages": "x" }), "messages"),
        (json!({ "messages": [{ "role": "robot", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user", "content": 7 }] }), "messages[0].content"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "max_tokens": 1.5 }), "max_tokens"),
        (json!({ "max_tokens": -1 }), "max_tokens"),
        (json!({ "stream": "yes" }), "stream"),
        (json!({ "stop": [1] }), "stop"),
        (json!({ "tools": {} }), "tools"),
        (json!({ "model": 7 }), "model"),
    ] {
        assert_eq!(decoded(with(&more)).unwrap_err().field(), Some(field), "{more}");
    }
}

//! Which prompts share a key or a scope, which do not, and the hashes that pin encoding v1.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::prompt::Role;

mod golden;
mod properties;

fn tenant() -> Owner {
    Owner::Tenant("acme".into())
}

fn message(role: Role, content: &str) -> Message {
    Message::new(role, content)
}

fn question(text: &str) -> Prompt {
    Prompt {
        namespace: "support".into(),
        model: "auto".into(),
        messages: vec![message(Role::User, text)],
        ..Prompt::default()
    }
}

/// A prompt with every field set.
fn full() -> Prompt {
    let calls = json!([{ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
    Prompt {
        messages: vec![
            message(Role::System, "be brief"),
            Message { name: Some("ann".into()), ..message(Role::User, "hello") },
            Message { tool_calls: Some(calls), ..message(Role::Assistant, "") },
            Message { tool_call_id: Some("c1".into()), ..message(Role::Tool, "42") },
            message(Role::User, "and now?"),
        ],
        temperature: Some(0.5),
        top_p: Some(0.9),
        max_tokens: Some(100),
        stop: vec!["a".into(), "b".into()],
        seed: Some(-1),
        response_format: Some(json!({ "type": "json_object" })),
        tools: Some(json!([{ "type": "function", "function": { "name": "f" } }])),
        tool_choice: Some(json!("auto")),
        vary: BTreeMap::from([("locale".into(), "de".into())]),
        ..question("")
    }
}

fn key(prompt: &Prompt) -> CacheKey {
    of(&tenant(), prompt).0
}

fn scope(prompt: &Prompt) -> Scope {
    of(&tenant(), prompt).1
}

fn changed(change: impl FnOnce(&mut Prompt)) -> Prompt {
    let mut prompt = full();
    change(&mut prompt);
    prompt
}

fn with_tools(text: &str) -> Prompt {
    Prompt { tools: Some(serde_json::from_str(text).unwrap()), ..question("hello") }
}

#[test]
fn the_scope_covers_everything_except_the_last_user_text() {
    let variants = [
        changed(|_| ()),
        changed(|p| p.namespace.push('x')),
        changed(|p| p.model = "hot".into()),
        changed(|p| p.temperature = Some(0.25)),
        changed(|p| p.temperature = None),
        changed(|p| p.top_p = Some(0.8)),
        changed(|p| p.top_p = None),
        changed(|p| p.max_tokens = Some(101)),
        changed(|p| p.max_tokens = None),
        changed(|p| p.stop.swap(0, 1)),
        changed(|p| p.stop.clear()),
        changed(|p| p.seed = Some(1)),
        changed(|p| p.seed = None),
        changed(|p| p.response_format = Some(json!({ "type": "text" }))),
        changed(|p| p.response_format = None),
        changed(|p| p.tools = Some(json!([]))),
        changed(|p| p.tools = Some(json!(null))),
        changed(|p| p.tools = None),
        changed(|p| p.tool_choice = Some(json!("none"))),
        changed(|p| p.tool_choice = None),
        changed(|p| drop(p.vary.insert("locale".into(), "en".into()))),
        changed(|p| drop(p.vary.insert("plan".into(), "de".into()))),
        changed(|p| p.vary.clear()),
        changed(|p| drop(p.extra.insert("reasoning_effort".into(), json!("low")))),
        changed(|p| drop(p.extra.insert("reasoning_effort".into(), json!("high")))),
        changed(|p| drop(p.extra.insert("verbosity".into(), json!("low")))),
        changed(|p| p.messages[0].content.push('!')),
        changed(|p| p.messages[0].role = Role::Developer),
        changed(|p| p.messages[1].content.push('!')),
        changed(|p| p.messages[1].name = Some("bob".into())),
        changed(|p| p.messages[1].name = None),
        changed(|p| p.messages[2].tool_calls = Some(json!([]))),
        changed(|p| p.messages[2].tool_calls = None),
        changed(|p| p.messages[3].tool_call_id = Some("c2".into())),
        changed(|p| p.messages[3].tool_call_id = None),
        changed(|p| p.messages[4].name = Some("ann".into())),
        changed(|p| drop(p.messages[2].extra.insert("reasoning_content".into(), json!("a")))),
        changed(|p| drop(p.messages[2].extra.insert("reasoning_content".into(), json!("b")))),
        changed(|p| drop(p.messages[2].extra.insert("reasoning".into(), json!("a")))),
        changed(|p| drop(p.messages[3].extra.insert("reasoning_content".into(), json!("a")))),
        changed(|p| drop(p.extra.insert("reasoning_content".into(), json!("a")))),
        changed(|p| p.messages.swap(0, 1)),
        changed(|p| drop(p.messages.remove(1))),
    ];
    let scopes: HashSet<_> = variants.iter().map(scope).collect();
    let keys: HashSet<_> = variants.iter().map(key).collect();
    assert_eq!((scopes.len(), keys.len()), (variants.len(), variants.len()));
}

#[test]
fn only_the_key_covers_the_last_user_text() {
    let other = changed(|p| p.messages[4].content = "and then?".into());
    assert_eq!(scope(&full()), scope(&other));
    assert_ne!(key(&full()), key(&other));
}

/// A similar prompt may answer a user's text, never the output of a tool.
#[test]
fn the_scope_covers_a_last_turn_without_user_text() {
    for role in [Role::Tool, Role::Assistant, Role::System] {
        let ends_with = |text| changed(|p| p.messages.push(message(role, text)));
        assert_ne!(scope(&ends_with("1")), scope(&ends_with("2")), "{role:?}");
    }
    let blank = |text| changed(|p| p.messages[4].content = text);
    assert_ne!(scope(&blank(" ".into())), scope(&blank("\n".into())));
}

#[test]
fn tenants_share_neither_scopes_nor_keys() {
    let other = Owner::Tenant("acme2".into());
    let owners =
        [tenant(), other, Owner::Tenant(String::new()), Owner::Shared, Owner::Tenant("Shared".into())];
    let hashes: HashSet<_> = owners.iter().map(|owner| of(owner, &full())).collect();
    let scopes: HashSet<_> = hashes.iter().map(|(_, scope)| *scope).collect();
    let keys: HashSet<_> = hashes.iter().map(|(key, _)| *key).collect();
    assert_eq!((scopes.len(), keys.len()), (owners.len(), owners.len()));
}

/// Moving a letter from the end of one field to the start of the next changes the prompt.
#[test]
fn moving_text_between_fields_changes_the_hash() {
    let turns = |a: &str, b: &str| {
        changed(|p| {
            p.messages[0].content = a.into();
            p.messages[1].content = b.into();
        })
    };
    assert_ne!(scope(&turns("ab", "c")), scope(&turns("a", "bc")));

    let stops = |stop: &[&str]| changed(|p| p.stop = stop.iter().map(|s| (*s).into()).collect());
    let all = [&["ab"][..], &["a", "b"], &["", "ab"], &["ab", ""], &["a", "", "b"]].map(|s| scope(&stops(s)));
    assert_eq!(HashSet::from(all).len(), 5);

    let named =
        |namespace: &str, model: &str| Prompt { namespace: namespace.into(), model: model.into(), ..full() };
    assert_ne!(scope(&named("ab", "c")), scope(&named("a", "bc")));

    let varied = |pairs: &[(&str, &str)]| {
        changed(|p| {
            p.vary = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        })
    };
    assert_ne!(scope(&varied(&[("a", "bc")])), scope(&varied(&[("ab", "c")])));
    assert_ne!(scope(&varied(&[("a", "b"), ("c", "d")])), scope(&varied(&[("a", "d"), ("c", "b")])));

    // Across the boundary of the last user text.
    let system = |a: &str, b: &str| Prompt {
        messages: vec![message(Role::System, a), message(Role::User, b)],
        ..question("")
    };
    assert_ne!(key(&system("ab", "c")), key(&system("a", "bc")));
    // Equal values in different fields.
    assert_ne!(
        scope(&changed(|p| (p.temperature, p.top_p) = (Some(0.5), None))),
        scope(&changed(|p| (p.temperature, p.top_p) = (None, Some(0.5))))
    );
    assert_ne!(
        scope(&changed(|p| (p.tools, p.tool_choice) = (Some(json!(1)), None))),
        scope(&changed(|p| (p.tools, p.tool_choice) = (None, Some(json!(1)))))
    );
}

/// Marks of a provider's own cache and a caller's bookkeeping made every request a miss.
#[test]
fn cache_marks_and_ignored_fields_are_not_part_of_the_key() {
    let mark = json!({ "type": "ephemeral" });
    let tools = |tool: Value| Some(json!([tool]));
    let plain = changed(|p| p.tools = tools(json!({ "function": { "name": "f" } })));
    let same = [
        changed(|p| p.tools = tools(json!({ "function": { "name": "f" }, "cache_control": mark }))),
        changed(|p| p.tools = tools(json!({ "function": { "name": "f", "cache_control": mark } }))),
        Prompt { extra: Map::from_iter([("cache_control".into(), mark.clone())]), ..plain.clone() },
        Prompt { ignored: Map::from_iter([("user".into(), json!("ann"))]), ..plain.clone() },
    ];
    assert!(same.iter().all(|prompt| (key(prompt), scope(prompt)) == (key(&plain), scope(&plain))));
    let marked = |extra: Value| changed(|p| p.messages[1].extra = extra.as_object().unwrap().clone());
    assert_eq!(key(&marked(json!({ "cache_control": mark }))), key(&full()));
    assert_eq!(key(&marked(json!({ "a": 1, "cache_control": mark }))), key(&marked(json!({ "a": 1 }))));
    // A parameter of a tool may have that name.
    let parameter = |name: &str| {
        let parameters = json!({ "properties": { name: { "type": "string" } } });
        changed(|p| p.tools = tools(json!({ "function": { "name": "f", "parameters": parameters } })))
    };
    assert_ne!(key(&parameter("cache_control")), key(&parameter("other")));
}

/// Texts that look alike but have different tokens are different prompts to a model.
#[test]
fn text_is_not_normalised() {
    for (composed, decomposed) in
        [("caf\u{e9}", "cafe\u{301}"), ("\u{212b}", "\u{c5}"), ("\u{ac00}", "\u{1100}\u{1161}")]
    {
        assert_ne!(key(&question(composed)), key(&question(decomposed)));
        let system = |text: &str| changed(|p| p.messages[0].content = text.into());
        assert_ne!(scope(&system(composed)), scope(&system(decomposed)));
    }
    assert_ne!(key(&question("reset")), key(&question("reset ")));
    assert_ne!(key(&question("reset")), key(&question("Reset")));
}

#[test]
fn json_formatting_does_not_change_the_key() {
    let same = [
        r#"[{"a":1,"b":[true,null],"c":"é"}]"#,
        r#" [ { "c" : "\u00e9", "b" : [ true , null ], "a" : 1.0 } ] "#,
        "[{\"b\":[true,null],\n\t\"a\":1e0,\"c\":\"é\"}]",
        r#"[{"a":10e-1,"b":[true,null],"c":"\u00E9"}]"#,
    ];
    let keys: HashSet<_> = same.iter().map(|text| key(&with_tools(text))).collect();
    assert_eq!(keys.len(), 1);
}

#[test]
fn different_json_values_have_different_keys() {
    let different = [
        "null",
        "false",
        "true",
        "0",
        "1",
        "-1",
        "0.1",
        "1.5",
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "1e300",
        "\"\"",
        "\"0\"",
        "\"1\"",
        "\"null\"",
        "[]",
        "[[]]",
        "[0]",
        "[0,1]",
        "[1,0]",
        "[[0],1]",
        "[[0,1]]",
        "{}",
        "[{}]",
        r#"{"a":0}"#,
        r#"{"a":"0"}"#,
        r#"{"b":0}"#,
        r#"{"a":0,"b":0}"#,
        r#"{"a":{"b":0}}"#,
        r#"{"a":{},"b":0}"#,
        r#"[{"a":0},{"b":0}]"#,
        r#"["a",0]"#,
        r#"{"ab":""}"#,
        r#"{"a":"b"}"#,
    ];
    let keys: HashSet<_> = different.iter().map(|text| key(&with_tools(text))).collect();
    assert_eq!(keys.len(), different.len());
}

#[test]
fn equal_numbers_have_one_key_in_every_notation() {
    for same in [
        ["1", "1.0", "1e0"],
        ["0", "-0.0", "0e7"],
        ["-3", "-3.0", "-30e-1"],
        ["9007199254740992", "9007199254740992.0", "9.007199254740992e15"],
        ["100000000000000000", "1e17", "100000000000000000.0"],
        ["0.1", "1e-1", "0.10"],
    ] {
        let keys: HashSet<_> = same.iter().map(|text| key(&with_tools(text))).collect();
        assert_eq!(keys.len(), 1, "{same:?}");
    }
    let temperature = |t| Prompt { temperature: Some(t), ..question("hello") };
    assert_eq!(key(&temperature(0.0)), key(&temperature(-0.0)));
}

/// A provider's default may change, so an absent field differs from an explicit default.
#[test]
fn an_absent_field_differs_from_its_default() {
    let explicit = [
        Prompt { temperature: Some(1.0), ..question("hello") },
        Prompt { top_p: Some(1.0), ..question("hello") },
        Prompt { seed: Some(0), ..question("hello") },
        Prompt { tools: Some(json!([])), ..question("hello") },
        Prompt { tool_choice: Some(json!("auto")), ..question("hello") },
        Prompt { response_format: Some(json!({ "type": "text" })), ..question("hello") },
    ];
    assert!(explicit.iter().all(|prompt| key(prompt) != key(&question("hello"))));
}

#[test]
fn parts_name_every_field_once_with_its_size() {
    let parts = Scope::parts(&tenant(), &full());
    let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
    let fields = [
        "tenant",
        "namespace",
        "model",
        "messages",
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "seed",
        "response_format",
        "tools",
        "tool_choice",
        "vary",
    ];
    assert_eq!(names, fields);
    let extra = changed(|p| drop(p.extra.insert("verbosity".into(), json!("low"))));
    assert_eq!(Scope::parts(&tenant(), &extra).last().map(|(name, _)| *name), Some("extra"));
    // Tag, kind of owner, length of the name, four bytes of the name.
    assert_eq!(parts[0].1, 1 + 1 + 8 + 4);
    // Tag, length, "support".
    assert_eq!(parts[1].1, 1 + 8 + 7);
}

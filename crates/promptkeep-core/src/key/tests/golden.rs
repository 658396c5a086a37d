//! Hashes that stores on disk already hold. A failing test means that the encoding has changed: give both
//! contexts the next version, so that old entries become misses and not wrong answers.

use super::*;

/// Scope and key of a prompt, in hex.
fn hashes(owner: &Owner, prompt: &Prompt) -> [String; 2] {
    let (key, scope) = of(owner, prompt);
    [scope.to_string(), key.to_string()]
}

#[test]
fn the_encoding_matches_the_documented_bytes() {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let number = |n: u64| n.to_le_bytes().to_vec();
    let prompt = Prompt {
        temperature: Some(0.5),
        max_tokens: Some(7),
        tools: Some(json!({ "b": [true, null, 1.5], "a": -1 })),
        vary: BTreeMap::from([("k".into(), "v".into())]),
        ..question("hello")
    };
    let scope = [
        vec![1, 1],
        string("acme"),
        vec![2],
        string("support"),
        vec![3],
        string("auto"),
        vec![4],
        number(1),
        string("user"),
        vec![0, 0, 0, 0],
        vec![5, 1],
        0.5_f32.to_le_bytes().to_vec(),
        vec![6, 0],
        vec![7, 1],
        7_i128.to_le_bytes().to_vec(),
        vec![8],
        number(0),
        vec![9, 0],
        vec![10, 0],
        vec![11, 1, 9],
        number(2),
        string("a"),
        vec![5],
        (-1_i128).to_le_bytes().to_vec(),
        string("b"),
        vec![8],
        number(3),
        vec![4, 2, 6],
        1.5_f64.to_le_bytes().to_vec(),
        vec![12, 0],
        vec![13],
        number(1),
        string("k"),
        string("v"),
    ]
    .concat();
    let scope = blake3::derive_key("promptkeep 2026-11 scope v1", &scope);
    let key = [scope.to_vec(), vec![1], string("hello")].concat();
    let key = blake3::derive_key("promptkeep 2026-11 key v1", &key);
    assert_eq!(of(&tenant(), &prompt), (CacheKey(key), Scope(scope)));
}

#[test]
fn the_hashes_of_a_question_are_pinned() {
    assert_eq!(
        hashes(&tenant(), &question("How do I reset my password?")),
        [
            "06125b3bf143265e4486a398347cbc0207a1fedecb1574a6e4e8e972c849401f",
            "a957688ed824f6749a4cae268d2868ace5fed103d8458fafe326c925e783a861"
        ]
    );
}

#[test]
fn the_hashes_of_a_shared_question_are_pinned() {
    assert_eq!(
        hashes(&Owner::Shared, &question("How do I reset my password?")),
        [
            "5abb99e061900e710fe25ff65cda748d7ec437c0b006b4823910d291a5a3b630",
            "faf10d922fe38621fd06677603a6028c3cd87b7d2ee91ee51179bd7d9708e88d"
        ]
    );
}

#[test]
fn the_hashes_of_unicode_text_are_pinned() {
    let prompt =
        Prompt { namespace: "日本".into(), ..question("Wie ändere ich mein Passwort? 🔑 e\u{301}") };
    assert_eq!(
        hashes(&tenant(), &prompt),
        [
            "e97551ef1db8e066834e0f3d0fb9b8d8757b7ea4209a54c7e4c1881caf046616",
            "d5c3d937bf9a1fd717c23447b6538cb4ab7871924674c5a4a21e014609d7125e"
        ]
    );
}

#[test]
fn the_hashes_of_a_prompt_with_every_field_are_pinned() {
    assert_eq!(
        hashes(&tenant(), &full()),
        [
            "3b453ee6abb7c10f7451bf73cc1c9ebc9fa75574c6ead74fc1744e046b4997af",
            "3a05f05ad60025ed184baa1b7e9c2c1e0085930f64b09930111854003c4933ab"
        ]
    );
}

#[test]
fn the_hashes_of_a_prompt_with_reasoning_are_pinned() {
    let prompt = changed(|p| drop(p.messages[2].extra.insert("reasoning_content".into(), json!("hm"))));
    assert_eq!(
        hashes(&tenant(), &prompt),
        [
            "9c99b9bfdc88e42ca3fbc5477b5e4c08642f6e28949cd3e0af6fdfcb4dcc0d6f",
            "8418f4a3d2e189ce2697de255313086f9376e416b7e396c05f846d6c786c5257"
        ]
    );
}

#[test]
fn the_hashes_of_a_prompt_that_ends_with_a_tool_turn_are_pinned() {
    let prompt = changed(|p| drop(p.messages.pop()));
    assert_eq!(
        hashes(&tenant(), &prompt),
        [
            "30cdf9d108c94aaaa9cc44ad6985c32dbf52e0420c65b0aeed02692ae3e13789",
            "b055e40a4ad585591b5db2619fdb7096461657539c3dff6f5f8be77250ae4e3e"
        ]
    );
}

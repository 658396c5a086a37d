//! The rules of keys and scopes over random prompts.

use super::*;

/// Strings over two letters, so that equal, empty and shifted strings are common.
fn letters() -> impl Strategy<Value = String> {
    "[ab]{0,2}"
}

/// Whole numbers only: [`Value`] distinguishes 1 from 1.0, a key does not.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1..2_i64).prop_map(Value::from),
        letters().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(letters(), inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let role = prop::sample::select(vec![Role::System, Role::User, Role::Assistant, Role::Tool]);
    let optional = || prop::option::weighted(0.2, letters());
    let extra = prop::collection::btree_map(letters(), json_value(), 0..2);
    (role, letters(), optional(), optional(), prop::option::weighted(0.2, json_value()), extra).prop_map(
        |(role, content, name, tool_call_id, tool_calls, extra)| Message {
            name,
            tool_call_id,
            tool_calls,
            extra: extra.into_iter().collect(),
            ..Message::new(role, content)
        },
    )
}

fn any_prompt() -> impl Strategy<Value = Prompt> {
    let half = || prop::option::weighted(0.3, prop::sample::select(vec![0.5_f32, 1.0]));
    let json = || prop::option::weighted(0.3, json_value());
    let texts = (
        letters(),
        letters(),
        prop::collection::vec(any_message(), 1..4),
        prop::collection::vec(letters(), 0..3),
    );
    let numbers =
        (half(), half(), prop::option::weighted(0.3, 0..2_u32), prop::option::weighted(0.3, 0..2_i64));
    let extra = prop::collection::btree_map(letters(), json_value(), 0..2);
    let trees = (json(), json(), json(), prop::collection::btree_map(letters(), letters(), 0..3), extra);
    (texts, numbers, trees).prop_map(|(texts, numbers, trees)| {
        let (namespace, model, messages, stop) = texts;
        let (temperature, top_p, max_tokens, seed) = numbers;
        let (response_format, tools, tool_choice, vary, extra) = trees;
        Prompt {
            namespace,
            model,
            messages,
            temperature,
            top_p,
            max_tokens,
            stop,
            seed,
            response_format,
            tools,
            tool_choice,
            vary,
            extra: extra.into_iter().collect(),
            ignored: Map::new(),
        }
    })
}

/// The value as JSON text with reversed fields and additional spaces.
fn rewritten(value: &Value, spaces: &str) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| rewritten(item, spaces)).collect();
            format!("[{spaces}{}]", items.join(&format!("{spaces},")))
        }
        Value::Object(map) => {
            let field = |(name, value): (&String, &Value)| {
                format!("{spaces}{}:{}", Value::from(name.as_str()), rewritten(value, spaces))
            };
            let fields: Vec<_> = map.iter().rev().map(field).collect();
            format!("{{{}{spaces}}}", fields.join(","))
        }
        Value::Number(n) => format!("{spaces}{n}.0"),
        other => format!("{other}{spaces}"),
    }
}

proptest! {
    #[test]
    fn keys_are_equal_when_prompts_are(prompts in prop::collection::vec(any_prompt(), 20)) {
        for (n, a) in prompts.iter().enumerate() {
            prop_assert_eq!(key(a), key(&a.clone()));
            for b in &prompts[..n] {
                prop_assert_eq!(a == b, key(a) == key(b), "{:?} {:?}", a, b);
            }
        }
    }

    /// The scope covers everything except the last user text.
    #[test]
    fn scopes_are_equal_when_prompts_differ_in_the_last_user_text_only(mut prompts in prop::collection::vec(any_prompt(), 20)) {
        let scopes: Vec<_> = prompts.iter().map(scope).collect();
        for prompt in &mut prompts {
            if prompt.fuzzy_text().is_some() {
                prompt.messages.last_mut().unwrap().content = "some text".into();
            }
        }
        for (n, a) in prompts.iter().enumerate() {
            prop_assert_eq!(scope(a), scopes[n]);
            for (m, b) in prompts[..n].iter().enumerate() {
                prop_assert_eq!(a == b, scopes[n] == scopes[m], "{:?} {:?}", a, b);
            }
        }
    }

    /// Moves a letter between two neighbouring fields.
    #[test]
    fn a_letter_moved_between_fields_changes_the_key(prompt in any_prompt(), field in 0..4_usize) {
        let mut shifted = prompt.clone();
        let moved = match field {
            0 => shifted.namespace.pop().map(|c| shifted.model.insert(0, c)),
            1 => shifted.model.pop().map(|c| shifted.messages[0].content.insert(0, c)),
            2 if shifted.messages.len() > 1 => shifted.messages[0].content.pop().map(|c| shifted.messages[1].content.insert(0, c)),
            _ if shifted.stop.len() > 1 => shifted.stop[0].pop().map(|c| shifted.stop[1].insert(0, c)),
            _ => None,
        };
        prop_assert_eq!(moved.is_none(), key(&prompt) == key(&shifted));
    }

    #[test]
    fn formatting_of_json_does_not_change_the_key(value in json_value(), spaces in "[ \n\t]{0,2}") {
        let text = rewritten(&value, &spaces);
        let prompt = Prompt { tools: Some(value), ..question("hello") };
        prop_assert_eq!(key(&prompt), key(&with_tools(&text)), "{}", text);
    }

    #[test]
    fn different_texts_have_different_keys(a in ".*", b in ".*") {
        prop_assert_eq!(a == b, key(&question(&a)) == key(&question(&b)));
    }

    #[test]
    fn tenants_with_different_names_share_nothing(a in letters(), b in letters(), prompt in any_prompt()) {
        let (of_a, of_b) = (of(&Owner::Tenant(a.clone()), &prompt), of(&Owner::Tenant(b.clone()), &prompt));
        prop_assert_eq!(a == b, of_a.0 == of_b.0);
        prop_assert_eq!(a == b, of_a.1 == of_b.1);
    }

    #[test]
    fn the_sizes_of_the_parts_add_up_to_the_hashed_bytes(prompt in any_prompt()) {
        let parts = Scope::parts(&tenant(), &prompt);
        let mut encoder = Encoder::new(SCOPE_CONTEXT);
        encode(&tenant(), &prompt, &mut encoder, |_, _| ());
        prop_assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), encoder.count());
    }
}

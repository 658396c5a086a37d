use serde_json::json;

use super::*;
use crate::prompt::{FinishReason, Usage};

fn calling(user: &str, id: &str) -> Completion {
    let arguments = format!("{{\"user\": \"{user}\", \"action\": \"grant\", \"role\": \"admin\"}}");
    Completion {
        content: String::new(),
        tool_calls: Some(json!([{"id": id, "function": {"name": "change_role", "arguments": arguments}}])),
        finish_reason: FinishReason::ToolCalls,
        model: String::new(),
        tier: String::new(),
        usage: Usage::default(),
    }
}

/// Compared by their words, calls for two users were the same.
#[test]
fn calls_with_other_arguments_are_other_calls() {
    let (anna, berta) = (calling("anna", "call_1"), calling("berta", "call_1"));
    assert_ne!(calls(&anna), calls(&berta));
    assert_eq!(calls(&anna), calls(&calling("anna", "call_2")), "ids mean nothing");
    assert_ne!(calls(&anna), calls(&Completion { tool_calls: None, ..anna.clone() }));
}

#[test]
fn namespaces_have_notes_of_their_own() {
    let id = |owner: Owner, name: &str| NamespaceId { owner, name: name.to_owned() }.note();
    let tenant = |name: &str| Owner::Tenant(name.to_owned());
    let notes = [
        id(tenant("a"), "b/c"),
        id(tenant("a/b"), "c"),
        id(tenant("a"), "c"),
        id(Owner::Shared, "c"),
        id(tenant("shared"), "c"),
    ];
    let distinct: std::collections::HashSet<_> = notes.iter().collect();
    assert_eq!(distinct.len(), notes.len());
}

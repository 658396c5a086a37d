//! Cost of a cache key, compared with a bare hash of as many bytes in the same run; the difference is encoding.
//!
//! The limit is 100 µs for a prompt of 100 KB.

use std::{collections::BTreeMap, hint::black_box};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use promptkeep::{
    key::{self, Owner},
    prompt::{Message, Prompt, Role},
};
use serde_json::{Value, json};

const SMALL: usize = 200;
const LARGE: usize = 100_000;

fn message(role: Role, content: String) -> Message {
    Message::new(role, content)
}

fn prompt(messages: Vec<Message>, tools: Option<Value>) -> Prompt {
    Prompt {
        namespace: "bench".into(),
        model: "auto".into(),
        messages,
        temperature: Some(0.0),
        top_p: None,
        max_tokens: Some(256),
        stop: Vec::new(),
        seed: None,
        response_format: None,
        tools,
        tool_choice: None,
        vary: BTreeMap::new(),
        extra: Default::default(),
        ignored: Default::default(),
    }
}

fn text(bytes: usize) -> String {
    "How do I reset my password? ".chars().cycle().take(bytes).collect()
}

fn question(bytes: usize) -> Prompt {
    prompt(vec![message(Role::User, text(bytes))], None)
}

/// Prompt with a long conversation of short turns.
fn turns(bytes: usize) -> Prompt {
    const TURN: usize = 250;
    let role = |n| if n % 2 == 0 { Role::User } else { Role::Assistant };
    let messages = (0..=bytes / TURN).map(|n| message(role(n), text(TURN)));
    prompt(messages.collect(), None)
}

/// Prompt with tool schemas, whose strings are mostly a few bytes long.
fn tools(bytes: usize) -> Prompt {
    let field = |n: usize| json!({ "type": "string", "description": text(30), "maxLength": n });
    let tool = |n: usize| {
        let fields: serde_json::Map<_, _> = (0..10).map(|n| (format!("field_{n}"), field(n))).collect();
        json!({ "type": "function", "function": { "name": format!("tool_{n}"), "parameters": { "properties": fields } } })
    };
    let one = tool(0).to_string().len();
    prompt(vec![message(Role::User, text(SMALL))], Some((0..=bytes / one).map(tool).collect()))
}

fn keys(c: &mut Criterion) {
    let owner = Owner::Tenant("bench".into());
    let cases = [
        ("question", SMALL, question(SMALL)),
        ("question", LARGE, question(LARGE)),
        ("turns", LARGE, turns(LARGE)),
        ("tools", LARGE, tools(LARGE)),
    ];
    let mut group = c.benchmark_group("key");
    for (name, bytes, prompt) in cases {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new(name, bytes), |b| {
            b.iter(|| key::of(&owner, black_box(&prompt)))
        });
    }
    for bytes in [SMALL, LARGE] {
        let text = text(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("bare blake3", bytes), |b| {
            b.iter(|| blake3::hash(black_box(text.as_bytes())));
        });
    }
    group.finish();
}

criterion_group!(benches, keys);
criterion_main!(benches);

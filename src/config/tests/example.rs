//! The example file lists every key with its default.

use std::collections::BTreeSet;

use super::*;
use crate::config::{
    section::without_numbers,
    tree::{self, Table, Value},
};

const EXAMPLE: &str = include_str!("../../../promptkeep.example.toml");

/// The example with its commented keys enabled: prose begins with `# `, a commented key with `#`.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') || rest.starts_with("  {") => rest,
        _ => line,
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Collects every key of a table, including sections and lists, in the form of [`without_numbers`].
fn keys(prefix: &str, table: &Table, into: &mut BTreeSet<String>) {
    for (name, node) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &node.value {
            Value::Table(inner) => keys(&key, inner, into),
            Value::List(items) => {
                for item in items {
                    if let Value::Table(inner) = &item.value {
                        keys(&format!("{key}[]"), inner, into);
                    }
                }
            }
            _ => {}
        }
        into.insert(key);
    }
}

#[test]
fn the_example_states_the_defaults() {
    assert_eq!(good(EXAMPLE), Config::default());
}

#[test]
fn the_example_lists_exactly_the_known_keys() {
    let text = uncommented();
    let secrets = Secrets { env: &HashMap::new(), required: RequiredSecrets::None };
    let Loaded { config, findings } = load_text("example", &text, &secrets);
    assert_eq!(ConfigErrors::from_problems(findings.problems), None);
    assert_eq!((config.providers.len(), config.models.len(), config.tenants.len()), (1, 5, 2));

    let mut written = BTreeSet::new();
    keys("", &tree::parse("example", &text, &mut Vec::new()), &mut written);
    let known: BTreeSet<_> = findings.known.iter().map(|key| without_numbers(key)).collect();
    assert_eq!(known, written);
}

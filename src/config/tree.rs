//! File and environment as one tree of values with their locations. The only file that uses the `toml` crate.

use std::{collections::BTreeMap, ops::Range};

use toml::de::{DeTable, DeValue};

use super::problem::{Location, Problem};

/// Prefix of the environment variables that set keys.
pub(super) const PREFIX: &str = "PROMPTKEEP_";
/// Top-level lists. A variable sets a whole list, written as TOML.
pub(super) const LISTS: [&str; 3] = ["tenants", "providers", "models"];

pub(super) type Table = BTreeMap<String, Node>;

/// A value and its location.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub location: Location,
    /// Location of the key, which may be another line than that of its value.
    pub key_location: Location,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    /// No key takes a date.
    Date,
    /// Text of an environment variable, which the key's reader interprets.
    Raw(String),
}

/// Converts TOML nodes, and their byte offsets to lines.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

/// Parses the file. Syntax errors are added to `problems`, and parsing continues after each.
pub(super) fn parse(file: &str, text: &str, problems: &mut Vec<Problem>) -> Table {
    let source = Source { file, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    problems.extend(errors.iter().map(|error| source.syntax_error(error)));
    source.table(table.get_ref())
}

/// Parses the TOML value of a variable. Returns `None` when it is not TOML.
pub(super) fn parse_value(text: &str, location: &Location) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    let source = Source { file: "", text };
    let mut node = source.node(value.get_ref(), value.span(), value.span());
    node.set_location(location);
    Some(node.value)
}

/// Overrides the file with the variable `PROMPTKEEP_SECTION__KEY`. Returns false for variables that set no key,
/// also for those with the prefix but without two underscores: some hold API keys, and Kubernetes adds its own for
/// a service named promptkeep.
pub(super) fn overlay(tree: &mut Table, name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let key = rest.to_ascii_lowercase();
    if !key.contains("__") && !LISTS.contains(&key.as_str()) {
        return false;
    }
    let location = Location::Variable { name: name.to_owned() };
    let mut parts: Vec<&str> = key.split("__").collect();
    let last = parts.pop().unwrap_or_default();
    let mut table = tree;
    for part in parts {
        let node =
            table.entry(part.to_owned()).or_insert_with(|| Node::new(Value::Table(Table::new()), &location));
        if !matches!(node.value, Value::Table(_)) {
            *node = Node::new(Value::Table(Table::new()), &location);
        }
        let Value::Table(inner) = &mut node.value else { return true };
        table = inner;
    }
    table.insert(last.to_owned(), Node::new(Value::Raw(value.to_owned()), &location));
    true
}

// === impl Node ===

impl Node {
    fn new(value: Value, location: &Location) -> Self {
        Self { value, location: location.clone(), key_location: location.clone() }
    }

    fn set_location(&mut self, location: &Location) {
        self.location = location.clone();
        self.key_location = location.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_location(location)),
            Value::Table(table) => table.values_mut().for_each(|node| node.set_location(location)),
            _ => {}
        }
    }
}

// === impl Source ===

impl Source<'_> {
    fn location(&self, span: Range<usize>) -> Location {
        let before = self.text.as_bytes().iter().take(span.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Location::Line { file: self.file.to_owned(), line }
    }

    fn syntax_error(&self, error: &toml::de::Error) -> Problem {
        let location = self.location(error.span().unwrap_or_default());
        Problem { location, key: String::new(), message: error.message().to_owned() }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            (name.clone().into_owned(), self.node(value.get_ref(), value.span(), key.span()))
        };
        table.iter().map(entry).collect()
    }

    fn node(&self, value: &DeValue<'_>, span: Range<usize>, key_span: Range<usize>) -> Node {
        let value = match value {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(n) => integer(n),
            DeValue::Float(x) => x.as_str().parse().map_or(Value::Date, Value::Float),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(items) => {
                let item =
                    |item: &toml::Spanned<DeValue<'_>>| self.node(item.get_ref(), item.span(), item.span());
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { value, location: self.location(span), key_location: self.location(key_span) }
    }
}

/// Replaces integers beyond 128 bits by infinity, which is above every limit too.
fn integer(n: &toml::de::DeInteger<'_>) -> Value {
    i128::from_str_radix(n.as_str(), n.radix()).map_or(Value::Float(f64::INFINITY), Value::Integer)
}

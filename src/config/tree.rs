//! The file and the environment as one tree of values that know where they were written. The only file
//! that knows the `toml` crate.

use std::{collections::BTreeMap, ops::Range};

use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// Variables that begin so belong to promptkeep.
pub(super) const PREFIX: &str = "PROMPTKEEP_";
/// Top-level lists, which a variable sets whole, as TOML.
pub(super) const LISTS: [&str; 3] = ["tenants", "providers", "models"];

pub(super) type Table = BTreeMap<String, Node>;

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
    /// Where its key stands, which is another line when the value is long.
    pub key_place: Place,
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
    /// From the environment: the reader of the key decides what it means.
    Raw(String),
}

/// Turns byte offsets into lines, and TOML nodes into ours.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

/// Parses the file, adding syntax errors to `problems` and going on after each.
pub(super) fn parse(file: &str, text: &str, problems: &mut Vec<Problem>) -> Table {
    let source = Source { file, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    problems.extend(errors.iter().map(|error| source.syntax_error(error)));
    source.table(table.get_ref())
}

/// Parses a value that a variable holds in TOML. `None` when it is not TOML.
pub(super) fn parse_value(text: &str, place: &Place) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    let source = Source { file: "", text };
    let mut node = source.node(value.get_ref(), value.span(), value.span());
    node.set_place(place);
    Some(node.value)
}

/// Puts `PROMPTKEEP_SECTION__KEY` over what the file says. Variables of ours without two underscores are
/// left to the caller: some name API keys, and an orchestrator adds its own for a service of our name.
pub(super) fn overlay(tree: &mut Table, name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let key = rest.to_ascii_lowercase();
    if !key.contains("__") && !LISTS.contains(&key.as_str()) {
        return false;
    }
    let place = Place::Variable { name: name.to_owned() };
    let mut parts: Vec<&str> = key.split("__").collect();
    let last = parts.pop().unwrap_or_default();
    let mut table = tree;
    for part in parts {
        let node =
            table.entry(part.to_owned()).or_insert_with(|| Node::new(Value::Table(Table::new()), &place));
        if !matches!(node.value, Value::Table(_)) {
            *node = Node::new(Value::Table(Table::new()), &place);
        }
        let Value::Table(inner) = &mut node.value else { return true };
        table = inner;
    }
    table.insert(last.to_owned(), Node::new(Value::Raw(value.to_owned()), &place));
    true
}

// === impl Node ===

impl Node {
    fn new(value: Value, place: &Place) -> Self {
        Self { value, place: place.clone(), key_place: place.clone() }
    }

    fn set_place(&mut self, place: &Place) {
        self.place = place.clone();
        self.key_place = place.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_place(place)),
            Value::Table(table) => table.values_mut().for_each(|node| node.set_place(place)),
            _ => {}
        }
    }
}

// === impl Source ===

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.as_bytes().iter().take(span.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Place::Line { file: self.file.to_owned(), line }
    }

    fn syntax_error(&self, error: &toml::de::Error) -> Problem {
        let place = self.place(error.span().unwrap_or_default());
        Problem { place, key: String::new(), message: error.message().to_owned() }
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
        Node { value, place: self.place(span), key_place: self.place(key_span) }
    }
}

/// Numbers beyond 128 bits are beyond every limit, so infinity stands for them.
fn integer(n: &toml::de::DeInteger<'_>) -> Value {
    i128::from_str_radix(n.as_str(), n.radix()).map_or(Value::Float(f64::INFINITY), Value::Integer)
}

//! Takes typed values out of one table and reports what is left. The table of a section, of a list's
//! element or of the whole file are alike.

use std::collections::{BTreeSet, HashMap};

use super::{
    problem::{Place, Problem},
    tree::{LISTS, Node, Table, Value, parse_value},
    value::Read,
};

/// A key that people try, and what to do instead.
const SECRET: (&str, &str) = ("api_key", "secrets come from the environment: name a variable in api_key_env");

/// What reading leaves behind beside the values.
#[derive(Default)]
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    /// Every key that was asked for, by path with `[]` for a list's elements.
    pub known: BTreeSet<String>,
    /// Where each key that was set stands, by path such as `models[2].tier`.
    places: HashMap<String, Place>,
}

/// One table, with its path.
pub(super) struct Section<'a> {
    path: String,
    place: Place,
    table: Table,
    names: Vec<&'static str>,
    pub findings: &'a mut Findings,
}

// === impl Findings ===

impl Findings {
    pub fn report(&mut self, place: &Place, key: &str, message: impl Into<String>) {
        let problem = Problem { place: place.clone(), key: key.to_owned(), message: message.into() };
        self.problems.push(problem);
    }

    pub fn is_reported(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key == key)
    }

    /// Reports a problem of a key where it stands; of one left at its default, where its table stands. One
    /// whose value is already reported is left at that: what follows from it helps nobody.
    pub fn report_key(&mut self, key: &str, message: impl Into<String>) {
        if self.is_reported(key) {
            return;
        }
        let mut path = key;
        loop {
            if let Some(place) = self.places.get(path).cloned() {
                return self.report(&place, key, message);
            }
            path = path.rfind(['.', '[']).map_or("", |at| &path[..at]);
        }
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    pub fn new(path: String, place: Place, table: Table, findings: &'a mut Findings) -> Self {
        findings.places.insert(path.clone(), place.clone());
        Self { path, place, table, names: Vec::new(), findings }
    }

    pub fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Sets `target` when the table has `name`. A malformed value is reported and leaves it alone.
    pub fn take<T>(&mut self, name: &'static str, target: &mut T, read: impl Fn(&Node) -> Read<T>) {
        let Some(node) = self.remove(name) else { return };
        match read(&node) {
            Ok(value) => *target = value,
            Err(message) => self.findings.report(&node.place, &self.key(name), message),
        }
    }

    /// Fills `target` from the table `name`.
    pub fn nested<T>(&mut self, name: &'static str, target: &mut T, fill: impl Fn(&mut Section<'_>, &mut T)) {
        let Some(node) = self.remove(name) else {
            // Asked for all the same, so that its keys are known.
            let empty = Table::new();
            let place = self.place.clone();
            return fill(&mut Section::new(self.key(name), place, empty, self.findings), target);
        };
        let key = self.key(name);
        match node.value {
            Value::Table(table) => {
                let mut section = Section::new(key, node.place, table, self.findings);
                fill(&mut section, target);
                section.finish();
            }
            _ => self.findings.report(&node.place, &key, "must be a table"),
        }
    }

    /// Fills one element of `target` from each table of the list `name`.
    pub fn each<T: Default>(
        &mut self,
        name: &'static str,
        target: &mut Vec<T>,
        fill: impl Fn(&mut Section<'_>, &mut T),
    ) {
        let Some(node) = self.remove(name) else { return };
        let key = self.key(name);
        let value = match node.value {
            Value::Raw(text) => parse_value(&text, &node.place),
            value => Some(value),
        };
        let Some(Value::List(items)) = value else {
            return self.findings.report(&node.place, &key, "must be a list of tables");
        };
        for (n, item) in items.into_iter().enumerate() {
            let path = format!("{key}[{n}]");
            let Value::Table(table) = item.value else {
                self.findings.report(&item.place, &path, "must be a table");
                continue;
            };
            let mut section = Section::new(path, item.place, table, self.findings);
            let mut element = T::default();
            fill(&mut section, &mut element);
            section.finish();
            target.push(element);
        }
    }

    /// Reports the names of `required` that the table lacks. Called before they are taken.
    pub fn require(&mut self, required: &[&str]) {
        for name in required {
            if !self.table.contains_key(*name) {
                self.findings.report(&self.place, &self.key(name), "is missing");
            }
        }
    }

    fn remove(&mut self, name: &'static str) -> Option<Node> {
        let key = self.key(name);
        self.names.push(name);
        self.findings.known.insert(without_numbers(&key));
        let node = self.table.remove(name)?;
        self.findings.places.insert(key, node.place.clone());
        Some(node)
    }

    /// Reports the keys that nobody took.
    pub fn finish(self) {
        for (name, node) in &self.table {
            let key = self.key(name);
            let message = unknown(&key, name, &self.names);
            report_unknown(&key, node, &message, self.findings);
        }
    }
}

/// A table that only the environment made is reported by its leaves, so that every variable is named.
fn report_unknown(key: &str, node: &Node, message: &str, findings: &mut Findings) {
    match (&node.value, &node.key_place) {
        (Value::Table(table), Place::Variable { .. }) => {
            for (name, node) in table {
                report_unknown(&format!("{key}.{name}"), node, message, findings);
            }
        }
        _ => findings.report(&node.key_place, key, message),
    }
}

fn unknown(key: &str, name: &str, names: &[&'static str]) -> String {
    if key.contains('.') && LISTS.contains(&name) {
        return format!("unknown key; `{name}` belongs at the top of the file, before the first [section]");
    }
    if name == SECRET.0 {
        return format!("unknown key; {}", SECRET.1);
    }
    match nearest(name, names) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => format!("unknown key; known here: {}", names.join(", ")),
    }
}

/// The name that fewest edits turn `name` into, if half its letters stay.
fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let distance = |near: &&&str| edits(name.as_bytes(), near.as_bytes());
    let near = names.iter().min_by_key(distance)?;
    (distance(&near) * 2 <= near.len().max(name.len())).then_some(near)
}

/// Levenshtein distance in bytes, one row at a time.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `models[2].tier` is the known key `models[].tier`.
pub(super) fn without_numbers(key: &str) -> String {
    let mut inside = false;
    let mut keep = |c: char| {
        inside = c == '[' || (inside && c != ']');
        !inside || c == '['
    };
    key.chars().filter(|c| keep(*c)).collect()
}

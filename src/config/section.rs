//! One TOML table being read: typed values are taken out by key, and the keys left over are reported as unknown.

use std::collections::{BTreeSet, HashMap};

use super::{
    problem::{Location, Problem},
    tree::{LISTS, Node, Table, Value, parse_value},
    value::Read,
};

/// Key that people try first for a secret.
const SECRET_KEY: &str = "api_key";

/// Everything that reading finds besides the values.
#[derive(Default)]
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    /// Settings that are valid and probably not meant.
    pub warnings: Vec<Problem>,
    /// Path of every key that exists, with `[]` for a list's elements.
    pub known: BTreeSet<String>,
    /// Location of every key that is set, by path such as `models[2].tier`.
    locations: HashMap<String, Location>,
}

/// One table: the whole file, a section or a list's element.
pub(super) struct Section<'a> {
    path: String,
    location: Location,
    /// Keys not taken yet.
    table: Table,
    /// Names taken so far, which are the names that exist here.
    names: Vec<&'static str>,
    pub findings: &'a mut Findings,
}

// === impl Findings ===

impl Findings {
    pub fn report(&mut self, location: &Location, key: &str, message: impl Into<String>) {
        let problem = Problem { location: location.clone(), key: key.to_owned(), message: message.into() };
        self.problems.push(problem);
    }

    pub fn is_reported(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key == key)
    }

    /// Reports a problem of a key at its location, or at its table's location when the key has its default. Skips
    /// keys that are already reported, because a second problem only follows from the first.
    pub fn report_key(&mut self, key: &str, message: impl Into<String>) {
        if !self.is_reported(key) {
            let location = self.location_of(key);
            self.report(&location, key, message);
        }
    }

    /// Warns about a key, with the location that [`Self::report_key`] would give it.
    pub fn warn_key(&mut self, key: &str, message: impl Into<String>) {
        let location = self.location_of(key);
        self.warnings.push(Problem { location, key: key.to_owned(), message: message.into() });
    }

    fn location_of(&self, key: &str) -> Location {
        let mut path = key;
        loop {
            if let Some(location) = self.locations.get(path) {
                return location.clone();
            }
            path = path.rfind(['.', '[']).map_or("", |at| &path[..at]);
        }
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    pub fn new(path: String, location: Location, table: Table, findings: &'a mut Findings) -> Self {
        findings.locations.insert(path.clone(), location.clone());
        Self { path, location, table, names: Vec::new(), findings }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Sets `target` if the table has `name`. A malformed value is reported and leaves `target` unchanged.
    pub fn take<T>(&mut self, name: &'static str, target: &mut T, read: impl Fn(&Node) -> Read<T>) {
        let Some(node) = self.remove(name) else { return };
        match read(&node) {
            Ok(value) => *target = value,
            Err(message) => self.findings.report(&node.location, &self.key(name), message),
        }
    }

    /// Fills `target` from the table `name`.
    pub fn nested<T>(&mut self, name: &'static str, target: &mut T, fill: impl Fn(&mut Section<'_>, &mut T)) {
        let Some(node) = self.remove(name) else {
            // Reads an empty table, which records the keys that exist.
            let location = self.location.clone();
            return fill(&mut Section::new(self.key(name), location, Table::new(), self.findings), target);
        };
        let key = self.key(name);
        match node.value {
            Value::Table(table) => {
                let mut section = Section::new(key, node.location, table, self.findings);
                fill(&mut section, target);
                section.finish();
            }
            _ => self.findings.report(&node.location, &key, "must be a table"),
        }
    }

    /// Appends to `target` one element for each table of the list `name`.
    pub fn each<T: Default>(
        &mut self,
        name: &'static str,
        target: &mut Vec<T>,
        fill: impl Fn(&mut Section<'_>, &mut T),
    ) {
        let Some(node) = self.remove(name) else { return };
        let key = self.key(name);
        let value = match node.value {
            Value::Raw(text) => parse_value(&text, &node.location),
            value => Some(value),
        };
        let Some(Value::List(items)) = value else {
            return self.findings.report(&node.location, &key, "must be a list of tables");
        };
        for (n, item) in items.into_iter().enumerate() {
            let path = format!("{key}[{n}]");
            let Value::Table(table) = item.value else {
                self.findings.report(&item.location, &path, "must be a table");
                continue;
            };
            let mut section = Section::new(path, item.location, table, self.findings);
            let mut element = T::default();
            fill(&mut section, &mut element);
            section.finish();
            target.push(element);
        }
    }

    /// Reports the names of `required` that the table lacks. Must be called before they are taken.
    pub fn require(&mut self, required: &[&str]) {
        for name in required {
            if !self.table.contains_key(*name) {
                self.findings.report(&self.location, &self.key(name), "is missing");
            }
        }
    }

    /// Reports the names that the table has and that another key has replaced; each comes with the path of that key.
    pub fn report_replaced(&mut self, replaced: &[(&str, &str)]) {
        for (name, by) in replaced {
            if let Some(node) = self.table.remove(*name) {
                let message = format!("was replaced by {by}");
                self.findings.report(&node.key_location, &self.key(name), message);
            }
        }
    }

    fn remove(&mut self, name: &'static str) -> Option<Node> {
        let key = self.key(name);
        self.names.push(name);
        self.findings.known.insert(without_numbers(&key));
        let node = self.table.remove(name)?;
        self.findings.locations.insert(key, node.location.clone());
        Some(node)
    }

    /// Reports the keys that were not taken.
    pub fn finish(self) {
        for (name, node) in &self.table {
            let key = self.key(name);
            let message = unknown(&key, name, &self.names);
            report_unknown(&key, node, &message, self.findings);
        }
    }
}

/// Reports an unknown key. A table that comes from the environment is reported key by key, so that every variable
/// is named.
fn report_unknown(key: &str, node: &Node, message: &str, findings: &mut Findings) {
    match (&node.value, &node.key_location) {
        (Value::Table(table), Location::Variable { .. }) => {
            for (name, node) in table {
                report_unknown(&format!("{key}.{name}"), node, message, findings);
            }
        }
        _ => findings.report(&node.key_location, key, message),
    }
}

/// Message for an unknown key.
fn unknown(key: &str, name: &str, names: &[&'static str]) -> String {
    if key.contains('.') && LISTS.contains(&name) {
        return format!("unknown key; `{name}` belongs at the top of the file, before the first [section]");
    }
    if name == SECRET_KEY {
        return "unknown key; secrets come from the environment: name a variable in api_key_env".to_owned();
    }
    match nearest(name, names) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => format!("unknown key; known here: {}", names.join(", ")),
    }
}

/// The name with the smallest edit distance to `name`, if that is at most half its length.
fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let distance = |near: &&&str| strsim::levenshtein(name, near);
    let near = names.iter().min_by_key(distance)?;
    (distance(&near) * 2 <= near.len().max(name.len())).then_some(near)
}

/// The path of a known key: `models[].tier` for `models[2].tier`.
pub(super) fn without_numbers(key: &str) -> String {
    let mut inside = false;
    let mut keep = |c: char| {
        inside = c == '[' || (inside && c != ']');
        !inside || c == '['
    };
    key.chars().filter(|c| keep(*c)).collect()
}

//! Notices namespaces in which every conversation opens a scope of its own, so that no semantic hit is possible, and finds
//! the field that differs. A clock or a name in the system prompt is the usual one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use quick_cache::sync::Cache;
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3Default;

use super::AdmittedRequest;
use crate::{
    key::{Owner, Scope},
    prompt::{Message, Prompt, Role},
};

/// Maximum namespaces that are watched; the least recently used are forgotten.
const NAMESPACES_MAX: usize = 1000;
/// Scopes of a namespace that are remembered.
const SCOPES_MAX: usize = 128;
/// Conversations in a row with a scope of their own from which a namespace is reported.
const REPORTED_FROM: u32 = 20;
/// Conversations in a row from which the fields of prompts are compared.
const COMPARED_FROM: u32 = REPORTED_FROM / 2;
/// Fields of one prompt that are compared.
const FIELDS_MAX: usize = 64;
/// Maximum length in bytes of a caller's name of a field that is repeated in reports.
const NAME_BYTES_MAX: usize = 64;

/// The namespaces that requests were seen in.
pub(super) struct FreshScopes {
    namespaces: Cache<(Owner, String), Arc<Mutex<Namespace>>>,
}

/// A namespace whose every conversation opens a scope of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshScope {
    pub owner: Owner,
    pub namespace: String,
    pub field: DifferingField,
}

/// The field in which prompts differ most often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferingField {
    SystemPrompt,
    EarlierTurns,
    /// Another field of the contract, by its name.
    Field(&'static str),
    /// A value of `vary`, by its name.
    Vary(String),
    /// A further field of the request, by its name.
    Extra(String),
}

/// One namespace. The mutex around it is held for hashing one prompt.
#[derive(Default)]
struct Namespace {
    scopes: VecDeque<Scope>,
    /// Conversations in a row that opened a scope.
    fresh: u32,
    /// Hash of each field of the last prompt.
    last: BTreeMap<DifferingField, u64>,
    /// How often each field differed from the prompt before.
    differed: BTreeMap<DifferingField, u32>,
    reported: Option<DifferingField>,
}

// === impl FreshScopes ===

impl FreshScopes {
    pub(super) fn new() -> Self {
        Self { namespaces: Cache::new(NAMESPACES_MAX) }
    }

    /// Notes a request that the exact lookup did not answer. Later turns of a conversation do not count: what was said
    /// before makes their scope a new one.
    pub(super) fn note(&self, request: &AdmittedRequest) {
        let AdmittedRequest { owner, prompt, scope, cache, .. } = request;
        if cache.no_cache || prompt.messages.iter().any(|message| message.role == Role::Assistant) {
            return;
        }
        let key = (owner.clone(), prompt.namespace.clone());
        let Ok(namespace) = self.namespaces.get_or_insert_with(&key, || Ok::<_, ()>(Arc::default())) else {
            return;
        };
        let mut namespace = namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let was_reported = namespace.reported.is_some();
        namespace.note(*scope, prompt);
        if let Some(field) = namespace.reported.as_ref().filter(|_| !was_reported) {
            tracing::warn!(
                namespace = prompt.namespace,
                field = field.to_string(),
                "every conversation has a scope of its own, so that no semantic hit is possible"
            );
        }
    }

    /// The namespaces that are reported now.
    pub(super) fn reported(&self) -> Vec<FreshScope> {
        let report = |((owner, name), namespace): ((Owner, String), Arc<Mutex<Namespace>>)| {
            let field = namespace.lock().unwrap_or_else(PoisonError::into_inner).reported.clone()?;
            Some(FreshScope { owner, namespace: name, field })
        };
        self.namespaces.iter().filter_map(report).collect()
    }
}

// === impl Namespace ===

impl Namespace {
    fn note(&mut self, scope: Scope, prompt: &Prompt) {
        if self.scopes.contains(&scope) {
            *self = Self { scopes: std::mem::take(&mut self.scopes), ..Self::default() };
            return;
        }
        if self.scopes.len() == SCOPES_MAX {
            self.scopes.pop_front();
        }
        self.scopes.push_back(scope);
        self.fresh = self.fresh.saturating_add(1);
        if self.fresh < COMPARED_FROM || self.reported.is_some() {
            return;
        }
        let fields = hashes(prompt);
        let names = fields.keys().chain(self.last.keys().filter(|name| !fields.contains_key(name)));
        for name in names.filter(|name| fields.get(name) != self.last.get(name) && !self.last.is_empty()) {
            if self.differed.contains_key(name) || self.differed.len() < FIELDS_MAX {
                *self.differed.entry(name.clone()).or_default() += 1;
            }
        }
        self.last = fields;
        if self.fresh >= REPORTED_FROM {
            let most = self.differed.iter().max_by_key(|(_, times)| **times);
            self.reported = most.map(|(field, _)| field.clone());
            (self.last, self.differed) = Default::default();
        }
    }
}

/// A hash of each field that the scope covers. Destructures without `..`, so a new field of [`Prompt`] does not compile
/// until it is compared here.
fn hashes(prompt: &Prompt) -> BTreeMap<DifferingField, u64> {
    let Prompt {
        namespace: _,
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
        extra,
        ignored: _,
    } = prompt;
    let fuzzy = usize::from(prompt.fuzzy_text().is_some());
    let (fixed, _) = messages.split_at(messages.len() - fuzzy);
    let (system, others): (Vec<&Message>, Vec<&Message>) =
        fixed.iter().partition(|message| matches!(message.role, Role::System | Role::Developer));
    let turns = |turns: &[&Message]| hash(|to| turns.iter().for_each(|turn| write_turn(turn, to)));
    let value = |value: &Option<Value>| hash(|to| value.iter().for_each(|value| write_json(value, to)));
    let text = |text: &str| hash(|to| to.update(text.as_bytes()));
    let fields = [
        (DifferingField::SystemPrompt, turns(&system)),
        (DifferingField::EarlierTurns, turns(&others)),
        (DifferingField::Field("model"), text(model)),
        (DifferingField::Field("temperature"), text(&format!("{temperature:?}"))),
        (DifferingField::Field("top_p"), text(&format!("{top_p:?}"))),
        (DifferingField::Field("max_tokens"), text(&format!("{max_tokens:?}"))),
        (DifferingField::Field("seed"), text(&format!("{seed:?}"))),
        (DifferingField::Field("stop"), hash(|to| stop.iter().for_each(|stop| to.update(stop.as_bytes())))),
        (DifferingField::Field("response_format"), value(response_format)),
        (DifferingField::Field("tools"), value(tools)),
        (DifferingField::Field("tool_choice"), value(tool_choice)),
    ];
    let vary = vary.iter().map(|(name, value)| (DifferingField::Vary(shown(name)), text(value)));
    let json = |value: &Value| hash(|to| write_json(value, to));
    let extra = extra.iter().map(|(name, value)| (DifferingField::Extra(shown(name)), json(value)));
    fields.into_iter().chain(vary.chain(extra).take(FIELDS_MAX)).collect()
}

fn hash(write: impl FnOnce(&mut Xxh3Default)) -> u64 {
    let mut hasher = Xxh3Default::new();
    write(&mut hasher);
    hasher.digest()
}

fn write_turn(message: &Message, to: &mut Xxh3Default) {
    to.update(message.role.as_str().as_bytes());
    to.update(message.content.as_bytes());
    to.update(message.name.as_deref().unwrap_or_default().as_bytes());
    message.extra.values().for_each(|value| write_json(value, to));
}

/// Visits the tree without making text of it, as the key does: tools may be large.
fn write_json(value: &Value, to: &mut Xxh3Default) {
    match value {
        Value::String(text) => to.update(text.as_bytes()),
        Value::Array(items) => items.iter().for_each(|item| write_json(item, to)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            to.update(name.as_bytes());
            write_json(value, to);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => to.update(value.to_string().as_bytes()),
    }
}

/// A caller's name of a field if it looks like one, since it is written to the log.
fn shown(name: &str) -> String {
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if is_name { name.to_owned() } else { "…".to_owned() }
}

// === impl DifferingField ===

impl DifferingField {
    /// Every label of [`Self::label`].
    pub const LABELS: [&'static str; 5] = ["system_prompt", "earlier_turns", "vary", "extra", "other"];

    /// Returns the label used in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::SystemPrompt => "system_prompt",
            Self::EarlierTurns => "earlier_turns",
            Self::Vary(_) => "vary",
            Self::Extra(_) => "extra",
            Self::Field(_) => "other",
        }
    }
}

impl std::fmt::Display for DifferingField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SystemPrompt => f.write_str("system prompt"),
            Self::EarlierTurns => f.write_str("earlier turns"),
            Self::Field(name) => f.write_str(name),
            Self::Vary(name) => write!(f, "vary.{name}"),
            Self::Extra(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::key;

    fn noted(prompts: impl IntoIterator<Item = Prompt>) -> Namespace {
        let mut namespace = Namespace::default();
        for prompt in prompts {
            let (_, scope) = key::of(&Owner::Shared, &prompt);
            namespace.note(scope, &prompt);
        }
        namespace
    }

    fn prompt(n: u32, system: &str) -> Prompt {
        let messages =
            vec![Message::new(Role::System, system), Message::new(Role::User, format!("Question {n}?"))];
        Prompt { messages, ..Prompt::default() }
    }

    #[test]
    fn a_clock_in_the_system_prompt_is_found() {
        let clock = |n| prompt(n, &format!("It is 12:{n}."));
        assert_eq!(noted((0..REPORTED_FROM - 1).map(clock)).reported, None);
        assert_eq!(noted((0..REPORTED_FROM).map(clock)).reported, Some(DifferingField::SystemPrompt));
    }

    #[test]
    fn a_field_of_the_request_is_named() {
        let with_id = |n| {
            let mut prompt = prompt(n, "Be brief.");
            prompt.extra.insert("request_id".to_owned(), json!(n));
            prompt
        };
        let field = noted((0..REPORTED_FROM).map(with_id)).reported.unwrap();
        assert_eq!((field.to_string().as_str(), field.label()), ("request_id", "extra"));
    }

    #[test]
    fn a_repeated_scope_ends_the_report() {
        let clock = |n| prompt(n, &format!("It is 12:{n}."));
        assert_eq!(noted((0..REPORTED_FROM).map(clock).chain([clock(0)])).reported, None);
        assert_eq!(noted((0..200).map(|n| prompt(n, "Be brief."))).reported, None);
    }

    #[test]
    fn names_that_could_be_text_are_not_shown() {
        assert_eq!((shown("user_id"), shown("my dear diary")), ("user_id".into(), "…".into()));
    }
}

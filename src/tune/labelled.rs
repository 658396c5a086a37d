//! Labelled traffic: one JSON object a line.

use std::path::Path;

use serde::Deserialize;

use crate::{
    offline::{LineError, read_lines},
    prompt::{Message, Prompt, Role},
};

/// One request and its truth.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Names it in the results.
    pub id: String,
    /// The last user text.
    pub text: String,
    /// Earlier user texts, oldest first.
    #[serde(default)]
    pub turns: Vec<String>,
    pub system: Option<String>,
    /// Rows of one class have one answer.
    pub class: String,
    /// What a model would answer.
    answer: Option<String>,
}

/// The rows of a file. Fields that are not known are ignored.
///
/// # Errors
/// [`LineError`], naming file and line.
pub fn read(path: &Path) -> Result<Vec<Row>, LineError> {
    let rows = read_lines(path, |line| serde_json::from_str(line))?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

// === impl Row ===

impl Row {
    pub fn brings_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// The answer, or one that is no other row's.
    pub fn answer(&self) -> String {
        self.answer.clone().unwrap_or_else(|| format!("[{}]", self.id))
    }

    /// As an application would send it.
    pub fn prompt(&self) -> Prompt {
        let system = self.system.iter().map(|text| Message::new(Role::System, text));
        let user = self.turns.iter().chain([&self.text]).map(|text| Message::new(Role::User, text));
        Prompt { messages: system.chain(user).collect(), ..Prompt::default() }
    }
}

//! Labelled traffic: one JSON object a line.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::prompt::{Message, Prompt, Role};

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

/// A file that is no labelled traffic.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("{path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("{path}:{line}: {error}")]
    Line { path: String, line: usize, error: serde_json::Error },
    #[error("{path}: has no rows")]
    Empty { path: String },
}

/// The rows of a file. Fields that are not known are ignored.
///
/// # Errors
/// [`LabelError`], naming file and line.
pub fn read(path: &Path) -> Result<Vec<Row>, LabelError> {
    let name = || path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| LabelError::Unreadable { path: name(), error })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(n, line)| {
        serde_json::from_str(line).map_err(|error| LabelError::Line { path: name(), line: n + 1, error })
    };
    let rows: Vec<Row> = lines.map(row).collect::<Result<_, _>>()?;
    if rows.is_empty() { Err(LabelError::Empty { path: name() }) } else { Ok(rows) }
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

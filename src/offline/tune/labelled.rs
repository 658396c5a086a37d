//! A row of labelled traffic.

use std::path::Path;

use serde::Deserialize;

use crate::{
    offline::{TrafficFileError, read_lines},
    prompt::{Message, Prompt, Role},
};

/// One request and its label.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Name of the row in the results.
    pub id: String,
    /// The last user text.
    pub text: String,
    /// Earlier user texts, oldest first.
    #[serde(default)]
    pub turns: Vec<String>,
    pub system: Option<String>,
    /// The label: one answer is right for all rows of a class.
    pub class: String,
    /// The answer of a model.
    answer: Option<String>,
}

/// Reads the rows of a file and ignores unknown fields.
///
/// # Errors
/// [`TrafficFileError`], naming the file and the line.
pub fn read(path: &Path) -> Result<Vec<Row>, TrafficFileError> {
    let rows = read_lines(path, |line| serde_json::from_str(line))?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

impl Row {
    pub fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// Returns the answer, or a text that no other row has.
    pub fn answer(&self) -> String {
        self.answer.clone().unwrap_or_else(|| format!("[{}]", self.id))
    }

    /// Builds the prompt that an application would send.
    pub fn prompt(&self) -> Prompt {
        let system = self.system.iter().map(|text| Message::new(Role::System, text));
        let user = self.turns.iter().chain([&self.text]).map(|text| Message::new(Role::User, text));
        Prompt { messages: system.chain(user).collect(), ..Prompt::default() }
    }
}

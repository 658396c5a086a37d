//! A file of labelled pairs: a kept question with its answer, a new question, and whether the answer fits it.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::MeasureError;

/// A kept question with its answer, and a new question.
#[derive(Clone, Debug, Deserialize)]
pub struct LabelledPair {
    /// Line in the file, counted from 1.
    #[serde(skip)]
    pub line: usize,
    pub question: String,
    pub answer: String,
    pub new_question: String,
    /// System prompt and earlier turns of both questions.
    pub context: Option<String>,
    /// The label: whether the answer is right for the new question too.
    pub same: bool,
}

/// The lines of a file.
#[derive(Debug)]
pub struct PairsFile {
    /// At least one.
    pub pairs: Vec<LabelledPair>,
    pub bad_lines: Vec<BadLine>,
}

/// A line that is no labelled pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    pub error: String,
}

impl PairsFile {
    /// Reads the pairs of a file. Unknown fields and blank lines are ignored.
    ///
    /// # Errors
    /// When the file cannot be read or has no pair.
    pub fn read(path: &Path) -> Result<Self, MeasureError> {
        let name = || path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|error| MeasureError::Unreadable { path: name(), error })?;
        let (mut pairs, mut bad_lines) = (Vec::new(), Vec::new());
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            match serde_json::from_str::<LabelledPair>(text) {
                Ok(pair) => pairs.push(LabelledPair { line, ..pair }),
                Err(error) => bad_lines.push(BadLine { line, error: error.to_string() }),
            }
        }
        if pairs.is_empty() {
            return Err(MeasureError::NoPairs { path: name(), bad: bad_lines });
        }
        Ok(Self { pairs, bad_lines })
    }
}

impl Display for BadLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { line, error } = self;
        write!(f, "line {line}: {error}")
    }
}

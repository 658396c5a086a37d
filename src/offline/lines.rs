//! Traffic in a file: one JSON object a line.

use std::{fmt::Display, fs, path::Path};

/// A file that is no such traffic.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("{path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("{path}:{line}: {error}")]
    Line { path: String, line: usize, error: String },
    #[error("{path}: has no rows")]
    Empty { path: String },
}

/// What `parse` makes of each line that is not blank, with its number, counted from 1.
///
/// # Errors
/// [`LineError`], naming file and line.
pub fn read_lines<T, E: Display>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<(usize, T)>, LineError> {
    let name = || path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| LineError::Unreadable { path: name(), error })?;
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let row = parse(text).map_err(|e| LineError::Line { path: name(), line, error: e.to_string() })?;
        rows.push((line, row));
    }
    if rows.is_empty() { Err(LineError::Empty { path: name() }) } else { Ok(rows) }
}

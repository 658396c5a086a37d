//! Files of traffic: one JSON object per line.

use std::{fmt::Display, fs, path::Path};

/// Why a file could not be read as traffic.
#[derive(Debug, thiserror::Error)]
pub enum TrafficFileError {
    #[error("{path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("{path}:{line}: {error}")]
    Line { path: String, line: usize, error: String },
    #[error("{path}: has no rows")]
    Empty { path: String },
}

/// Parses each line that is not blank and returns it with its number, counted from 1.
///
/// # Errors
/// [`TrafficFileError`], naming the file and the line.
pub fn read_lines<T, E: Display>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<(usize, T)>, TrafficFileError> {
    let name = || path.display().to_string();
    let text =
        fs::read_to_string(path).map_err(|error| TrafficFileError::Unreadable { path: name(), error })?;
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let wrong = |error: E| TrafficFileError::Line { path: name(), line, error: error.to_string() };
        rows.push((line, parse(text).map_err(wrong)?));
    }
    if rows.is_empty() { Err(TrafficFileError::Empty { path: name() }) } else { Ok(rows) }
}

//! What is wrong with a configuration, and where it was written.

use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File { file: String },
    /// A line of the file, counted from 1.
    Line { file: String, line: usize },
    /// An environment variable.
    Variable { name: String },
}

/// One mistake. The message never repeats a value that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub place: Place,
    /// Path of the key, such as `models[2].tier`; empty when the text is not TOML.
    pub key: String,
    pub message: String,
}

/// Every mistake of a configuration, by file, line and variable. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => f.write_str(file),
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Variable { name } => f.write_str(name),
        }
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, message } = self;
        if key.is_empty() { write!(f, "{place}: {message}") } else { write!(f, "{place}: {key}: {message}") }
    }
}

// === impl ConfigErrors ===

impl ConfigErrors {
    /// `None` when there are no problems.
    pub(super) fn from_problems(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort();
        problems.dedup();
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// Sorted by place, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// One line for each problem.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

//! Problems of a configuration, with the file, line or variable that has them.

use std::fmt;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// The file as a whole.
    File { file: String },
    /// A line of the file, counted from 1.
    Line { file: String, line: usize },
    /// An environment variable.
    Variable { name: String },
}

/// One problem. The message never repeats a value that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub location: Location,
    /// Path of the key, such as `models[2].tier`. Empty for an unreadable file or a syntax error.
    pub key: String,
    pub message: String,
}

/// Every problem of a configuration, sorted by location. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => f.write_str(file),
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Variable { name } => f.write_str(name),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, key, message } = self;
        if key.is_empty() {
            write!(f, "{location}: {message}")
        } else {
            write!(f, "{location}: {key}: {message}")
        }
    }
}

impl ConfigErrors {
    /// Returns `None` when there are no problems.
    pub(super) fn from_problems(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort();
        problems.dedup();
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// The problems, sorted by location.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// Writes one line per problem.
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

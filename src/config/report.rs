//! The answer of `check-config`.

use std::{fmt, path::Path};

use serde::Serialize;

use super::{
    ConfigErrors, Place, Problem,
    load::{Loaded, Secrets, load},
};

/// What a file was found to be. `Display` is the report for people.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file as it was named.
    pub file: String,
    pub ok: bool,
    pub tenants: usize,
    pub providers: usize,
    pub models: usize,
    pub problems: Vec<ReportedProblem>,
}

/// One problem, flat for machines.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedProblem {
    pub file: Option<String>,
    pub line: Option<usize>,
    pub variable: Option<String>,
    pub key: String,
    pub message: String,
    #[serde(skip)]
    text: String,
}

/// Checks the file, with the `PROMPTKEEP_` variables of `env`. Variables that hold API keys need not be
/// set: a file is often checked on another machine than the one it is for.
pub fn check_file(path: &Path, env: impl Iterator<Item = (String, String)>) -> Report {
    let Loaded { config, findings } = load(Some(path), &env.collect(), Secrets::Elsewhere);
    let errors = ConfigErrors::from_problems(findings.problems);
    let problems = errors.as_ref().map(ConfigErrors::problems).unwrap_or_default();
    Report {
        file: path.display().to_string(),
        ok: problems.is_empty(),
        tenants: config.tenants.len(),
        providers: config.providers.len(),
        models: config.models.len(),
        problems: problems.iter().map(ReportedProblem::from).collect(),
    }
}

impl From<&Problem> for ReportedProblem {
    fn from(problem: &Problem) -> Self {
        let (file, line, variable) = match problem.place.clone() {
            Place::File { file } => (Some(file), None, None),
            Place::Line { file, line } => (Some(file), Some(line), None),
            Place::Variable { name } => (None, None, Some(name)),
        };
        let Problem { key, message, .. } = problem.clone();
        Self { file, line, variable, key, message, text: problem.to_string() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, ok, tenants, providers, models, problems } = self;
        for problem in problems {
            writeln!(f, "{}", problem.text)?;
        }
        if *ok {
            write!(f, "{file}: ok: tenants {tenants}, providers {providers}, models {models}")
        } else {
            write!(f, "{file}: problems: {}", problems.len())
        }
    }
}

//! Report of `check-config`.

use std::{fmt, path::Path};

use serde::Serialize;

use super::{
    ConfigErrors, Location, Problem,
    check::RequiredSecrets,
    load::{Loaded, load},
};

/// Result of checking one file. `Display` writes it for people, serde for machines.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file's path, as the caller gave it.
    pub file: String,
    pub ok: bool,
    pub tenants: usize,
    pub providers: usize,
    pub models: usize,
    pub problems: Vec<ReportedProblem>,
    /// Valid settings that are probably not meant. They do not stop the start.
    pub warnings: Vec<ReportedProblem>,
}

/// One problem in the JSON report.
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

/// Checks the file, overridden by the `PROMPTKEEP_` variables of `env`. Variables with API keys need not be set,
/// because a file is often checked on another machine.
pub fn check_file(path: &Path, env: impl Iterator<Item = (String, String)>) -> Report {
    let Loaded { config, findings } = load(Some(path), &env.collect(), RequiredSecrets::None);
    let errors = ConfigErrors::from_problems(findings.problems);
    let problems = errors.as_ref().map(ConfigErrors::problems).unwrap_or_default();
    Report {
        file: path.display().to_string(),
        ok: problems.is_empty(),
        tenants: config.tenants.len(),
        providers: config.providers.len(),
        models: config.models.len(),
        problems: problems.iter().map(ReportedProblem::from).collect(),
        warnings: findings.warnings.iter().map(ReportedProblem::from).collect(),
    }
}

impl From<&Problem> for ReportedProblem {
    fn from(problem: &Problem) -> Self {
        let (file, line, variable) = match problem.location.clone() {
            Location::File { file } => (Some(file), None, None),
            Location::Line { file, line } => (Some(file), Some(line), None),
            Location::Variable { name } => (None, None, Some(name)),
        };
        let Problem { key, message, .. } = problem.clone();
        Self { file, line, variable, key, message, text: problem.to_string() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, ok, tenants, providers, models, problems, warnings } = self;
        for warning in warnings {
            writeln!(f, "warning: {}", warning.text)?;
        }
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

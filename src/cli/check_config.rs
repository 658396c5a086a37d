//! `promptkeep check-config`

use std::{path::Path, process::ExitCode};

use crate::config::{check_file, process_env};

pub(super) fn run(file: &Path, json: bool) -> ExitCode {
    let report = check_file(file, process_env());
    if json {
        println!("{}", serde_json::json!(report));
    } else {
        println!("{report}");
    }
    if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! `promptkeep demo`

use std::process::ExitCode;

use crate::demo::Options;

pub(super) async fn run(_options: Options) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}

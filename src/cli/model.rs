//! `promptkeep model`

use std::{path::PathBuf, process::ExitCode};

use crate::{
    config::{Config, process_env},
    embed::model_files,
};

pub(super) async fn pull() -> anyhow::Result<ExitCode> {
    let folder = folder()?;
    if !model_files::present(&folder) {
        model_files::pull(&folder).await?;
    }
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn path() -> anyhow::Result<ExitCode> {
    println!("{}", folder()?.display());
    Ok(ExitCode::SUCCESS)
}

/// The folder that a server with the same environment would use.
fn folder() -> anyhow::Result<PathBuf> {
    let config = Config::load(None, process_env())?;
    Ok(model_files::folder(config.embedding.model_dir.as_deref())?)
}

//! `promptkeep model`

use std::process::ExitCode;

use crate::{
    config::{Config, process_env},
    embed::model_files,
};

pub(super) async fn pull() -> anyhow::Result<ExitCode> {
    let folder = model_files::folder(None)?;
    if !model_files::present(&folder) {
        model_files::pull(&folder).await?;
    }
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn path() -> anyhow::Result<ExitCode> {
    let config = Config::load(None, process_env())?;
    println!("{}", model_files::folder(config.embedding.model_dir.as_deref())?.display());
    Ok(ExitCode::SUCCESS)
}

//! `promptkeep model`

use clap::Subcommand;

use crate::{
    config::{Config, process_env},
    embed::model_files,
};

#[derive(Debug, Subcommand)]
pub(super) enum Model {
    /// Download the model and verify its checksum, unless it is already there
    Pull,
    /// Print the model's folder
    Path,
}

impl Model {
    pub async fn run(self) -> anyhow::Result<()> {
        // The folder that a server with this environment uses.
        let config = Config::load(None, process_env())?;
        let folder = model_files::folder(config.embedding.model_dir.as_deref())?;
        if matches!(self, Self::Pull) && !model_files::present(&folder) {
            model_files::pull(&folder).await?;
        }
        println!("{}", folder.display());
        Ok(())
    }
}

//! Text to vector. [`Embedder`] is one of the crate's two traits; the work never runs on the async
//! threads. [`start`] makes the one that the configuration names.

mod config;
pub mod minilm;
pub mod model_files;
mod openai;
pub mod pool;
#[cfg(test)]
mod testing;
pub mod tokenizer;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::spawn_blocking;

pub use self::config::{EmbeddingConfig, EmbeddingKind, Precision};
use self::{minilm::MiniLm, model_files::ModelError};
pub use promptkeep_core::embedding::Embedding;

/// What embedding one text gave.
#[derive(Clone, Debug)]
pub enum Embedded {
    Vector {
        embedding: Embedding,
        tokens: u32,
    },
    /// The text has more tokens than the model's window, special tokens included.
    OverWindow {
        tokens: u32,
    },
}

/// Why a text could not be embedded. Never the text itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EmbedError {
    /// The bounded queue before the worker threads is full.
    #[error("embedding queue is full")]
    Overloaded,
    #[error("embedding failed: {0}")]
    Failed(String),
}

/// Why no embedder could be started. The text says which key or file is at fault and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("embedding.{key}: {message}")]
    Config { key: &'static str, message: String },
    /// Our bug, or a system without resources.
    #[error("embedding model: {0}")]
    Internal(String),
}

/// Turns texts into vectors of one model.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// Embeds one text. Runs on threads of its own; cancelling the future is safe.
    async fn embed(&self, text: &str) -> Result<Embedded, EmbedError>;

    /// Length of the vectors.
    fn dimensions(&self) -> usize;

    /// Names the model and whatever else changes its vectors, such as the precision. Vectors of
    /// different names are never compared.
    fn name(&self) -> &str;
}

/// Starts the configured embedder on the current tokio runtime. Gets the in-process model first when the
/// user's cache folder does not have it; a folder that the configuration names is left as it is.
///
/// # Errors
/// When the model cannot be had, or a key of the section is wrong.
pub async fn start(config: &EmbeddingConfig) -> Result<Arc<dyn Embedder>, StartError> {
    match config.kind {
        EmbeddingKind::Minilm => Ok(Arc::new(start_minilm(config).await?)),
        EmbeddingKind::Openai => Ok(Arc::new(openai::OpenAi::start(config)?)),
    }
}

async fn start_minilm(config: &EmbeddingConfig) -> Result<pool::Pool, StartError> {
    let folder = model_files::folder(config.model_dir.as_deref())?;
    if config.model_dir.is_none() && !model_files::present(&folder) {
        model_files::pull(&folder).await?;
    }
    let precision = config.precision;
    let load = spawn_blocking(move || {
        let files = model_files::read(&folder)?;
        MiniLm::new(&files.weights, &files.vocabulary, precision).map_err(|e| StartError::internal(&e))
    });
    let model = load.await.unwrap_or_else(|e| Err(StartError::internal(&e)))?;
    pool::Pool::start(&Arc::new(model), config.threads, config.queue).map_err(|e| StartError::internal(&e))
}

/// An HTTP client with the crate's TLS implementation.
fn http_client() -> reqwest::ClientBuilder {
    // Fails when it is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

// === impl StartError ===

impl StartError {
    fn config(key: &'static str, message: &impl ToString) -> Self {
        Self::Config { key, message: message.to_string() }
    }

    fn internal(cause: &impl ToString) -> Self {
        Self::Internal(cause.to_string())
    }
}

#[cfg(test)]
mod tests;

//! Embeds texts: one [`Embedder`] turns a text into a vector of length one, either with a model in this process
//! (all-MiniLM-L6-v2) or through an OpenAI-compatible endpoint. The work never runs on the threads of the async
//! runtime.
//!
//! * [`start`] starts the embedder that an [`EmbeddingConfig`] names.
//! * [`minilm`] is the in-process model: tokenizer, int8 or f32 forward pass, one text at a time.
//! * [`pool`] runs it on threads of its own behind a bounded queue.
//! * [`model_files`] finds, downloads and verifies the model's files.
//!
//! # Example
//!
//! ```no_run
//! use promptkeep_embed::{Embedded, EmbeddingConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Downloads the model (90 MB) into the user's cache directory on the first start.
//! let embedder = promptkeep_embed::start(&EmbeddingConfig::default()).await?;
//! match embedder.embed("How do I reset my password?").await? {
//!     Embedded::Vector { embedding, tokens } => {
//!         assert_eq!(embedding.as_slice().len(), embedder.dimensions());
//!         println!("{tokens} tokens");
//!     }
//!     Embedded::OverWindow { tokens } => println!("{tokens} tokens are too many"),
//! }
//! # Ok(())
//! # }
//! ```

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

/// Result of embedding one text.
#[derive(Clone, Debug)]
pub enum Embedded {
    /// The text has a vector.
    Vector {
        /// The vector, with [`Embedder::dimensions`] components.
        embedding: Embedding,
        /// Tokens of the text, special tokens included.
        tokens: u32,
    },
    /// The text has more tokens than the model's window.
    OverWindow {
        /// Tokens of the text, special tokens included. May be an estimate.
        tokens: u32,
    },
}

/// Why a text could not be embedded. Never contains the text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EmbedError {
    /// The bounded queue before the worker threads is full.
    #[error("embedding queue is full")]
    Overloaded,
    /// The model or the provider failed.
    #[error("embedding failed: {0}")]
    Failed(String),
}

/// Why no embedder could be started. The message names the configuration key or the file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The model's files are missing, damaged or cannot be downloaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A key of `[embedding]` has a wrong value.
    #[error("embedding.{key}: {message}")]
    Config { key: &'static str, message: String },
    /// A bug, or a system without resources.
    #[error("embedding model: {0}")]
    Internal(String),
}

/// Turns texts into the vectors of one model.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// Embeds one text. Computes on threads of its own; dropping the future cancels the work if it has not begun.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`] at once when the queue is full, [`EmbedError::Failed`] when the model or provider
    /// fails.
    async fn embed(&self, text: &str) -> Result<Embedded, EmbedError>;

    /// Returns the number of components of the vectors.
    fn dimensions(&self) -> usize;

    /// Returns the name of the model with everything else that changes its vectors, such as the precision. Vectors of
    /// embedders with different names must not be compared.
    fn name(&self) -> &str;
}

/// Starts the configured embedder on the current tokio runtime. Downloads the in-process model first if the user's
/// cache directory does not have it; never writes to a configured `model_dir`.
///
/// # Errors
/// When the model is missing and cannot be downloaded, or a configuration key has a wrong value.
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

/// Returns a builder of HTTP clients with the crate's TLS implementation.
fn http_client() -> reqwest::ClientBuilder {
    // Fails only when a TLS implementation is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

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

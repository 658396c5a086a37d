//! Configuration of the embedders.

use std::{path::PathBuf, thread, time::Duration};

/// `[embedding]`
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingConfig {
    /// Implementation.
    pub kind: EmbeddingKind,
    /// `minilm`: directory with `model.safetensors` and `vocab.txt`. `None` uses the user's cache directory,
    /// which the first start fills.
    pub model_dir: Option<PathBuf>,
    /// `minilm`: number format of the computation.
    pub precision: Precision,
    /// `minilm`: number of worker threads.
    pub threads: usize,
    /// Maximum number of texts waiting for a worker or a batch; further texts skip the semantic lookup.
    pub queue: usize,
    /// `openai`: API root, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// `openai`: model id.
    pub model: String,
    /// `openai`: length of the model's vectors.
    pub dimensions: usize,
    /// `openai`: environment variable with the API key. When empty, no key is sent.
    pub api_key_env: String,
    /// `openai`: timeout of one batch.
    pub timeout: Duration,
    /// `openai`: maximum number of texts in one call.
    pub batch: usize,
}

/// Implementation of the embedder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingKind {
    /// all-MiniLM-L6-v2 in this process.
    Minilm,
    /// An OpenAI-compatible endpoint.
    Openai,
}

/// Number format in which the in-process model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit integers: faster, with cosines to the `F32` vectors above 0.98.
    Int8,
    /// Single precision.
    F32,
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        Self {
            kind: EmbeddingKind::Minilm,
            model_dir: None,
            precision: Precision::Int8,
            threads: thread::available_parallelism().map_or(1, usize::from),
            queue: 1024,
            base_url: String::new(),
            model: String::new(),
            dimensions: 0,
            api_key_env: String::new(),
            timeout: Duration::from_secs(2),
            batch: 64,
        }
    }
}

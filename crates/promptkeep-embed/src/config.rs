//! The settings of the embedders.

use std::{path::PathBuf, thread, time::Duration};

/// `[embedding]`
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingConfig {
    pub kind: EmbeddingKind,
    /// Folder with `model.safetensors` and `vocab.txt`; `None`: the user's cache folder, filled
    /// at the first start.
    pub model_dir: Option<PathBuf>,
    pub precision: Precision,
    /// Worker threads of `minilm`.
    pub threads: usize,
    /// Texts that may wait for a worker or a batch; more skip the semantic step.
    pub queue: usize,
    /// `openai`: the API root, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// `openai`: model id.
    pub model: String,
    /// `openai`: length of the model's vectors.
    pub dimensions: usize,
    /// `openai`: environment variable that holds the API key; empty: none is sent.
    pub api_key_env: String,
    /// `openai`: longest wait for one batch.
    pub timeout: Duration,
    /// `openai`: most texts in one call.
    pub batch: usize,
}

/// Which [`Embedder`](crate::Embedder) is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingKind {
    Minilm,
    Openai,
}

/// Arithmetic of the in-process model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Int8,
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

//! Text to vector. [`Embedder`] is one of the crate's two traits; the work never runs on the async
//! threads.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

/// A vector of length one, so that a dot product is a cosine similarity.
#[derive(Clone, PartialEq)]
pub struct Embedding(Arc<[f32]>);

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

// === impl Embedding ===

impl Embedding {
    /// Scales `values` to length one. `None` when the length is zero or not finite.
    pub fn normalized(mut values: Vec<f32>) -> Option<Self> {
        let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return None;
        }
        values.iter_mut().for_each(|x| *x /= norm);
        Some(Self(values.into()))
    }

    /// Takes back [`Embedding::as_slice`], bit for bit. `None` when the length is not one.
    pub fn of_unit_length(values: Vec<f32>) -> Option<Self> {
        /// More than rounding makes of any vector, and too little to change a decision.
        const TOLERANCE: f32 = 1e-3;
        let square = values.iter().map(|x| x * x).sum::<f32>();
        ((square - 1.0).abs() < TOLERANCE).then(|| Self(values.into()))
    }

    /// The components.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Cosine similarity, in [-1, 1].
    pub fn similarity(&self, other: &Self) -> f32 {
        self.0.iter().zip(other.0.iter()).map(|(a, b)| a * b).sum()
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedding({} dimensions)", self.0.len())
    }
}

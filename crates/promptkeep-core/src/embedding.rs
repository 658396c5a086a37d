//! The embedding of a text: a vector of length one.

use std::{fmt, sync::Arc};

/// A vector of `f32` components with length one, so the dot product of two embeddings is their cosine similarity.
/// Cloning is cheap: clones share the components.
#[derive(Clone, PartialEq)]
pub struct Embedding(Arc<[f32]>);

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

    /// Restores an embedding from its stored components without changing a bit. `None` when the length is not one.
    pub fn of_unit_length(values: Vec<f32>) -> Option<Self> {
        /// Above any rounding error of a normalised vector, and too small to change a decision.
        const TOLERANCE: f32 = 1e-3;
        let square = values.iter().map(|x| x * x).sum::<f32>();
        ((square - 1.0).abs() < TOLERANCE).then(|| Self(values.into()))
    }

    /// Returns the components.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Returns the cosine similarity, in [-1, 1]. Both embeddings must have the same number of components.
    pub fn similarity(&self, other: &Self) -> f32 {
        self.0.iter().zip(other.0.iter()).map(|(a, b)| a * b).sum()
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedding({} dimensions)", self.0.len())
    }
}

//! The model all-MiniLM-L6-v2: a forward pass in f32 or int8, one text at a time. Knows no threads and queues.
//!
//! Profile (int8, AVX-512): at 12 tokens the four matrix products per layer take three quarters of the time, and the
//! rest is spread evenly; at 128 tokens attention takes a fifth. A whole pass takes 1.3 times (12 tokens) to 1.6
//! times (128 tokens) as long as its matrix products. Padding rows to whole tiles was measured and did not help.

mod attention;
mod linear;
mod simd;
mod weights;

use std::sync::Arc;

use attention::{AttentionScratch, QKV, attend};
use linear::{Linear, LinearScratch, Products};
use simd::{add_norm, gelu};
pub use weights::WeightsError;
use weights::{Layer, Weights};

use super::{EmbedError, Embedded, Embedding, tokenizer::Tokenizer};
use crate::Precision;

/// Components of a vector.
pub const HIDDEN: usize = 384;
/// Maximum number of tokens of a text, including the start and end tokens. The model was trained on at most as many.
pub const WINDOW: usize = 256;

const LAYERS: usize = 6;
const HEADS: usize = 12;
const HEAD: usize = HIDDEN / HEADS;
const INTERMEDIATE: usize = 4 * HIDDEN;
const VOCABULARY: usize = 30_522;

/// The model, read-only and shared by all threads.
pub struct MiniLm {
    tokenizer: Tokenizer,
    weights: Weights,
    precision: Precision,
}

/// A model with the buffers of one forward pass, for one thread.
pub struct Session {
    model: Arc<MiniLm>,
    products: Products,
    ids: Vec<u32>,
    /// `[tokens, HIDDEN]`: the state that each layer updates.
    hidden: Vec<f32>,
    /// `[tokens, QKV]`, then `[tokens, INTERMEDIATE]`.
    wide: Vec<f32>,
    /// `[tokens, HIDDEN]`: output of attention.
    context: Vec<f32>,
    /// `[tokens, HIDDEN]`: update of the state by half a layer.
    delta: Vec<f32>,
    attention: AttentionScratch,
    linear: LinearScratch,
}

impl MiniLm {
    /// Parses the contents of `model.safetensors` and `vocab.txt`.
    ///
    /// # Errors
    /// When the weights are not those of this model.
    pub fn new(weights: &[u8], vocabulary: &str, precision: Precision) -> Result<Self, WeightsError> {
        Self::packed_for(&Products::new(), weights, vocabulary, precision)
    }

    fn packed_for(
        products: &Products,
        weights: &[u8],
        vocabulary: &str,
        precision: Precision,
    ) -> Result<Self, WeightsError> {
        let weights = Weights::parse(weights, precision, products)?;
        Ok(Self { tokenizer: Tokenizer::new(vocabulary), weights, precision })
    }

    /// Returns the name of the vectors. Machines with and without VNNI share it: their vectors differ by less than
    /// the error of quantisation, and replicas on different machines should share their entries.
    pub fn name(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "all-MiniLM-L6-v2/f32",
            Precision::Int8 => "all-MiniLM-L6-v2/int8",
        }
    }

    /// Returns the model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

impl Session {
    /// Creates a session with its buffers, about 5 MB.
    pub fn new(model: Arc<MiniLm>) -> Self {
        let state = || vec![0.0; WINDOW * HIDDEN];
        Self {
            model,
            products: Products::new(),
            ids: Vec::new(),
            hidden: state(),
            wide: vec![0.0; WINDOW * INTERMEDIATE],
            context: state(),
            delta: state(),
            attention: AttentionScratch::new(WINDOW),
            linear: LinearScratch::new(WINDOW, INTERMEDIATE),
        }
    }

    /// Embeds one text: the mean of the last layer's tokens, scaled to length one.
    ///
    /// # Errors
    /// When the vector is not finite, which no text should cause.
    pub fn embed(&mut self, text: &str) -> Result<Embedded, EmbedError> {
        let model = Arc::clone(&self.model);
        model.tokenizer.encode(text, &mut self.ids);
        let tokens = self.ids.len();
        if tokens > WINDOW {
            return Ok(Embedded::OverWindow { tokens: tokens as u32 });
        }
        self.look_up(&model.weights);
        for layer in &model.weights.layers {
            self.run(layer);
        }
        let sum = self.sum_of_tokens();
        let embedding = Embedding::normalized(sum)
            .ok_or_else(|| EmbedError::Failed("vector is not finite".to_owned()))?;
        Ok(Embedded::Vector { embedding, tokens: tokens as u32 })
    }

    /// Sets the state to the sum of word and position embeddings, normalised.
    fn look_up(&mut self, weights: &Weights) {
        let rows = self.hidden.chunks_exact_mut(HIDDEN).zip(weights.positions.chunks_exact(HIDDEN));
        for ((row, position), id) in rows.zip(&self.ids) {
            row.copy_from_slice(position);
            let word = &weights.words[*id as usize * HIDDEN..][..HIDDEN];
            add_norm(row, word, &weights.norm);
        }
    }

    /// Applies one layer to the state.
    fn run(&mut self, layer: &Layer) {
        let tokens = self.ids.len();
        let Self { products, hidden, wide, context, delta, attention, linear, .. } = self;
        let state = tokens * HIDDEN;
        let (hidden, context, delta) = (&mut hidden[..state], &mut context[..state], &mut delta[..state]);
        let mut apply = |linear_layer: &Linear, x: &[f32], out: &mut [f32]| {
            linear_layer.apply(x, out, products, linear);
        };

        let qkv = &mut wide[..tokens * QKV];
        apply(&layer.qkv, hidden, qkv);
        attend(qkv, context, attention);
        apply(&layer.attention_out, context, delta);
        add_norm_rows(hidden, delta, &layer.attention_norm);

        let up = &mut wide[..tokens * INTERMEDIATE];
        apply(&layer.up, hidden, up);
        gelu(up);
        apply(&layer.down, up, delta);
        add_norm_rows(hidden, delta, &layer.output_norm);
    }

    /// Returns the sum of the tokens' states. Its direction is that of the mean, and its length does not matter.
    fn sum_of_tokens(&self) -> Vec<f32> {
        let mut sum = vec![0.0; HIDDEN];
        for row in self.hidden[..self.ids.len() * HIDDEN].chunks_exact(HIDDEN) {
            sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
        }
        sum
    }
}

fn add_norm_rows(hidden: &mut [f32], delta: &[f32], norm: &simd::Norm) {
    for (row, delta) in hidden.chunks_exact_mut(HIDDEN).zip(delta.chunks_exact(HIDDEN)) {
        add_norm(row, delta, norm);
    }
}

#[cfg(test)]
mod tests;

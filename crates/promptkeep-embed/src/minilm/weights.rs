//! The model's parameters: parsed from its safetensors file and packed for the matrix products.

use safetensors::{Dtype, SafeTensors};

use super::{
    HEAD, HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY, WINDOW,
    linear::{Linear, Products},
    simd::Norm,
};
use crate::Precision;

/// All parameters, ready for the forward pass.
pub struct Weights {
    /// `[VOCABULARY, HIDDEN]`: word embeddings.
    pub words: Vec<f32>,
    /// `[WINDOW, HIDDEN]`: position embeddings plus that of the only token type.
    pub positions: Vec<f32>,
    /// Norm of the embeddings.
    pub norm: Norm,
    pub layers: Vec<Layer>,
}

/// One transformer layer.
pub struct Layer {
    /// Query, key and value in one product.
    pub qkv: Linear,
    pub attention_out: Linear,
    pub attention_norm: Norm,
    /// `HIDDEN` to `INTERMEDIATE`.
    pub up: Linear,
    /// `INTERMEDIATE` to `HIDDEN`.
    pub down: Linear,
    pub output_norm: Norm,
}

/// Why the weights are not those of this model. Its file passed the checksum, so this is a bug.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The bytes are not a safetensors file, or lack a tensor.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor is not of this model.
    #[error("tensor {0} has the wrong type or shape")]
    Shape(String),
}

impl Weights {
    /// Parses the bytes of `model.safetensors` and packs them for `products`.
    ///
    /// # Errors
    /// When a tensor is missing or has another type or shape.
    pub fn parse(bytes: &[u8], precision: Precision, products: &Products) -> Result<Self, WeightsError> {
        let file = File { tensors: SafeTensors::deserialize(bytes)?, precision, products };
        let mut positions = file.tensor("embeddings.position_embeddings.weight", &[512, HIDDEN])?;
        positions.truncate(WINDOW * HIDDEN);
        let kinds = file.tensor("embeddings.token_type_embeddings.weight", &[2, HIDDEN])?;
        for row in positions.chunks_exact_mut(HIDDEN) {
            row.iter_mut().zip(&kinds).for_each(|(x, kind)| *x += kind);
        }
        Ok(Self {
            words: file.tensor("embeddings.word_embeddings.weight", &[VOCABULARY, HIDDEN])?,
            positions,
            norm: file.norm("embeddings.LayerNorm")?,
            layers: (0..LAYERS).map(|i| file.layer(i)).collect::<Result<_, _>>()?,
        })
    }
}

/// The parsed file, with the precision and products for which layers are packed.
struct File<'a> {
    tensors: SafeTensors<'a>,
    precision: Precision,
    products: &'a Products,
}

impl File<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let tensor = self.tensors.tensor(name)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(WeightsError::Shape(name.to_owned()));
        }
        let (floats, _) = tensor.data().as_chunks::<4>();
        Ok(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn norm(&self, name: &str) -> Result<Norm, WeightsError> {
        Ok(Norm {
            weight: self.tensor(&format!("{name}.weight"), &[HIDDEN])?,
            bias: self.tensor(&format!("{name}.bias"), &[HIDDEN])?,
        })
    }

    /// Returns weight and bias of a linear layer.
    fn dense(&self, name: &str, outputs: usize, inputs: usize) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.tensor(&format!("{name}.bias"), &[outputs])?;
        Ok((weight, bias))
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, WeightsError> {
        let (weight, bias) = self.dense(name, outputs, inputs)?;
        Ok(Linear::new(&weight, bias, self.precision, self.products))
    }

    /// Stacks query, key and value. The query contains attention's factor `1 / sqrt(HEAD)`.
    fn qkv(&self, name: &str) -> Result<Linear, WeightsError> {
        let (mut weight, mut bias) = self.dense(&format!("{name}.query"), HIDDEN, HIDDEN)?;
        let factor = 1.0 / (HEAD as f32).sqrt();
        weight.iter_mut().chain(&mut bias).for_each(|x| *x *= factor);
        for part in ["key", "value"] {
            let (more, more_bias) = self.dense(&format!("{name}.{part}"), HIDDEN, HIDDEN)?;
            weight.extend(more);
            bias.extend(more_bias);
        }
        Ok(Linear::new(&weight, bias, self.precision, self.products))
    }

    fn layer(&self, index: usize) -> Result<Layer, WeightsError> {
        let name = format!("encoder.layer.{index}");
        Ok(Layer {
            qkv: self.qkv(&format!("{name}.attention.self"))?,
            attention_out: self.linear(&format!("{name}.attention.output.dense"), HIDDEN, HIDDEN)?,
            attention_norm: self.norm(&format!("{name}.attention.output.LayerNorm"))?,
            up: self.linear(&format!("{name}.intermediate.dense"), INTERMEDIATE, HIDDEN)?,
            down: self.linear(&format!("{name}.output.dense"), HIDDEN, INTERMEDIATE)?,
            output_norm: self.norm(&format!("{name}.output.LayerNorm"))?,
        })
    }
}

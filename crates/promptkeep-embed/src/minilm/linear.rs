//! A linear layer with two executors: f32, and u8 × i8 with a zero point per token and a scale per output channel.
//! One scale per matrix loses too much precision: cosines to f32 were as low as 0.90.

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::{Matrix, NdTensorView};

use super::simd::{RowQuant, dequantize, quantize};
use crate::Precision;

/// Largest weight with which a sum of two products fits into 16 bits: 255 × 64 × 2.
const SAFE_WEIGHT_PEAK: i8 = 64;

/// A linear layer `y = x Wᵀ + b`.
pub struct Linear {
    inputs: usize,
    bias: Vec<f32>,
    weights: Packed,
}

/// Weights in the order in which the product reads them.
enum Packed {
    F32(PackedBMatrix<f32>),
    Int8(PackedBMatrix<i8>, Outputs),
}

/// Parameters that turn the sums of an int8 product back into numbers, per output.
#[derive(Default)]
pub struct Outputs {
    /// Scale of each output's weights.
    pub scales: Vec<f32>,
    /// Sum of each output's weights. A row's product contains its zero point as many times.
    pub weight_sums: Vec<i32>,
}

/// Matrix products for the machine's instruction set. Not `Send`: each worker creates its own.
pub struct Products {
    f32: GemmExecutor<f32>,
    int8: GemmExecutor<u8, i8, i32>,
    /// Maximum absolute value of a quantised weight.
    weight_peak: i8,
}

/// Reusable buffers of the int8 executor.
pub struct LinearScratch {
    quantized: Vec<u8>,
    rows: Vec<RowQuant>,
    sums: Vec<i32>,
}

impl Linear {
    /// Packs `weight[outputs, inputs]` for the executor of `precision`.
    pub fn new(weight: &[f32], bias: Vec<f32>, precision: Precision, products: &Products) -> Self {
        let inputs = weight.len() / bias.len();
        let shape = [bias.len(), inputs];
        let weights = match precision {
            Precision::F32 => {
                let matrix = NdTensorView::from_data(shape, weight);
                Packed::F32(products.f32.prepack_b(matrix.transposed()))
            }
            Precision::Int8 => {
                let (values, outputs) = quantize_outputs(weight, inputs, products.weight_peak);
                let matrix = NdTensorView::from_data(shape, values.as_slice());
                Packed::Int8(products.int8.prepack_b(matrix.transposed()), outputs)
            }
        };
        Self { inputs, bias, weights }
    }

    /// Computes `out[rows, outputs]` from `x[rows, inputs]`.
    pub fn apply(&self, x: &[f32], out: &mut [f32], products: &Products, scratch: &mut LinearScratch) {
        let rows = x.len() / self.inputs;
        match &self.weights {
            Packed::F32(weights) => {
                let options = GemmOptions { bias: Some(BiasVector::Row(&self.bias)), ..Default::default() };
                products
                    .f32
                    .gemm(out, matrix(x, rows), GemmInputB::Packed(weights), options)
                    .expect("shapes come from the layer itself");
            }
            Packed::Int8(weights, outputs) => {
                let rows = &mut scratch.rows[..rows];
                let quantized = &mut scratch.quantized[..x.len()];
                let sums = &mut scratch.sums[..out.len()];
                quantize_rows(x, rows, quantized);
                // `dequantize` subtracts the zero points: rten-gemm 0.27 applies those of the first rows to all rows.
                products
                    .int8
                    .gemm(
                        sums,
                        matrix(quantized, rows.len()),
                        GemmInputB::Packed(weights),
                        Default::default(),
                    )
                    .expect("shapes come from the layer itself");
                for ((row, sums), out) in rows
                    .iter()
                    .zip(sums.chunks_exact(self.bias.len()))
                    .zip(out.chunks_exact_mut(self.bias.len()))
                {
                    dequantize(sums, *row, outputs, &self.bias, out);
                }
            }
        }
    }
}

fn matrix<T>(data: &[T], rows: usize) -> GemmInputA<'_, T> {
    let view: Matrix<'_, T> = NdTensorView::from_data([rows, data.len() / rows], data);
    GemmInputA::Unpacked(view)
}

fn quantize_rows(x: &[f32], rows: &mut [RowQuant], quantized: &mut [u8]) {
    let width = x.len() / rows.len();
    for ((row, values), out) in
        rows.iter_mut().zip(x.chunks_exact(width)).zip(quantized.chunks_exact_mut(width))
    {
        *row = quantize(values, out);
    }
}

/// Quantises the rows of `weight` to the range from `-top` to `top`.
fn quantize_outputs(weight: &[f32], inputs: usize, top: i8) -> (Vec<i8>, Outputs) {
    let mut values = Vec::with_capacity(weight.len());
    let mut outputs = Outputs::default();
    for row in weight.chunks_exact(inputs) {
        let peak = row.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
        let scale = (peak / f32::from(top)).max(f32::MIN_POSITIVE);
        values.extend(row.iter().map(|x| (x / scale).round() as i8));
        outputs.scales.push(scale);
        outputs.weight_sums.push(values[values.len() - inputs..].iter().map(|q| i32::from(*q)).sum());
    }
    (values, outputs)
}

impl Products {
    /// Detects the machine's instruction set.
    pub fn new() -> Self {
        let int8 = GemmExecutor::<u8, i8, i32>::new();
        // Without VNNI, x86 adds two products in 16 bits, where 255 × 127 × 2 would saturate. Smaller weights lose
        // less than activations of seven bits (mean cosine 0.9955, lowest 0.976).
        let weight_peak = if int8.may_saturate() { SAFE_WEIGHT_PEAK } else { i8::MAX };
        Self { f32: GemmExecutor::new(), int8, weight_peak }
    }

    /// Returns the products of a machine without VNNI.
    #[cfg(test)]
    pub fn without_vnni() -> Self {
        Self { weight_peak: SAFE_WEIGHT_PEAK, ..Self::new() }
    }
}

impl LinearScratch {
    /// Creates buffers for up to `rows` rows of up to `width` inputs or outputs.
    pub fn new(rows: usize, width: usize) -> Self {
        Self {
            quantized: vec![0; rows * width],
            rows: vec![RowQuant::default(); rows],
            sums: vec![0; rows * width],
        }
    }
}

#[cfg(test)]
mod tests;

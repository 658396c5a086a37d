//! Tests of the linear layer against the plain product.

use super::*;

const INPUTS: usize = 40;
const OUTPUTS: usize = 70;
/// More than two tiles of rows of any product, and not a multiple of a tile.
const ROWS: usize = 29;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| random.f32() * 2.0 - 1.0).collect()
}

/// Returns `x Wᵀ + b` by its definition.
fn plain(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let rows = x.chunks_exact(INPUTS);
    rows.flat_map(|row| weight.chunks_exact(INPUTS).zip(bias).map(move |(w, b)| dot(row, w) + b)).collect()
}

/// Returns the largest difference between an executor and the plain product, for rows of very different ranges.
fn error(precision: Precision, products: &Products) -> f32 {
    let (weight, bias) = (numbers(INPUTS * OUTPUTS, 1), numbers(OUTPUTS, 2));
    let mut x = numbers(ROWS * INPUTS, 3);
    for (row, values) in x.chunks_exact_mut(INPUTS).enumerate() {
        values.iter_mut().for_each(|v| *v += row as f32 / 10.0 - 1.0);
    }
    let layer = Linear::new(&weight, bias.clone(), precision, products);
    let mut out = vec![0.0; ROWS * OUTPUTS];
    layer.apply(&x, &mut out, products, &mut LinearScratch::new(ROWS, OUTPUTS));
    let expected = plain(&x, &weight, &bias);
    out.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn f32_agrees_with_the_plain_product() {
    assert!(error(Precision::F32, &Products::new()) < 1e-4);
}

/// The product of rten-gemm 0.27 applies the zero points of its first rows to all rows. When it got the zero points,
/// every text of 16 tokens and more had a wrong vector.
#[test]
fn int8_applies_the_zero_point_of_each_row() {
    let error = error(Precision::Int8, &Products::new());
    assert!(error < 0.2, "{error}");
}

#[test]
fn int8_without_vnni_is_nearly_as_precise() {
    let error = error(Precision::Int8, &Products::without_vnni());
    assert!(error < 0.3, "{error}");
}

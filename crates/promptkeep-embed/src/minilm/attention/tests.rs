//! Tests of attention against the plain formula.

use super::*;

/// Returns softmax attention by its definition.
fn plain(qkv: &[f32]) -> Vec<f32> {
    let tokens = qkv.len() / QKV;
    let part =
        |token: usize, kind: usize, head: usize| &qkv[token * QKV + kind * HIDDEN + head * HEAD..][..HEAD];
    let mut out = vec![0.0; tokens * HIDDEN];
    for head in 0..HEADS {
        for query in 0..tokens {
            let dot =
                |key| part(query, 0, head).iter().zip(part(key, 1, head)).map(|(a, b)| a * b).sum::<f32>();
            let weights: Vec<f32> = (0..tokens).map(|key| dot(key).exp()).collect();
            let total: f32 = weights.iter().sum();
            for (token, weight) in weights.iter().enumerate() {
                for (d, value) in part(token, 2, head).iter().enumerate() {
                    out[query * HIDDEN + head * HEAD + d] += weight / total * value;
                }
            }
        }
    }
    out
}

#[test]
fn attention_agrees_with_its_definition_for_every_remainder_of_a_block() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut scratch = AttentionScratch::new(40);
    // Longest first, so that values left in the buffers would show.
    for tokens in [37, 34, 32, 19, 16, 7, 4, 3, 2, 1] {
        let qkv: Vec<f32> = (0..tokens * QKV).map(|_| random.f32() * 2.0 - 1.0).collect();
        let mut out = vec![f32::NAN; tokens * HIDDEN];
        attend(&qkv, &mut out, &mut scratch);
        for (a, b) in out.iter().zip(plain(&qkv)) {
            assert!((a - b).abs() < 1e-5, "{tokens} tokens: {a} and {b}");
        }
    }
}

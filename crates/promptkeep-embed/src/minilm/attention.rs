//! Self-attention of one layer in f32. It is a small fraction of the work at prompt lengths, so quantising it would
//! not pay.

use super::{
    HEAD, HEADS, HIDDEN,
    simd::{dispatch, exp, fma, sum_of},
};

/// Width of a row with query, key and value.
pub const QKV: usize = 3 * HIDDEN;

/// Keys per block. Rows of scores are padded to a multiple of it.
const KEYS: usize = 16;

/// Queries per block, so that a loaded key or value is used several times.
const QUERIES: usize = 4;

/// Reusable buffers of one head.
pub struct AttentionScratch {
    /// Keys of the head, transposed: `[HEAD, padded tokens]`.
    keys: Vec<f32>,
    /// Scores of one block of queries against all keys: `[QUERIES, padded tokens]`.
    scores: Vec<f32>,
}

impl AttentionScratch {
    /// Creates buffers for texts of up to `tokens` tokens.
    pub fn new(tokens: usize) -> Self {
        let padded = tokens.next_multiple_of(KEYS);
        Self { keys: vec![0.0; HEAD * padded], scores: vec![0.0; QUERIES * padded] }
    }
}

dispatch! {
    /// Computes `out[tokens, HIDDEN] = softmax(Q Kᵀ) V` for each head of `qkv[tokens, QKV]`. The weights of Q contain
    /// the usual factor `1 / sqrt(HEAD)`.
    pub fn attend(qkv: &[f32], out: &mut [f32], scratch: &mut AttentionScratch) = attend_body
}

#[inline(always)]
fn attend_body<const FMA: bool>(qkv: &[f32], out: &mut [f32], scratch: &mut AttentionScratch) {
    let tokens = qkv.len() / QKV;
    for head in 0..HEADS {
        transpose_keys(qkv, tokens, head, &mut scratch.keys);
        let mut first = 0;
        while first < tokens {
            let block = Block { qkv, tokens, head, first };
            match tokens - first {
                1 => block.attend::<1, FMA>(out, scratch),
                2 => block.attend::<2, FMA>(out, scratch),
                3 => block.attend::<3, FMA>(out, scratch),
                _ => block.attend::<QUERIES, FMA>(out, scratch),
            }
            first += QUERIES;
        }
    }
}

#[inline(always)]
fn transpose_keys(qkv: &[f32], tokens: usize, head: usize, keys: &mut [f32]) {
    let padded = tokens.next_multiple_of(KEYS);
    for token in 0..tokens {
        let key = &qkv[token * QKV + HIDDEN + head * HEAD..][..HEAD];
        for (d, x) in key.iter().enumerate() {
            keys[d * padded + token] = *x;
        }
    }
    for d in 0..HEAD {
        keys[d * padded + tokens..(d + 1) * padded].fill(0.0);
    }
}

/// Up to [`QUERIES`] consecutive queries of one head.
#[derive(Clone, Copy)]
struct Block<'a> {
    qkv: &'a [f32],
    tokens: usize,
    head: usize,
    /// Token of the first query.
    first: usize,
}

impl Block<'_> {
    #[inline(always)]
    fn attend<const N: usize, const FMA: bool>(self, out: &mut [f32], scratch: &mut AttentionScratch) {
        let padded = self.tokens.next_multiple_of(KEYS);
        let AttentionScratch { keys, scores } = scratch;
        self.score::<N, FMA>(keys, scores);
        let mut inverse = [0.0; N];
        for (row, inv) in scores.chunks_exact_mut(padded).zip(&mut inverse) {
            *inv = 1.0 / exponentiate::<FMA>(row, self.tokens);
        }
        self.mix::<N, FMA>(scores, &inverse, out);
    }

    /// Computes `scores[N, padded] = Q Kᵀ`.
    #[inline(always)]
    fn score<const N: usize, const FMA: bool>(self, keys: &[f32], scores: &mut [f32]) {
        let padded = self.tokens.next_multiple_of(KEYS);
        let queries: [&[f32]; N] =
            std::array::from_fn(|i| &self.qkv[(self.first + i) * QKV + self.head * HEAD..][..HEAD]);
        for start in (0..padded).step_by(KEYS) {
            let mut sums = [[0.0_f32; KEYS]; N];
            for d in 0..HEAD {
                let key = &keys[d * padded + start..][..KEYS];
                for (sum, query) in sums.iter_mut().zip(&queries) {
                    for (s, k) in sum.iter_mut().zip(key) {
                        *s = fma::<FMA>(query[d], *k, *s);
                    }
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                scores[i * padded + start..][..KEYS].copy_from_slice(sum);
            }
        }
    }

    /// Computes `out = scores V`, with each row multiplied by its `inverse`.
    #[inline(always)]
    fn mix<const N: usize, const FMA: bool>(self, scores: &[f32], inverse: &[f32; N], out: &mut [f32]) {
        let padded = self.tokens.next_multiple_of(KEYS);
        let mut sums = [[0.0_f32; HEAD]; N];
        for token in 0..self.tokens {
            let value = &self.qkv[token * QKV + 2 * HIDDEN + self.head * HEAD..][..HEAD];
            for (i, sum) in sums.iter_mut().enumerate() {
                let weight = scores[i * padded + token];
                for (s, v) in sum.iter_mut().zip(value) {
                    *s = fma::<FMA>(weight, *v, *s);
                }
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            let row = &mut out[(self.first + i) * HIDDEN + self.head * HEAD..][..HEAD];
            for (o, s) in row.iter_mut().zip(sum) {
                *o = s * inverse[i];
            }
        }
    }
}

/// Replaces scores by their exponentials and returns the sum, to which the padding adds almost nothing.
#[inline(always)]
fn exponentiate<const FMA: bool>(row: &mut [f32], tokens: usize) -> f32 {
    row[tokens..].fill(f32::MIN);
    let highest = row.iter().fold(f32::MIN, |a, x| if *x > a { *x } else { a });
    for x in row.iter_mut() {
        *x = exp::<FMA>(*x - highest);
    }
    sum_of(row, |x| x)
}

#[cfg(test)]
mod tests;

//! The loops beside the matrix products, written so that the compiler vectorises them, and compiled once per
//! instruction set. Knows only the layout of the model's numbers.
//!
//! The release binary targets all x86-64 machines. Compiled for its baseline only, these loops use vectors of four
//! and take as long as the matrix products.

use super::linear::Outputs;

/// Computes `a * b + c`, fused if the instruction set has it; elsewhere a fused operation would be a library call.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Defines `$name`, which runs `$body::<FMA>` compiled for the machine's best instruction set.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("fma")
                {
                    // SAFETY: the features were detected; avx512bw implies avx512f and avx2.
                    return unsafe { avx512($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    // SAFETY: the features were detected.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(super) use dispatch;

/// Number of independent accumulators, so that the compiler may vectorise a sum or maximum.
const LANES: usize = 16;

/// Scale and shift of a layer norm.
pub struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Quantisation of a row of u8, which stand for `(q - zero_point) * scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowQuant {
    pub scale: f32,
    pub zero_point: i32,
}

dispatch! {
    /// Applies the Gaussian error linear unit in place. The error is about 1e-6.
    pub fn gelu(values: &mut [f32]) = gelu_body
}

dispatch! {
    /// Computes `row = norm(row + delta)`.
    pub fn add_norm(row: &mut [f32], delta: &[f32], norm: &Norm) = add_norm_body
}

dispatch! {
    /// Maps the range of `row`, extended to include zero, to `0..=255`.
    pub fn quantize(row: &[f32], out: &mut [u8]) -> RowQuant = quantize_body
}

dispatch! {
    /// Turns one row of an int8 product into numbers and adds `bias`.
    pub fn dequantize(sums: &[i32], row: RowQuant, outputs: &Outputs, bias: &[f32], out: &mut [f32])
        = dequantize_body
}

#[inline(always)]
fn gelu_body<const FMA: bool>(values: &mut [f32]) {
    for x in values {
        *x = *x * 0.5 * (1.0 + erf::<FMA>(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// Computes the error function by Abramowitz and Stegun 7.1.26. The error is below 2e-7.
#[inline(always)]
fn erf<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / fma::<FMA>(a, 0.327_591_1, 1.0);
    let mut p = fma::<FMA>(t, 1.061_405_4, -1.453_152_1);
    p = fma::<FMA>(p, t, 1.421_413_8);
    p = fma::<FMA>(p, t, -0.284_496_74);
    p = fma::<FMA>(p, t, 0.254_829_6);
    let positive = fma::<FMA>(-p * t, exp::<FMA>(-a * a), 1.0);
    positive.copysign(x)
}

/// Computes `e^x` for `x` up to 88 with a relative error of about 1e-7. Returns `e^-87` for smaller `x`.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding it rounds a small float to an integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, so the remainder keeps its low bits.
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = fma::<FMA>(r, 1.987_569_1e-4, 1.398_2e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 1.666_666_5e-1);
    p = fma::<FMA>(p, r, 0.5);
    p = fma::<FMA>(p * r, r, r + 1.0);
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

#[inline(always)]
fn add_norm_body<const FMA: bool>(row: &mut [f32], delta: &[f32], norm: &Norm) {
    /// From the model's configuration.
    const EPSILON: f32 = 1e-12;
    for (x, d) in row.iter_mut().zip(delta) {
        *x += d;
    }
    let count = row.len() as f32;
    let mean = sum_of(row, |x| x) / count;
    let variance = sum_of(row, |x| (x - mean) * (x - mean)) / count;
    let inverse = 1.0 / (variance + EPSILON).sqrt();
    for ((x, w), b) in row.iter_mut().zip(&norm.weight).zip(&norm.bias) {
        *x = fma::<FMA>((*x - mean) * inverse, *w, *b);
    }
}

#[inline(always)]
pub fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(*x);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|x| f(*x)).sum::<f32>()
}

/// Returns the smallest and the largest of the values and zero.
#[inline(always)]
fn range_of(values: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for ((l, h), x) in low.iter_mut().zip(&mut high).zip(chunk) {
            *l = if *x < *l { *x } else { *l };
            *h = if *x > *h { *x } else { *h };
        }
    }
    let low = low.iter().chain(rest).fold(0.0_f32, |a, x| a.min(*x));
    let high = high.iter().chain(rest).fold(0.0_f32, |a, x| a.max(*x));
    (low, high)
}

#[inline(always)]
fn quantize_body<const FMA: bool>(row: &[f32], out: &mut [u8]) -> RowQuant {
    /// Adding it rounds to the nearest integer in the low byte.
    const ROUND: f32 = 8_388_608.0;
    const TOP: f32 = 255.0;
    let (low, high) = range_of(row);
    let scale = ((high - low) / TOP).max(f32::MIN_POSITIVE);
    let inverse = 1.0 / scale;
    let zero_point = (-low * inverse).round().min(TOP);
    for (q, x) in out.iter_mut().zip(row) {
        let v = fma::<FMA>(*x, inverse, zero_point);
        let v = if v > 0.0 { v } else { 0.0 };
        let v = if v < TOP { v } else { TOP };
        *q = (v + ROUND).to_bits() as u8;
    }
    RowQuant { scale, zero_point: zero_point as i32 }
}

#[inline(always)]
fn dequantize_body<const FMA: bool>(
    sums: &[i32],
    row: RowQuant,
    outputs: &Outputs,
    bias: &[f32],
    out: &mut [f32],
) {
    let outputs = outputs.scales.iter().zip(&outputs.weight_sums);
    for (((o, sum), (scale, weights)), b) in out.iter_mut().zip(sums).zip(outputs).zip(bias) {
        *o = fma::<FMA>((sum - row.zero_point * weights) as f32, row.scale * scale, *b);
    }
}

#[cfg(test)]
mod tests;

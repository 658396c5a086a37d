//! Tests of the vectorised loops.

use super::*;

/// Returns numbers from -8 to 8.
fn values() -> Vec<f32> {
    (0..=1003).map(|i| (i as f32 - 501.5) / 62.5).collect()
}

#[test]
fn exp_is_exact_to_single_precision() {
    for x in values().iter().map(|x| x * 10.0) {
        let error = (f64::from(exp::<false>(x)) / f64::from(x).exp() - 1.0).abs();
        assert!(error < 5e-7, "{x}: {error}");
    }
    assert_eq!(exp::<false>(0.0), 1.0);
    assert!(exp::<false>(f32::MIN) < 2e-38);
}

/// Compares with known values of the normal distribution.
#[test]
fn gelu_is_exact() {
    let known =
        [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_25), (3.0, 2.995_950_3), (-5.0, -1.433e-6)];
    for (x, expected) in known {
        let mut out = [x];
        gelu(&mut out);
        assert!((out[0] - expected).abs() < 2e-6, "{x}: {} for {expected}", out[0]);
    }
}

#[test]
fn the_dispatched_loop_agrees_with_the_plain_one() {
    let (mut fast, mut plain) = (values(), values());
    gelu(&mut fast);
    gelu_body::<false>(&mut plain);
    for (a, b) in fast.iter().zip(&plain) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn add_norm_gives_mean_zero_and_variance_one_before_its_scale() {
    let count = values().len();
    let norm = Norm { weight: vec![2.0; count], bias: vec![0.5; count] };
    let mut row = values();
    add_norm(&mut row, &values(), &norm);
    let mean = row.iter().sum::<f32>() / count as f32;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / count as f32;
    assert!((mean - 0.5).abs() < 1e-5, "{mean}");
    assert!((variance - 4.0).abs() < 1e-4, "{variance}");
}

#[test]
fn quantised_numbers_are_restored_within_a_step() {
    for shift in [-20.0, 0.0, 3.0, 20.0] {
        let row: Vec<f32> = values().iter().map(|x| x + shift).collect();
        let mut out = vec![0; row.len()];
        let quant = quantize(&row, &mut out);
        for (x, q) in row.iter().zip(&out) {
            let back = (f32::from(*q) - quant.zero_point as f32) * quant.scale;
            // Rounding the zero point moves the ends by up to half a step more.
            assert!((back - x).abs() <= quant.scale * 1.001, "{x} came back as {back}");
        }
    }
}

#[test]
fn a_row_of_zeros_is_quantised_to_its_zero_point() {
    let mut out = [7; 20];
    let quant = quantize(&[0.0; 20], &mut out);
    assert!(out.iter().all(|q| i32::from(*q) == quant.zero_point));
}

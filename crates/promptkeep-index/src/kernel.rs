//! The two inner loops: dot products of vectors, and Hamming distances of sign codes. Plain Rust, compiled for
//! several instruction sets, of which the best is selected at run time. The only unsafe code of the index.

/// Number of codes in a group. Codes are interleaved in groups, word by word, so that one instruction counts bits of
/// several codes. With 8, which fill a register, the compiler unrolled the loop over a group, gathered words instead
/// of loading them, and the loop was four times slower.
pub const GROUP: usize = 64;

/// Number of partial sums of a dot product. They fill the widest registers and hide the latency of additions.
const LANES: usize = 64;

/// The instruction set in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The baseline of the target.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with vector population counts.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// Returns the best instruction set of this processor.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// Returns all supported instruction sets of this processor, the best last.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut available = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("popcnt");
            let has_avx512 = has_avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vpopcntdq");
            available.extend(has_avx2.then_some(Self::Avx2));
            available.extend(has_avx512.then_some(Self::Avx512));
        }
        available
    }

    /// Returns the dot product, which for vectors of length one is their cosine similarity.
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::Portable => dot::<false>(a, b),
            // SAFETY: only `available` creates this variant, after it detected the features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { dot_avx2(a, b) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { dot_avx512(a, b) },
        }
    }

    /// Writes the Hamming distance of `query` to each code in `groups` to `distances`, which must have room for all
    /// codes. A group is [`GROUP`] interleaved codes.
    pub fn hamming(self, groups: &[u64], query: &[u64], distances: &mut [u16]) {
        match self {
            Self::Portable => hamming(groups, query, distances),
            // SAFETY: only `available` creates this variant, after it detected the features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { hamming_avx2(groups, query, distances) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { hamming_avx512(groups, query, distances) },
        }
    }
}

/// `FUSED` is for instruction sets with fused multiply-add only: elsewhere that is a function call.
#[inline(always)]
fn dot<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            let (x, y) = (a[lane], b[lane]);
            sums[lane] = if FUSED { x.mul_add(y, sums[lane]) } else { x * y + sums[lane] };
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sum(&mut sums) + rest
}

/// Adds the upper half to the lower half repeatedly, which keeps whole registers busy.
#[inline(always)]
fn sum(lanes: &mut [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn hamming(groups: &[u64], query: &[u64], distances: &mut [u16]) {
    let (distances, _) = distances.as_chunks_mut::<GROUP>();
    for (group, distances) in groups.chunks_exact(query.len() * GROUP).zip(distances) {
        let (words, _) = group.as_chunks::<GROUP>();
        let mut counts = [0_u64; GROUP];
        for (word, query) in words.iter().zip(query) {
            for code in 0..GROUP {
                // Not `+=`: in a build with overflow checks, its check prevents the use of wide registers.
                counts[code] = counts[code].wrapping_add(u64::from((word[code] ^ query).count_ones()));
            }
        }
        *distances = counts.map(|count| count as u16);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    dot::<true>(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,fma")]
fn dot_avx512(a: &[f32], b: &[f32]) -> f32 {
    dot::<true>(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
fn hamming_avx2(groups: &[u64], query: &[u64], distances: &mut [u16]) {
    hamming(groups, query, distances);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,avx512f,avx512vl,avx512bw,avx512vpopcntdq")]
fn hamming_avx512(groups: &[u64], query: &[u64], distances: &mut [u16]) {
    hamming(groups, query, distances);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(seed: u64, length: usize) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| random.f32() - 0.5).collect()
    }

    #[test]
    fn all_kernels_compute_equal_dot_products() {
        for length in [0, 1, 63, 64, 65, 384, 1000] {
            let (a, b) = (floats(1, length), floats(2, length));
            let expected: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            for kernel in Kernel::available() {
                let product = f64::from(kernel.dot(&a, &b));
                assert!((product - expected).abs() < 1e-5, "{kernel:?} {length}: {product} {expected}");
            }
        }
    }

    #[test]
    fn all_kernels_compute_equal_hamming_distances() {
        let mut random = fastrand::Rng::with_seed(3);
        for words in 1..8 {
            let query: Vec<_> = (0..words).map(|_| random.u64(..)).collect();
            let groups: Vec<_> = (0..5 * words * GROUP).map(|_| random.u64(..)).collect();
            let expected: Vec<_> = (0..5 * GROUP)
                .map(|code| {
                    let word = |w: usize| groups[(code / GROUP * words + w) * GROUP + code % GROUP];
                    (0..words).map(|w| (word(w) ^ query[w]).count_ones() as u16).sum::<u16>()
                })
                .collect();
            for kernel in Kernel::available() {
                let mut distances = vec![0; 5 * GROUP];
                kernel.hamming(&groups, &query, &mut distances);
                assert_eq!(distances, expected, "{kernel:?} {words}");
            }
        }
    }
}

//! Vector index, compared with brute force by ndarray.

mod concurrent;
mod model;

use promptkeep::{
    embed::Embedding,
    index::{Index, IndexConfig, IndexKind},
    key::{CacheKey, Scope},
};

const DIMENSIONS: usize = 384;

fn scope(n: u8) -> Scope {
    Scope::from_bytes([n; 32])
}

fn key(n: u64) -> CacheKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    CacheKey::from_bytes(bytes)
}

fn config(kind: IndexKind, scan_max: usize) -> IndexConfig {
    IndexConfig { kind, scan_max, rebuild_at: 0.3 }
}

/// Random vectors in clusters, like those of real prompts.
struct Vectors {
    random: fastrand::Rng,
    centres: Vec<Vec<f32>>,
}

impl Vectors {
    fn new(seed: u64, clusters: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let centres = (0..clusters).map(|_| noise(&mut random)).collect();
        Self { random, centres }
    }

    /// Returns a vector of a random cluster, at a cosine of about 0.7 to its centre.
    fn next(&mut self) -> Embedding {
        let centre = self.random.usize(..self.centres.len());
        let centre = self.centres[centre].clone();
        self.near(&centre, 1.0)
    }

    /// Returns `vector` with a share of noise added; 0.3 gives a cosine of about 0.96.
    fn near(&mut self, vector: &[f32], share: f32) -> Embedding {
        let noise = noise(&mut self.random);
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        let noisy = vector.iter().zip(noise).map(|(x, n)| x / length + share * n);
        Embedding::normalized(noisy.collect()).unwrap()
    }
}

/// Returns a uniformly random direction of length one.
fn noise(random: &mut fastrand::Rng) -> Vec<f32> {
    let sum_of_many = |random: &mut fastrand::Rng| (0..6).map(|_| random.f32() - 0.5).sum::<f32>();
    let values = (0..DIMENSIONS).map(|_| sum_of_many(random)).collect();
    Embedding::normalized(values).unwrap().as_slice().to_vec()
}

#[test]
fn an_empty_index_finds_nothing() {
    let index = Index::new(&config(IndexKind::Auto, 100), DIMENSIONS);
    let query = Vectors::new(1, 1).next();
    assert_eq!(index.search(scope(1), &query, 5), []);
    assert!(index.insert(scope(1), key(1), &query));
    assert_eq!(index.search(scope(2), &query, 5), [], "another scope");
    assert_eq!(index.search(scope(1), &query, 0), []);
    assert!(!index.remove(scope(2), key(1)));
    assert!(!index.remove(scope(1), key(2)));
    assert!(index.remove(scope(1), key(1)));
    assert!(!index.remove(scope(1), key(1)));
    assert_eq!(index.search(scope(1), &query, 5), []);
    assert!(index.is_empty());
}

#[test]
fn vectors_of_other_dimensions_are_rejected() {
    let index = Index::new(&config(IndexKind::Auto, 100), DIMENSIONS);
    let other = Embedding::normalized(vec![1.0; DIMENSIONS + 1]).unwrap();
    assert!(!index.insert(scope(1), key(1), &other));
    assert_eq!(index.search(scope(1), &other, 1), []);
    assert!(index.is_empty());
}

#[test]
fn a_scope_with_one_entry_costs_little_more_than_its_vector() {
    let index = Index::new(&config(IndexKind::Auto, 100), DIMENSIONS);
    let vector = Vectors::new(1, 1).next();
    for n in 0..1000_u64 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        index.insert(Scope::from_bytes(bytes), key(n), &vector);
    }
    let each = index.memory_bytes() / 1000;
    assert!((1536..1536 + 400).contains(&each), "{each}");
}

#[test]
fn inserting_a_key_again_replaces_its_vector() {
    let index = Index::new(&config(IndexKind::Auto, 100_000), DIMENSIONS);
    let mut vectors = Vectors::new(1, 10);
    let mut entries = Vec::new();
    for round in 0..2 {
        entries = (0..2500).map(|n| (key(n), vectors.next())).collect::<Vec<_>>();
        entries.iter().for_each(|(key, vector)| assert!(index.insert(scope(1), *key, vector)));
        assert_eq!((index.len(), index.scope_len(scope(1))), (2500, 2500), "round {round}");
    }
    index.wait_for_upkeep();
    for (key, vector) in entries {
        let found = index.search(scope(1), &vector, 1);
        assert_eq!(found[0].key, key);
        assert!(found[0].similarity > 0.9999);
    }
}

/// Vectors of prompts made from one template are so similar that their sign codes are equal.
#[test]
fn search_finds_the_nearest_in_a_dense_cluster() {
    let index = Index::new(&config(IndexKind::Scan, 0), DIMENSIONS);
    let mut vectors = Vectors::new(1, 1);
    let template = vectors.next();
    let filled: Vec<_> = (0..4000).map(|_| vectors.near(template.as_slice(), 0.3)).collect();
    (0..).zip(&filled).for_each(|(n, vector)| assert!(index.insert(scope(1), key(n), vector)));
    let queries = filled.iter().zip(0..).step_by(20);
    let right = queries.filter(|(vector, n)| {
        let query = vectors.near(vector.as_slice(), 0.2);
        index.search(scope(1), &query, 1)[0].key == key(*n)
    });
    let right = right.count();
    assert!(right >= 197, "{right} of 200");
}

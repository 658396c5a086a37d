//! Random inserts, removals and searches, checked against all vectors in the index.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2};

use super::*;

const K: usize = 5;
const SCOPES: u8 = 4;

/// Expected contents of the index, and the recall of its searches.
struct Model {
    index: Index,
    vectors: Vectors,
    held: [BTreeMap<u64, Embedding>; SCOPES as usize],
    next_key: u64,
    recall: Recall,
}

/// Counts of expected and found neighbours.
#[derive(Debug, Default)]
struct Recall {
    /// Searches with a similar vector in the index, and those that found it.
    near: usize,
    near_found: usize,
    /// Expected and found neighbours of all searches.
    all: usize,
    all_found: usize,
}

impl Model {
    fn new(config: &IndexConfig, seed: u64) -> Self {
        Self {
            index: Index::new(config, DIMENSIONS),
            vectors: Vectors::new(seed, 50),
            held: Default::default(),
            next_key: 0,
            recall: Recall::default(),
        }
    }

    /// Most vectors go to scope 0; the last scopes stay tiny.
    fn pick_scope(&mut self) -> u8 {
        match self.vectors.random.u8(..100) {
            0..90 => 0,
            90..97 => 1,
            97..99 => 2,
            _ => 3,
        }
    }

    fn pick_held(&mut self, scope: u8) -> Option<u64> {
        let held = &self.held[usize::from(scope)];
        let skipped = self.vectors.random.usize(..held.len().max(1));
        held.keys().nth(skipped).copied()
    }

    fn insert(&mut self) {
        let n = self.pick_scope();
        let replaced = if self.vectors.random.u8(..20) == 0 { self.pick_held(n) } else { None };
        let number = replaced.unwrap_or(self.next_key);
        self.next_key += 1;
        let vector = self.vectors.next();
        assert!(self.index.insert(scope(n), key(number), &vector));
        self.held[usize::from(n)].insert(number, vector);
    }

    fn remove(&mut self) {
        let n = self.pick_scope();
        let Some(number) = self.pick_held(n) else { return };
        assert!(self.index.remove(scope(n), key(number)));
        self.held[usize::from(n)].remove(&number);
    }

    /// Half of the queries are near a held vector.
    fn search(&mut self) {
        let n = self.pick_scope();
        let near = if self.vectors.random.bool() { self.pick_held(n) } else { None };
        let near = near.map(|number| self.held[usize::from(n)][&number].clone());
        let query = match near {
            Some(vector) => self.vectors.near(vector.as_slice(), 0.3),
            None => self.vectors.next(),
        };
        let found = self.index.search(scope(n), &query, K);
        let all = brute_force(&self.held[usize::from(n)], &query);
        assert_eq!(found.len(), K.min(all.len()), "every search returns as many neighbours as there are");
        assert!(found.is_sorted_by(|a, b| a.similarity >= b.similarity));
        for (i, neighbour) in found.iter().enumerate() {
            let exact = all.iter().find(|(number, _)| key(*number) == neighbour.key);
            let (_, similarity) = exact.expect("only vectors of this scope are found");
            assert!((similarity - neighbour.similarity).abs() < 1e-5);
            assert!(found[..i].iter().all(|other| other.key != neighbour.key), "a vector was found twice");
        }
        if all.len() < 100 {
            assert!(found.iter().zip(&all).all(|(f, (_, best))| (f.similarity - best).abs() < 1e-5));
        }
        self.count(&found.iter().map(|neighbour| neighbour.key).collect::<Vec<_>>(), &all);
    }

    fn count(&mut self, found: &[CacheKey], all: &[(u64, f32)]) {
        let Some((nearest, _)) = all.first() else { return };
        let best = &all[..K.min(all.len())];
        // Less similar vectors would never be served, so the scan need not find them.
        if all[0].1 > 0.75 {
            self.recall.near += 1;
            self.recall.near_found += usize::from(found[0] == key(*nearest));
        }
        self.recall.all += best.len();
        self.recall.all_found += best.iter().filter(|(number, _)| found.contains(&key(*number))).count();
    }

    fn check_counts(&self) {
        let lengths: Vec<_> = (0..SCOPES).map(|n| self.index.scope_len(scope(n))).collect();
        assert_eq!(lengths, self.held.iter().map(BTreeMap::len).collect::<Vec<_>>());
        assert_eq!(self.index.len(), lengths.iter().sum::<usize>());
    }

    /// Grows, churns and shrinks the index.
    fn run(&mut self, operations: usize) {
        for removals in [5, 45, 75] {
            for _ in 0..operations {
                match self.vectors.random.u8(..100) {
                    0..10 => self.search(),
                    n if n < 10 + removals => self.remove(),
                    _ => self.insert(),
                }
            }
            self.check_counts();
            self.index.wait_for_upkeep();
            (0..50).for_each(|_| self.search());
        }
    }

    fn empty(&mut self) {
        for n in 0..SCOPES {
            for number in std::mem::take(&mut self.held[usize::from(n)]).into_keys() {
                assert!(self.index.remove(scope(n), key(number)));
            }
        }
        self.index.wait_for_upkeep();
        self.check_counts();
        assert_eq!(self.index.memory_bytes(), 0, "an empty scope leaves the index");
        (0..10).for_each(|_| self.insert());
        (0..10).for_each(|_| self.search());
    }
}

/// Returns all of `held` by descending similarity.
fn brute_force(held: &BTreeMap<u64, Embedding>, query: &Embedding) -> Vec<(u64, f32)> {
    let rows: Vec<f32> = held.values().flat_map(|vector| vector.as_slice()).copied().collect();
    let rows = Array2::from_shape_vec((held.len(), DIMENSIONS), rows).unwrap();
    let similarities = rows.dot(&Array1::from_vec(query.as_slice().to_vec()));
    let mut all: Vec<_> = held.keys().copied().zip(similarities).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

fn check(kind: IndexKind, scan_max: usize) {
    let mut model = Model::new(&config(kind, scan_max), 7);
    model.run(2500);
    let Recall { near, near_found, all, all_found } = model.recall;
    println!("{kind:?}: {near_found} of {near} nearest, {all_found} of {all} in all");
    assert!(near_found * 200 >= near * 199, "{near_found} of {near}");
    assert!(all_found * 100 >= all * 97, "{all_found} of {all}");
    model.empty();
}

#[test]
fn scan_agrees_with_brute_force() {
    check(IndexKind::Scan, 0);
}

#[test]
fn graph_agrees_with_brute_force() {
    check(IndexKind::Hnsw, 0);
}

#[test]
fn switching_from_scan_to_graph_agrees_with_brute_force() {
    check(IndexKind::Auto, 1500);
}

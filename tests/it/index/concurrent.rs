//! Concurrent inserts, removals and searches while blocks are sealed, rebuilt and linked.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;

/// Writer thread with vectors of its own, so that it knows what a search must find.
struct Writer<'i> {
    index: &'i Index,
    vectors: Vectors,
    number: u64,
    held: Vec<(u64, Embedding)>,
}

impl Writer<'_> {
    fn step(&mut self) {
        if self.held.len() > 700 && self.vectors.random.bool() {
            let at = self.vectors.random.usize(..self.held.len());
            let (number, vector) = self.held.swap_remove(at);
            assert!(self.index.remove(scope(1), key(number)));
            let found = self.index.search(scope(1), &vector, 3);
            assert!(found.iter().all(|neighbour| neighbour.key != key(number)), "a removed vector was found");
        } else {
            let vector = self.vectors.next();
            assert!(self.index.insert(scope(1), key(self.number), &vector));
            self.held.push((self.number, vector));
            self.number += 1;
        }
        let at = self.vectors.random.usize(..self.held.len());
        let (number, vector) = &self.held[at];
        let found = self.index.search(scope(1), vector, 1);
        assert_eq!(found[0].key, key(*number), "of {} held", self.held.len());
    }
}

fn check(kind: IndexKind) {
    let index = &Index::new(&config(kind, 1500), DIMENSIONS);
    let is_done = &AtomicBool::new(false);
    thread::scope(|threads| {
        let writers: Vec<_> = (0..3_u64)
            .map(|n| {
                threads.spawn(move || {
                    let vectors = Vectors::new(n + 1, 50);
                    let mut writer = Writer { index, vectors, number: n << 32, held: Vec::new() };
                    (0..1200).for_each(|_| writer.step());
                    writer.held.len()
                })
            })
            .collect();
        let searcher = threads.spawn(|| {
            let mut vectors = Vectors::new(9, 50);
            while !is_done.load(Ordering::Relaxed) {
                let found = index.search(scope(1), &vectors.next(), 5);
                assert!(found.is_sorted_by(|a, b| a.similarity >= b.similarity));
                assert_eq!(index.search(scope(2), &vectors.next(), 5), []);
            }
        });
        let held: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        is_done.store(true, Ordering::Relaxed);
        searcher.join().unwrap();
        assert_eq!((index.len(), index.scope_len(scope(1))), (held, held));
    });
}

#[test]
fn threads_do_not_lose_vectors_of_a_scan() {
    check(IndexKind::Scan);
}

#[test]
fn threads_do_not_lose_vectors_of_a_graph() {
    check(IndexKind::Auto);
}

/// A vector that is inserted while its scope is being dropped must not be lost with the scope.
#[test]
fn a_scope_that_empties_does_not_lose_new_vectors() {
    let index = &Index::new(&config(IndexKind::Auto, 1000), DIMENSIONS);
    thread::scope(|threads| {
        for n in 0..4_u64 {
            threads.spawn(move || {
                let vector = Vectors::new(n + 1, 1).next();
                for round in 0..5000 {
                    let key = key(n << 32 | round);
                    assert!(index.insert(scope(1), key, &vector));
                    assert_eq!(index.search(scope(1), &vector, 1).first().map(|n| n.key), Some(key));
                    assert!(index.remove(scope(1), key));
                }
            });
        }
    });
    assert_eq!((index.len(), index.scope_len(scope(1)), index.memory_bytes()), (0, 0, 0));
}

/// Dropping the index cancels the construction of its graph.
#[test]
fn dropping_the_index_does_not_wait_for_a_graph() {
    let index = Index::new(&config(IndexKind::Hnsw, 0), DIMENSIONS);
    let mut vectors = Vectors::new(1, 50);
    for n in 0..3000 {
        index.insert(scope(1), key(n), &vectors.next());
    }
    drop(index);
}

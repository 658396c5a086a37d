//! Searches and inserts in one scope, by scan and by graph. Prints recall and memory beside the times. Compare scan and
//! graph of one run, not figures of different machines.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use promptkeep::{
    embed::Embedding,
    index::{Index, IndexConfig, IndexKind},
    key::{CacheKey, Scope},
};

const DIMENSIONS: usize = 384;
const SCOPE: Scope = Scope::from_bytes([1; 32]);
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Largest graph, unless `PROMPTKEEP_BENCH_GRAPH_MAX` says otherwise: building one of 100k vectors takes minutes.
const GRAPH_MAX: usize = 10_000;

/// Vectors in clusters, and queries near some of them, at a cosine of about 0.95.
struct Data {
    vectors: Vec<Embedding>,
    queries: Vec<Embedding>,
}

fn noise(random: &mut fastrand::Rng) -> Vec<f32> {
    let values = (0..DIMENSIONS).map(|_| (0..4).map(|_| random.f32() - 0.5).sum::<f32>()).collect();
    Embedding::normalized(values).map_or_else(Vec::new, |noise| noise.as_slice().to_vec())
}

fn near(random: &mut fastrand::Rng, vector: &[f32], share: f32) -> Option<Embedding> {
    let noisy = vector.iter().zip(noise(random)).map(|(x, n)| x + share * n);
    Embedding::normalized(noisy.collect())
}

impl Data {
    fn new(size: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(42);
        let centres: Vec<_> = (0..size.div_ceil(50)).map(|_| noise(&mut random)).collect();
        let near_one = |random: &mut fastrand::Rng| {
            let centre = random.usize(..centres.len());
            near(random, &centres[centre], 0.8)
        };
        let vectors: Vec<_> = (0..size).filter_map(|_| near_one(&mut random)).collect();
        let queries = (0..200).filter_map(|_| {
            let target = random.usize(..vectors.len());
            near(&mut random, vectors[target].as_slice(), 0.33)
        });
        let queries = queries.collect();
        Self { vectors, queries }
    }

    fn fill(&self, kind: IndexKind) -> Index {
        let config = IndexConfig { kind, ..IndexConfig::default() };
        let index = Index::new(&config, DIMENSIONS);
        let started = Instant::now();
        for (n, vector) in self.vectors.iter().enumerate() {
            index.insert(SCOPE, key(n), vector);
        }
        let inserted = started.elapsed();
        index.wait_for_upkeep();
        println!(
            "{kind:?} {}: {:.2} µs an insert, ready after {:.1} s, {} bytes a vector, recall@1 {:.4}",
            self.vectors.len(),
            inserted.as_secs_f64() * 1e6 / self.vectors.len() as f64,
            started.elapsed().as_secs_f64(),
            index.memory_bytes() / self.vectors.len(),
            self.recall(&index),
        );
        index
    }

    fn recall(&self, index: &Index) -> f64 {
        let finds_nearest = |query: &&Embedding| {
            let best = self.vectors.iter().map(|vector| vector.similarity(query)).fold(-1.0, f32::max);
            index.search(SCOPE, query, 1).first().is_some_and(|found| found.similarity > best - 1e-5)
        };
        self.queries.iter().filter(finds_nearest).count() as f64 / self.queries.len() as f64
    }
}

fn key(n: usize) -> CacheKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
    CacheKey::from_bytes(bytes)
}

fn search(criterion: &mut Criterion) {
    let graph_max = std::env::var("PROMPTKEEP_BENCH_GRAPH_MAX").ok().and_then(|max| max.parse().ok());
    let mut group = criterion.benchmark_group("index/search");
    for size in SIZES {
        let data = Data::new(size);
        for kind in [IndexKind::Scan, IndexKind::Hnsw] {
            if kind == IndexKind::Hnsw && size > graph_max.unwrap_or(GRAPH_MAX) {
                continue;
            }
            let index = data.fill(kind);
            let mut queries = data.queries.iter().cycle();
            group.bench_function(BenchmarkId::new(format!("{kind:?}"), size), |bencher| {
                bencher.iter(|| queries.next().map(|query| black_box(index.search(SCOPE, query, 4))));
            });
        }
    }
}

/// Inserts a vector and removes it again, so that the index does not grow.
fn insert(criterion: &mut Criterion) {
    let data = Data::new(10_000);
    let index = data.fill(IndexKind::Scan);
    let mut next = data.vectors.len()..;
    criterion.bench_function("index/insert and remove", |bencher| {
        bencher.iter(|| {
            let key = next.next().map_or(key(0), key);
            index.insert(SCOPE, key, &data.queries[0]);
            black_box(index.remove(SCOPE, key))
        });
    });
}

/// Latency of searches while another thread inserts about a thousand vectors a second.
fn beside_inserts(_: &mut Criterion) {
    let data = Data::new(GRAPH_MAX);
    for kind in [IndexKind::Scan, IndexKind::Hnsw] {
        let index = data.fill(kind);
        print_latency(kind, "alone", &index, &data);
        let is_done = AtomicBool::new(false);
        thread::scope(|threads| {
            let inserter = threads.spawn(|| {
                let new = data.vectors.len()..;
                for n in new.take_while(|_| !is_done.load(Ordering::Relaxed)) {
                    index.insert(SCOPE, key(n), &data.vectors[n % data.vectors.len()]);
                    // About a thousand inserts a second, more than models answer.
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a thread of the bench that only paces its inserts"
                    )]
                    thread::sleep(Duration::from_millis(1));
                }
            });
            print_latency(kind, "beside inserts", &index, &data);
            is_done.store(true, Ordering::Relaxed);
            let _ = inserter.join();
        });
    }
}

fn print_latency(kind: IndexKind, circumstance: &str, index: &Index, data: &Data) {
    let mut micros: Vec<_> = (0..20_000)
        .map(|n| {
            let started = Instant::now();
            black_box(index.search(SCOPE, &data.queries[n % data.queries.len()], 4));
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    println!(
        "{kind:?} searches {circumstance}: p50 {:.0} p99 {:.0} p99.9 {:.0} max {:.0} µs",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn config() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = config(); targets = search, insert, beside_inserts }
criterion_main!(benches);

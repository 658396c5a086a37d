//! Embedded store: durable writes in groups, reads, and a cold start. Prints the size of an entry in the file.

#[path = "common/entry.rs"]
mod entry;

use std::{
    fs,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use entry::key;
use promptkeep::{
    config::{StoreConfig, StoreKind},
    entry::Entry,
    key::Scope,
    store::{self, Durability, Store, codec},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinSet};

const ENTRIES: u64 = 10_000;
const IN_FLIGHT: u64 = 64;

fn entry(n: u64) -> Arc<Entry> {
    let vector = (0..384).map(|i| ((i * 7 + n) as f32).sin()).collect();
    Arc::new(entry::entry(n, Scope::from_bytes([1; 32]), vector, "all-MiniLM-L6-v2/int8"))
}

fn config_of(folder: &TempDir) -> StoreConfig {
    let path = folder.path().to_owned();
    StoreConfig { kind: StoreKind::Embedded, path, write_queue: 100_000, ..StoreConfig::default() }
}

fn open(folder: &TempDir) -> Arc<dyn Store> {
    store::open("local", &config_of(folder)).expect("a temporary folder is writable")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

async fn fill(store: &Arc<dyn Store>) {
    for n in 0..ENTRIES {
        store.put(entry(n), Durability::Queued).await.expect("the queue is long enough");
    }
    store.flush().await.expect("the disk is not full");
}

/// Writes one durable entry from each of `writers` concurrent tasks.
async fn put_concurrently(store: &Arc<dyn Store>, from: u64, writers: u64) {
    let mut tasks = JoinSet::new();
    for n in from..from + writers {
        let store = store.clone();
        tasks.spawn(async move { store.put(entry(n), Durability::Durable).await });
    }
    tasks.join_all().await;
}

fn put(criterion: &mut Criterion) {
    let (folder, runtime) = (folder(), runtime());
    let store = open(&folder);
    let mut next = 0;
    let mut group = criterion.benchmark_group("store/put durable");
    for writers in [1, IN_FLIGHT] {
        group.throughput(Throughput::Elements(writers));
        group.bench_function(format!("{writers} in flight"), |bencher| {
            bencher.iter(|| {
                next += writers;
                runtime.block_on(put_concurrently(&store, next, writers));
            });
        });
    }
}

fn get(criterion: &mut Criterion) {
    let (folder, runtime) = (folder(), runtime());
    let store = open(&folder);
    runtime.block_on(fill(&store));
    let mut group = criterion.benchmark_group("store/get");
    for (name, from) in [("found", 0), ("absent", ENTRIES)] {
        let mut numbers = (from..from + ENTRIES).cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let key = key(numbers.next().unwrap_or_default());
                black_box(runtime.block_on(store.get(key)))
            });
        });
    }
}

/// Opens a full file and reads all of it, as the start of a server does.
fn cold_start(criterion: &mut Criterion) {
    let (folder, runtime) = (folder(), runtime());
    let store = open(&folder);
    let started = Instant::now();
    runtime.block_on(fill(&store));
    println!("{ENTRIES} entries queued and flushed in {:.2} s", started.elapsed().as_secs_f64());
    drop(store);
    let file = folder.path().join("promptkeep.redb");
    let bytes = fs::metadata(file).map_or(0, |file| file.len());
    println!(
        "an entry is {} bytes encoded and {} in the file",
        codec::encode(&entry(0)).len(),
        bytes / ENTRIES
    );
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).bench_function("open and scan 10k", |bencher| {
        bencher.iter(|| {
            let store = open(&folder);
            runtime.block_on(scan(&*store));
        });
    });
}

async fn scan(store: &dyn Store) {
    let mut after = None;
    loop {
        let page = store.scan(after, 1000).await.unwrap_or_default();
        let Some(last) = page.last() else { break };
        after = Some(last.key);
    }
}

fn config() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3))
}

criterion_group! { name = benches; config = config(); targets = put, get, cold_start }
criterion_main!(benches);

//! The embedded store: durable writes in groups, reads, and a cold start. Prints the size of the file.

use std::{
    fs,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promptkeep::{
    cache::entry::Entry,
    config::{StoreConfig, StoreKind},
    embed::Embedding,
    key::{CacheKey, Scope},
    prompt::{Completion, FinishReason, Usage},
    store::{self, Durability, Store, codec},
    tenant::Owner,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinSet};

const ENTRIES: u64 = 10_000;
const IN_FLIGHT: u64 = 64;

/// An answer of about a hundred tokens.
fn entry(n: u64) -> Arc<Entry> {
    let created = SystemTime::now();
    Arc::new(Entry {
        key: key(n),
        scope: Scope::from_bytes([1; 32]),
        owner: Owner::Tenant("default".to_owned()),
        namespace: "support".to_owned(),
        requested_model: "auto".to_owned(),
        text: Some(format!("how do I change the delivery address of order {n}?")),
        embedding: Embedding::normalized((0..384).map(|i| ((i * 7 + n) as f32).sin()).collect()),
        embedder: "all-MiniLM-L6-v2/int8".to_owned(),
        completion: Completion {
            content: "Open the order, choose “change address” and confirm. ".repeat(8),
            tool_calls: None,
            finish_reason: FinishReason::Stop,
            model: "gpt-4o".to_owned(),
            tier: "hot".to_owned(),
            usage: Usage { prompt_tokens: 40, completion_tokens: 96, cost_usd: 0.001, estimated: false },
        },
        tags: Vec::new(),
        created,
        expires: created + Duration::from_secs(24 * 60 * 60),
        stale_for: Duration::ZERO,
        difficulty: None,
        alias_of: None,
    })
}

/// Scattered as hashes are.
fn key(n: u64) -> CacheKey {
    CacheKey::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn config_of(folder: &TempDir) -> StoreConfig {
    let path = folder.path().to_owned();
    StoreConfig { kind: StoreKind::Embedded, path, write_queue: 100_000, ..StoreConfig::default() }
}

fn open(folder: &TempDir) -> Arc<dyn Store> {
    store::open(&config_of(folder)).expect("a temporary folder is writable")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime can be made")
}

async fn fill(store: &Arc<dyn Store>) {
    for n in 0..ENTRIES {
        store.put(entry(n), Durability::Queued).await.expect("the queue is long enough");
    }
    store.flush().await.expect("the disk is not full");
}

/// Puts one entry with each of `writers` tasks at once, durably.
async fn put_at_once(store: &Arc<dyn Store>, from: u64, writers: u64) {
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
                runtime.block_on(put_at_once(&store, next, writers));
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

/// Opens a filled file and reads all of it, as a start does.
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

//! Store that replicas share: reads compared with a bare GET, replication delay, searches while entries stream in, cold
//! start, memory of an entry, and hits while Redis hangs.
//!
//! Starts a redis-server of its own. Run with `cargo bench --bench redis`; `cargo bench --bench redis -- 1000000` sets the
//! number of entries of the cold start. The name of one part, such as `reads`, runs it alone; `plan` places namespaces in
//! a large fleet. Only figures of one run can be compared.

#[path = "common/entry.rs"]
mod entry;
#[path = "redis/plan.rs"]
mod plan;
#[path = "../tests/it/common/redis_server.rs"]
#[allow(dead_code, reason = "the integration tests use the rest")]
mod redis_server;

use std::{
    env,
    hint::black_box,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use entry::key;
use hdrhistogram::Histogram;
use promptkeep::{
    cache::{Cache, VectorSpace},
    config::{CacheConfig, StoreConfig, StoreKind},
    embed::Embedding,
    entry::Entry,
    key::Scope,
    store::{self, Durability, TimedStore, codec},
    telemetry::{metrics::Metrics, stats::Ledger},
};
use redis_server::RedisServer;
use tokio::{task::JoinSet, time::interval};

const DIMENSIONS: usize = 384;
const EMBEDDER: &str = "bench";
/// Number of scopes that share the entries, as conversations with different system prompts do.
const SCOPES: u64 = 100;
const IN_FLIGHT: usize = 64;
const RUN: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// Number of entries that are read.
const HOT: u64 = 1000;
const INSERTS_PER_SECOND: u64 = 1000;
/// Flag that makes this program the replica of [`cold_start`].
const LOAD: &str = "--load";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // `cargo test --benches` only checks that the program starts.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    if let [LOAD, url] = arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        let loading = load((*url).to_owned());
        return tokio::runtime::Runtime::new().expect("a runtime").block_on(loading);
    }
    if arguments.iter().any(|argument| argument == "plan") {
        return plan::print();
    }
    let entries = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let chosen: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| PARTS.contains(a)).collect();
    let is_chosen = |part| chosen.is_empty() || chosen.contains(&part);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        for part in PARTS.into_iter().filter(|part| is_chosen(part)) {
            match part {
                "reads" => reads().await,
                "replication" => replication().await,
                "stream" => stream().await,
                "hanging" => hanging().await,
                _ => cold_start(entries).await,
            }
        }
    });
}

const PARTS: [&str; 5] = ["reads", "replication", "stream", "hanging", "start"];

/// Returns entry number `n`. Its vector is random, so no two entries of a scope are similar.
fn entry(n: u64) -> Entry {
    let mut random = fastrand::Rng::with_seed(n);
    let vector = (0..DIMENSIONS).map(|_| random.f32() - 0.5).collect();
    entry::entry(n, scope(n), vector, EMBEDDER)
}

fn scope(n: u64) -> Scope {
    Scope::from_bytes([(n % SCOPES) as u8; 32])
}

/// Opens the cache of one replica.
fn replica(redis: &RedisServer, max_memory: u64) -> Arc<Cache> {
    replica_at(&StoreConfig { write_queue: 10_000_000, ..redis.store() }, max_memory)
}

fn replica_at(config: &StoreConfig, max_memory: u64) -> Arc<Cache> {
    let store = store::open("local", config).expect("a valid configuration");
    let cache = CacheConfig { max_memory, ..CacheConfig::default() };
    let vectors = Some(VectorSpace { embedder: EMBEDDER, dimensions: DIMENSIONS });
    let (metrics, ledger) = (Arc::new(Metrics::new()), Arc::new(Ledger::new(Duration::from_secs(2))));
    let store = TimedStore::new(store, config.timeout, Arc::clone(&metrics), ledger);
    let cache = Arc::new(Cache::new(&cache, store, vectors, metrics));
    tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { cache.maintenance.follow().await }
    });
    cache
}

async fn store_entry(cache: &Cache, n: u64) {
    cache.keep(entry(n), Durability::Queued, cache.tiers.epoch()).await.expect("the queue is long enough");
}

async fn fill(cache: &Cache, entries: u64) {
    for n in 0..entries {
        store_entry(cache, n).await;
    }
    cache.maintenance.flush().await.expect("redis answers");
}

/// Memory tier without room, so that every read goes to Redis.
const NO_MEMORY: u64 = 1;
const MEMORY: u64 = 1 << 30;

async fn reads() {
    let redis = RedisServer::start().await;
    let cache = replica(&redis, NO_MEMORY);
    fill(&cache, HOT).await;
    let bare = redis.connection().await;
    let names: Arc<Vec<String>> = Arc::new(redis.keys("*:e:*").await);
    let (mut exact, mut get) = (0.0_f64, 0.0_f64);
    // The two alternate and the best round of each counts, because other load can only make a round slower.
    for _ in 0..ROUNDS {
        let cache = Arc::clone(&cache);
        exact = exact.max(
            rate(move |n| {
                let cache = Arc::clone(&cache);
                async move { assert!(cache.get(key(n % HOT)).await.is_some()) }
            })
            .await,
        );
        let (bare, names) = (bare.clone(), Arc::clone(&names));
        get = get.max(
            rate(move |n| {
                let (mut bare, names) = (bare.clone(), Arc::clone(&names));
                async move {
                    let get = redis::cmd("GET").arg(&names[(n % HOT) as usize]).clone();
                    let value: Vec<u8> = get.query_async(&mut bare).await.expect("a reply");
                    black_box(value);
                }
            })
            .await,
        );
    }
    println!("exact hit from redis      {exact:>10.0} /s, bare GET {get:.0} /s: {:.2}", exact / get);
}

/// Returns calls per second with [`IN_FLIGHT`] calls at once.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    call: impl Fn(u64) -> F + Send + Clone + 'static,
) -> f64 {
    let end = Instant::now() + RUN;
    let mut callers = JoinSet::new();
    for caller in 0..IN_FLIGHT as u64 {
        let call = call.clone();
        callers.spawn(async move {
            let mut calls = 0_u64;
            while Instant::now() < end {
                call(caller * 7919 + calls).await;
                calls += 1;
                // A hit in memory never waits, so the task must yield to the others.
                tokio::task::yield_now().await;
            }
            calls
        });
    }
    callers.join_all().await.iter().sum::<u64>() as f64 / RUN.as_secs_f64()
}

/// Time from a write on one replica until a search on another finds the entry.
async fn replication() {
    let redis = RedisServer::start().await;
    let (a, b) = (replica(&redis, MEMORY), replica(&redis, MEMORY));
    fill(&a, HOT).await;
    b.maintenance.load().await.expect("redis answers");
    let mut micros = histogram();
    for n in HOT..HOT + 500 {
        let started = Instant::now();
        store_entry(&a, n).await;
        let embedding = entry(n).embedding.expect("a vector");
        while b.nearest(scope(n), &embedding, 1).await.first().is_none_or(|found| found.entry.key != key(n)) {
            tokio::task::yield_now().await;
        }
        record(&mut micros, started);
    }
    print_times("stored on A, found on B", &micros);
}

/// Searches on one replica while another writes.
async fn stream() {
    let redis = RedisServer::start().await;
    let (a, b) = (replica(&redis, MEMORY), replica(&redis, MEMORY));
    fill(&a, 10 * HOT).await;
    b.maintenance.load().await.expect("redis answers");
    let search = {
        let b = Arc::clone(&b);
        let queries: Arc<Vec<Embedding>> = Arc::new((0..HOT).filter_map(|n| entry(n).embedding).collect());
        move |n: u64| {
            let (b, queries) = (Arc::clone(&b), Arc::clone(&queries));
            async move {
                let n = n % HOT;
                let found = b.nearest(scope(n), &queries[n as usize], 8).await;
                assert_eq!(found.first().map(|found| found.entry.key), Some(key(n)));
            }
        }
    };
    let quiet = rate(search.clone()).await;
    let writer = tokio::spawn(async move {
        let mut every = interval(Duration::from_millis(10));
        for n in 10 * HOT.. {
            if n % (INSERTS_PER_SECOND / 100) == 0 {
                every.tick().await;
            }
            store_entry(&a, n).await;
        }
    });
    let busy = rate(search).await;
    writer.abort();
    let vectors = b.sizes().1 as u64 - 10 * HOT;
    let per_second = vectors as f64 / RUN.as_secs_f64();
    println!(
        "semantic hits on B        {busy:>10.0} /s while {per_second:.0} entries/s come from A, {quiet:.0} /s without"
    );
}

/// Hits in memory between as many misses that read from Redis, before and while Redis hangs.
async fn hanging() {
    let redis = RedisServer::start().await;
    let cache = replica(&redis, MEMORY);
    fill(&cache, HOT).await;
    let healthy = hits_beside_misses(&cache).await;
    redis.signal("STOP");
    // The first requests wait for store.timeout; later ones do not.
    let first = Instant::now();
    while cache.get(key(u64::MAX)).await.is_none() && first.elapsed() < Duration::from_secs(2) {}
    let hanging = hits_beside_misses(&cache).await;
    redis.signal("CONT");
    print_times("memory hit, redis healthy", &healthy.0);
    print_times("memory hit, redis hanging", &hanging.0);
    print_times("miss, redis healthy", &healthy.1);
    print_times("miss, redis hanging", &hanging.1);
}

async fn hits_beside_misses(cache: &Cache) -> (Histogram<u64>, Histogram<u64>) {
    let (mut hits, mut misses) = (histogram(), histogram());
    let end = Instant::now() + RUN;
    let mut n = 0;
    while Instant::now() < end {
        n += 1;
        let started = Instant::now();
        black_box(cache.get(key(n % HOT)).await);
        record(&mut hits, started);
        let started = Instant::now();
        black_box(cache.get(key(1 << 40 | n)).await);
        record(&mut misses, started);
        // A server also yields between requests.
        tokio::task::yield_now().await;
    }
    (hits, misses)
}

/// Starts a replica on a full Redis, in a process of its own so that its memory can be measured.
async fn cold_start(entries: u64) {
    let redis = RedisServer::start().await;
    let filler = replica(&redis, NO_MEMORY);
    let started = Instant::now();
    let empty: f64 = used_memory(&redis).await;
    fill(&filler, entries).await;
    println!("{entries} entries stored in {:.1} s", started.elapsed().as_secs_f64());
    let in_redis = (used_memory(&redis).await - empty) / entries as f64;
    println!("bytes an entry: {} encoded, {in_redis:.0} in redis", codec::encode(&entry(0)).len());
    let program = env::current_exe().expect("a path to this program");
    let load = move || Command::new(program).args([LOAD, &redis.url()]).status().map(|_| redis);
    tokio::task::spawn_blocking(load).await.expect("no panic").expect("the replica starts");
}

async fn load(url: String) {
    let before = resident_bytes();
    let cache = replica_at(
        &StoreConfig { kind: StoreKind::Redis, url: vec![url], ..StoreConfig::default() },
        NO_MEMORY,
    );
    let started = Instant::now();
    let vectors = cache.maintenance.load().await.expect("redis answers");
    let elapsed = started.elapsed().as_secs_f64();
    let each = (resident_bytes() - before) / vectors as f64;
    println!(
        "{vectors} vectors loaded in {elapsed:.1} s, {:.0} /s; {each:.0} bytes each in a replica",
        vectors as f64 / elapsed
    );
}

async fn used_memory(redis: &RedisServer) -> f64 {
    let info: String = redis.command("INFO memory").await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default()
}

/// Resident memory of this process; 0 on systems without /proc.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("valid bounds")
}

fn record(nanos: &mut Histogram<u64>, started: Instant) {
    nanos.saturating_record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
}

fn print_times(name: &str, nanos: &Histogram<u64>) {
    let [p50, p99] = [0.5, 0.99].map(|q| nanos.value_at_quantile(q) as f64 / 1000.0);
    println!("{name:<26}{p50:>10.1} µs p50, {p99:.1} µs p99");
}

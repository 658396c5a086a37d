//! Cost of an embedding on one thread: tokenization, and the forward pass in both precisions. The bench prints their
//! ratio, because only figures of one run can be compared.

use std::{env, hint::black_box, path::PathBuf, sync::Arc, time::Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use promptkeep::embed::{
    Precision,
    minilm::{MiniLm, Session},
    model_files,
    tokenizer::Tokenizer,
};
use rayon::ThreadPoolBuilder;

/// Lengths of the texts in tokens, including the start and end tokens.
const LENGTHS: [usize; 3] = [12, 32, 128];

fn benches(c: &mut Criterion) {
    let dir = env::var_os("PROMPTKEEP_EMBEDDING__MODEL_DIR").map(PathBuf::from);
    let folder = model_files::folder(dir.as_deref()).expect("a cache folder");
    if !model_files::present(&folder) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(model_files::pull(&folder)).expect("the model");
    }
    // One thread, as in the worker pool: a matrix product stays on its thread.
    let pool = ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let files = model_files::read(&folder).expect("the model");
    let load =
        |precision| Arc::new(MiniLm::new(&files.weights, &files.vocabulary, precision).expect("the model"));
    let (int8, f32) = (load(Precision::Int8), load(Precision::F32));
    tokenize(c, int8.tokenizer());
    c.bench_function("load/int8", |b| b.iter(|| load(Precision::Int8)));
    for tokens in LENGTHS {
        let text = text(tokens);
        let mut group = c.benchmark_group(format!("embed/{tokens}"));
        for (name, model) in [("int8", &int8), ("f32", &f32)] {
            let model = Arc::clone(model);
            group.bench_function(name, |b| {
                pool.install(|| {
                    let mut session = Session::new(Arc::clone(&model));
                    b.iter(|| session.embed(black_box(&text)));
                })
            });
        }
        group.finish();
        let [fast, slow] = pool.install(|| medians([&int8, &f32], &text));
        println!("embed/{tokens}: int8 {fast:.3} ms, f32 {slow:.3} ms, ratio {:.2}", slow / fast);
    }
}

fn tokenize(c: &mut Criterion, tokenizer: &Tokenizer) {
    let mut group = c.benchmark_group("tokenize");
    for tokens in LENGTHS {
        let (text, mut ids) = (text(tokens), Vec::new());
        group.bench_with_input(BenchmarkId::from_parameter(tokens), &text, |b, text| {
            b.iter(|| tokenizer.encode(black_box(text), &mut ids));
        });
    }
    group.finish();
}

/// Returns English text of this many tokens.
fn text(tokens: usize) -> String {
    let words = ["how", "do", "i", "change", "the", "delivery", "address", "of", "my", "order"];
    words.iter().cycle().take(tokens - 2).copied().collect::<Vec<_>>().join(" ")
}

/// Returns the median milliseconds of an embedding by each model. The models alternate, so that other load affects both.
fn medians(models: [&Arc<MiniLm>; 2], text: &str) -> [f64; 2] {
    let mut sessions = models.map(|model| Session::new(Arc::clone(model)));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..201 {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            let start = Instant::now();
            black_box(session.embed(black_box(text))).expect("a vector");
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

criterion_group!(group, benches);
criterion_main!(group);

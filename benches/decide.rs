//! Cost of a decision without the embedding, for a prompt of 16 words with four candidates.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use promptkeep::decide::{
    features::{self, Neighbourhood},
    guard,
    learner::{Budget, Learner},
    surface::{Difference, difference},
    table::Table,
    text::Analysis,
};

const PROMPT: &str = "What is the best way to travel from Vienna to Prague by train in early May?";
const ENTRIES: [&str; 4] = [
    "What is the best way of travelling from Prague to Vienna by train in early May?",
    "How do I get from Vienna to Prague by train at the beginning of May please?",
    "What is the cheapest way to travel from Vienna to Budapest by bus in late May?",
    "Which trains run from Vienna to Prague in the morning, and how long do they take?",
];
const BUDGET: Budget = Budget { max_error_rate: 0.01, max_wrong_hits: 0.05 };

fn decision(c: &mut Criterion) {
    let table = Table::embedded().expect("the table belongs to this build");
    let mut learner = Learner::new(Arc::clone(&table), 1);
    c.bench_function("decide/analyse", |b| b.iter(|| Analysis::of(black_box(PROMPT))));
    let (new, old) = (Analysis::of(PROMPT), Analysis::of(ENTRIES[0]));
    c.bench_function("decide/guards", |b| {
        b.iter(|| guard::ALL.iter().filter(|g| guard::objects(**g, &new, &old)).count());
    });
    c.bench_function("decide/features", |b| {
        b.iter(|| features::of(&new, &old, 0.9, Neighbourhood::default(), &table.rarity));
    });
    let row = features::of(&new, &old, 0.9, Neighbourhood::default(), &table.rarity);
    c.bench_function("decide/score", |b| b.iter(|| learner.score(black_box(&row), Difference::Wording, 0)));
    c.bench_function("decide/learned, 4 candidates, total", |b| {
        b.iter(|| {
            let new = Analysis::of(black_box(PROMPT));
            let scored = ENTRIES.map(|text| {
                let near = Neighbourhood { best_other: 0.8, mean: 0.8 };
                learner.score(
                    &features::of(&new, &Analysis::of(text), 0.9, near, &table.rarity),
                    difference(PROMPT, text, &table.rarity),
                    0,
                )
            });
            learner.decide(&scored, &BUDGET, 0.02, None)
        });
    });
}

criterion_group!(benches, decision);
criterion_main!(benches);

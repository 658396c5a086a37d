//! Recorded traffic through the library. The command is tested in `cli`.

use std::{fs, time::Duration};

use promptkeep::{
    config::{CacheConfig, Config, Mode},
    model::Tier,
    replay::{self, Report},
};
use serde_json::{Value, json};

use crate::common::{fake_upstream::FakeUpstream, test_server::semantic_config};

const RESET: &str = "How do I reset my password?";
const SURFACE: &str = "how do i reset my password";
const PARAPHRASE: &str = "How can I reset my password?";
const ANSWER: &str = "Open the settings, choose security, and follow the link that is sent to your address.";

async fn replayed(lines: &[Value], config: Config) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traffic.jsonl");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&file, text).unwrap();
    replay::run_file(&file, config).await.unwrap()
}

fn rows(report: &Report) -> Vec<Value> {
    let mut written = Vec::new();
    report.write_rows(&mut written).unwrap();
    let lines = std::str::from_utf8(&written).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What became of each line.
pub async fn outcomes(lines: &[Value], config: Config) -> Vec<String> {
    let rows = rows(&replayed(lines, config).await);
    rows.iter().map(|row| row["outcome"].as_str().unwrap().to_owned()).collect()
}

fn asked(text: &str) -> Value {
    json!({ "prompt": text, "answer": ANSWER })
}

fn bounded() -> Config {
    let cache = CacheConfig { mode: Mode::Bounded, ..CacheConfig::default() };
    Config { cache, ..Config::default() }
}

/// With `cache.learning.judge_rate` the judge was the stand-in, which said the recorded answer: that was paid for,
/// and taken for its opinion.
#[tokio::test]
async fn nobody_judges_who_only_repeats_answers() {
    let upstream = FakeUpstream::start().await;
    let mut config = semantic_config(&[&upstream]);
    config.cache.mode = Mode::Bounded;
    config.models[0].tier = Tier::Economy;
    config.cache.learning.judge_rate = 1.0;
    let lines =
        [RESET, PARAPHRASE].map(|text| json!({ "prompt": text, "answer": ANSWER, "model": "economy" }));
    let report = replayed(&lines, config).await;
    assert_eq!((report.outcomes["upstream"], report.checks), (2, 0), "{report}");
    assert_eq!(upstream.calls(), 0);
}

/// A checked hit keeps the answer that checked it under its own prompt, and of that line its repeats were told
/// nothing.
#[tokio::test]
async fn repeats_of_a_checked_hit_name_its_line() {
    let other = json!({ "prompt": SURFACE, "answer": "Call our shop and ask for Mary." });
    let report = replayed(&[asked(RESET), other.clone(), other], bounded()).await;
    let rows = rows(&report);
    let told: Vec<_> = rows.iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!((told, report.checks), (vec!["upstream", "semantic", "exact"], 1), "{rows:?}");
    assert_eq!((&rows[1]["match"], &rows[2]["match"]), (&json!(1), &json!(2)), "{rows:?}");
}

/// Entries expired by the wall clock while the file was read, as long as that took.
#[tokio::test]
async fn nothing_expires() {
    let mut config = bounded();
    config.cache.ttl = Duration::from_nanos(1);
    config.cache.careful_ttl = Duration::from_nanos(1);
    config.cache.ttl_jitter = 0.9;
    let bound = "What is the latest on order 4711 today?";
    let outcomes = outcomes(&[RESET, RESET, bound, bound].map(asked), config).await;
    assert_eq!(outcomes, ["upstream", "exact", "upstream", "exact"]);
}

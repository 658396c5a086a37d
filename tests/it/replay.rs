//! Replay of recorded traffic through the library; `cli` tests the command.

use std::{fs, time::Duration};

use promptkeep::{
    config::{CacheConfig, Config, Mode, NamespaceCache, VerifyMode},
    model::Tier,
    offline::replay::{self, Report},
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

/// Returns the outcome of each line.
pub async fn outcomes(lines: &[Value], config: Config) -> Vec<String> {
    let rows = rows(&replayed(lines, config).await);
    rows.iter().map(|row| row["outcome"].as_str().unwrap().to_owned()).collect()
}

fn line(text: &str) -> Value {
    json!({ "prompt": text, "answer": ANSWER })
}

fn bounded() -> Config {
    let cache = CacheConfig { mode: Mode::Bounded, ..CacheConfig::default() };
    Config { cache, ..Config::default() }
}

/// With verification configured, the fake model of the replay was also the verifier. It returned the recorded answer,
/// which was paid for and taken as its opinion.
#[tokio::test]
async fn replay_never_verifies_with_its_recorded_answers() {
    let upstream = FakeUpstream::start().await;
    let mut config = semantic_config(&[&upstream]);
    config.cache.mode = Mode::Bounded;
    config.models[0].tier = Tier::Economy;
    config.cache.verify.mode = VerifyMode::Background;
    let own = NamespaceCache {
        namespace: "default".to_owned(),
        verify: Some(VerifyMode::Background),
        ..NamespaceCache::default()
    };
    config.cache.namespaces.push(own);
    let lines =
        [RESET, PARAPHRASE].map(|text| json!({ "prompt": text, "answer": ANSWER, "model": "economy" }));
    let report = replayed(&lines, config).await;
    assert_eq!((report.outcomes["upstream"], report.checks), (2, 0), "{report}");
    assert_eq!(upstream.calls(), 0);
}

/// The answer that audited a hit is stored under the prompt of that hit. Repeats that hit this entry did not name its
/// line.
#[tokio::test]
async fn repeats_of_an_audited_hit_name_its_line() {
    let other = json!({ "prompt": SURFACE, "answer": "Call our shop and ask for Mary." });
    let report = replayed(&[line(RESET), other.clone(), other], bounded()).await;
    let rows = rows(&report);
    let outcomes: Vec<_> = rows.iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!((outcomes, report.checks), (vec!["upstream", "semantic", "exact"], 1), "{rows:?}");
    assert_eq!((&rows[1]["match"], &rows[2]["match"]), (&json!(1), &json!(2)), "{rows:?}");
}

/// Entries expired by the wall clock during a replay that took longer than their TTL.
#[tokio::test]
async fn replay_expires_nothing() {
    let mut config = bounded();
    config.cache.ttl = Duration::from_nanos(1);
    config.cache.careful_ttl = Duration::from_nanos(1);
    config.cache.ttl_jitter = 0.9;
    let time_dependent = "What is the latest on order 4711 today?";
    let outcomes = outcomes(&[RESET, RESET, time_dependent, time_dependent].map(line), config).await;
    assert_eq!(outcomes, ["upstream", "exact", "upstream", "exact"]);
}

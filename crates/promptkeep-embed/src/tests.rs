//! Tests of starting the in-process embedder.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::Precision;

async fn refusal(config: &EmbeddingConfig) -> String {
    match start(config).await {
        Ok(embedder) => panic!("started {}", embedder.name()),
        Err(error) => error.to_string(),
    }
}

fn config_of(dir: &TempDir) -> EmbeddingConfig {
    EmbeddingConfig { model_dir: Some(dir.path().to_owned()), ..EmbeddingConfig::default() }
}

#[tokio::test]
async fn nothing_is_downloaded_into_a_configured_folder() {
    let dir = TempDir::new().unwrap();
    let text = refusal(&config_of(&dir)).await;
    assert!(text.contains(&dir.path().join("model.safetensors").display().to_string()), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_start_fails_and_names_a_corrupt_file() {
    let dir = TempDir::new().unwrap();
    let mut weights = testing::files().weights;
    weights[50_000_000] ^= 1;
    fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    let text = refusal(&config_of(&dir)).await;
    assert!(text.contains("model.safetensors: wrong checksum"), "{text}");
}

#[tokio::test]
async fn paraphrases_are_more_similar_than_other_questions() {
    let files = testing::files();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("model.safetensors"), files.weights).unwrap();
    fs::write(dir.path().join("vocab.txt"), files.vocabulary).unwrap();
    let embedder = start(&EmbeddingConfig { precision: Precision::Int8, ..config_of(&dir) }).await.unwrap();
    let mut vectors = Vec::new();
    for text in ["How do I reset my password?", "how can i change my password", "What does shipping cost?"] {
        match embedder.embed(text).await.unwrap() {
            Embedded::Vector { embedding, .. } => vectors.push(embedding),
            Embedded::OverWindow { tokens } => panic!("{tokens} tokens"),
        }
    }
    assert!(vectors[0].similarity(&vectors[1]) > 0.8);
    assert!(vectors[0].similarity(&vectors[2]) < 0.4);
}

#[test]
fn a_vector_without_direction_cannot_be_normalised() {
    for values in [vec![], vec![0.0; 3], vec![f32::NAN, 1.0], vec![f32::INFINITY, 1.0]] {
        assert!(Embedding::normalized(values).is_none());
    }
    assert_eq!(Embedding::normalized(vec![3.0, 4.0]).unwrap().as_slice(), [0.6, 0.8]);
}

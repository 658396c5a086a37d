//! Fixtures shared by tests: the real model, and the reference texts with their tokens and vectors.

use std::{env, path::PathBuf, sync::Arc};

use serde::Deserialize;

use super::{
    minilm::{HIDDEN, MiniLm},
    model_files::{self, ModelBytes},
};
use crate::Precision;

/// A reference text with the token ids of the reference tokenizer.
#[derive(Deserialize)]
pub struct Sample {
    pub text: String,
    pub ids: Vec<u32>,
}

/// Returns the model's files. The first test to call it downloads them, the others wait.
pub fn files() -> ModelBytes {
    let dir = env::var_os("PROMPTKEEP_EMBEDDING__MODEL_DIR").map(PathBuf::from);
    let folder = model_files::folder(dir.as_deref()).unwrap();
    if !model_files::present(&folder) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(model_files::pull(&folder)).unwrap();
    }
    model_files::read(&folder).unwrap()
}

pub fn model(precision: Precision) -> Arc<MiniLm> {
    let files = files();
    Arc::new(MiniLm::new(&files.weights, &files.vocabulary, precision).unwrap())
}

pub fn samples() -> Vec<Sample> {
    serde_json::from_str(include_str!("../tests/data/minilm_reference.json")).unwrap()
}

/// Returns the reference vectors of the first samples.
pub fn vectors() -> Vec<Vec<f32>> {
    let (numbers, _) = include_bytes!("../tests/data/minilm_reference.i16").as_chunks::<2>();
    let numbers: Vec<f32> = numbers.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32767.0).collect();
    numbers.chunks_exact(HIDDEN).map(<[f32]>::to_vec).collect()
}

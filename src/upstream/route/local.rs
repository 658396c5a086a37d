//! Judges how difficult a prompt is, from the prompt itself.

use super::Difficulty;
use crate::{embed::Embedding, prompt::Prompt};

/// The judgement.
pub(super) fn judge(prompt: &Prompt, _embedding: Option<&Embedding>) -> Difficulty {
    let _ = prompt;
    Difficulty::Easy
}

//! Labelled traffic for the training of the decision table: streams of prompts with their classes and answers.

pub mod measure;
pub mod stream;

//! Tests against the reference tokenizer.

use super::{
    super::testing::{files, samples},
    *,
};

fn tokenizer() -> Tokenizer {
    Tokenizer::new(&files().vocabulary)
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids);
    ids
}

#[test]
fn the_ids_are_those_of_the_reference_tokenizer() {
    let tokenizer = tokenizer();
    let mut wrong = Vec::new();
    for sample in samples() {
        let ids = ids(&tokenizer, &sample.text);
        if ids != sample.ids {
            wrong.push((sample.text, ids, sample.ids));
        }
    }
    assert!(wrong.is_empty(), "text, ours, reference: {wrong:#?}");
}

#[test]
fn special_tokens_in_a_text_are_plain_characters() {
    let ids = ids(&tokenizer(), "[SEP]");
    assert_eq!(ids.iter().filter(|id| **id == END).count(), 1);
    assert_eq!(ids.len(), 5);
}

#[test]
fn encoding_stops_at_the_limit() {
    let ids = ids(&tokenizer(), &"a ".repeat(1_000_000));
    assert!((COUNT_MAX..COUNT_MAX + 10).contains(&ids.len()), "{}", ids.len());
}

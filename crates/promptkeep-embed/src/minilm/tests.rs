//! Tests of the forward pass against the reference vectors.

use super::{
    super::testing::{files, model, samples, vectors},
    *,
};

fn embed(session: &mut Session, text: &str) -> Embedding {
    match session.embed(text).unwrap() {
        Embedded::Vector { embedding, .. } => embedding,
        Embedded::OverWindow { tokens } => panic!("{tokens} tokens"),
    }
}

/// Returns the cosine to the reference vector of each reference text.
fn cosines(session: &mut Session) -> Vec<f32> {
    let mut cosines = Vec::new();
    for (sample, vector) in samples().into_iter().zip(vectors()) {
        let reference = Embedding::normalized(vector).unwrap();
        cosines.push(embed(session, &sample.text).similarity(&reference));
    }
    cosines
}

fn lowest(cosines: &[f32]) -> f32 {
    cosines.iter().copied().fold(1.0, f32::min)
}

fn mean(cosines: &[f32]) -> f32 {
    cosines.iter().sum::<f32>() / cosines.len() as f32
}

#[test]
fn f32_reproduces_the_reference_vectors() {
    let cosines = cosines(&mut Session::new(model(Precision::F32)));
    assert!(cosines.len() >= 48);
    assert!(lowest(&cosines) >= 0.999, "{cosines:?}");
}

fn assert_close(cosines: &[f32]) {
    println!("int8: lowest {}, mean {}", lowest(cosines), mean(cosines));
    assert!(lowest(cosines) >= 0.98, "{cosines:?}");
    assert!(mean(cosines) >= 0.994, "{}", mean(cosines));
}

#[test]
fn int8_stays_close_to_the_reference_vectors() {
    assert_close(&cosines(&mut Session::new(model(Precision::Int8))));
}

/// Uses the weights of a machine without VNNI on any machine.
#[test]
fn int8_stays_close_without_vnni() {
    let files = files();
    let products = Products::without_vnni();
    let model = MiniLm::packed_for(&products, &files.weights, &files.vocabulary, Precision::Int8).unwrap();
    assert_close(&cosines(&mut Session::new(Arc::new(model))));
}

#[test]
fn the_previous_text_does_not_change_a_vector() {
    let mut session = Session::new(model(Precision::Int8));
    let before = embed(&mut session, "short");
    embed(&mut session, &"a much longer text ".repeat(40));
    assert_eq!(embed(&mut session, "short"), before);
}

#[test]
fn weights_of_another_model_are_refused() {
    let Err(error) = MiniLm::new(b"not safetensors", "", Precision::F32) else { panic!("accepted") };
    assert!(matches!(error, WeightsError::Format(_)), "{error}");
}

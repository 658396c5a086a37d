use super::{
    super::testing::{model, samples, vectors},
    *,
};

fn embed(session: &mut Session, text: &str) -> Embedding {
    match session.embed(text).unwrap() {
        Embedded::Vector { embedding, .. } => embedding,
        Embedded::OverWindow { tokens } => panic!("{tokens} tokens"),
    }
}

/// Cosine to the reference, for each of its texts.
fn cosines(precision: Precision) -> Vec<f32> {
    let mut session = Session::new(model(precision));
    let pairs = samples().into_iter().zip(vectors());
    let cosine = |(sample, vector): (crate::embed::testing::Sample, _)| {
        let reference = Embedding::normalized(vector).unwrap();
        embed(&mut session, &sample.text).similarity(&reference)
    };
    pairs.map(cosine).collect()
}

fn lowest(cosines: &[f32]) -> f32 {
    cosines.iter().copied().fold(1.0, f32::min)
}

fn mean(cosines: &[f32]) -> f32 {
    cosines.iter().sum::<f32>() / cosines.len() as f32
}

#[test]
fn f32_gives_the_reference_vectors() {
    let cosines = cosines(Precision::F32);
    assert!(cosines.len() >= 48);
    assert!(lowest(&cosines) >= 0.999, "{cosines:?}");
}

#[test]
fn int8_stays_close_to_the_reference_vectors() {
    let cosines = cosines(Precision::Int8);
    println!("int8: lowest {}, mean {}", lowest(&cosines), mean(&cosines));
    assert!(lowest(&cosines) >= 0.98, "{cosines:?}");
    assert!(mean(&cosines) >= 0.994, "{}", mean(&cosines));
}

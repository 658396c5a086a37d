//! How well scores rank labelled pairs, and how far probabilities come true.

/// Area under the ROC curve of scores with their labels.
pub fn auc(mut rows: Vec<(f32, bool)>) -> f64 {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut positives) = (0.0, 0.0);
    let mut seen = 0.0;
    for equal in rows.chunk_by(|a, b| a.0 == b.0) {
        let count = equal.len() as f64;
        let positive = equal.iter().filter(|row| row.1).count() as f64;
        ranks += positive * (seen + (count + 1.0) / 2.0);
        positives += positive;
        seen += count;
    }
    (ranks - positives * (positives + 1.0) / 2.0) / (positives * (seen - positives))
}

/// Share of the positive rows above the score that `false_positives` of the negative ones exceed.
pub fn found_at(mut rows: Vec<(f32, bool)>, false_positives: f64) -> f64 {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = rows.iter().filter(|row| row.1).count();
    let allowed = ((rows.len() - positives) as f64 * false_positives) as usize;
    let (mut found, mut wrong) = (0, 0);
    for row in &rows {
        wrong += usize::from(!row.1);
        if wrong > allowed {
            break;
        }
        found += usize::from(row.1);
    }
    found as f64 / positives.max(1) as f64
}

/// Mean difference between probabilities and outcomes over ten bins of equal counts.
pub fn calibration_error(mut rows: Vec<(f32, bool)>) -> f64 {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let size = rows.len().div_ceil(10).max(1);
    let bins = rows.chunks(size).map(|bin| {
        let expected: f64 = bin.iter().map(|row| f64::from(row.0)).sum();
        let observed = bin.iter().filter(|row| row.1).count() as f64;
        (expected - observed).abs()
    });
    bins.sum::<f64>() / rows.len().max(1) as f64
}

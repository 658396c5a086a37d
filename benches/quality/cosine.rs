//! The policy of most semantic caches: serve the nearest entry if its cosine reaches a fixed threshold. Runs live, so
//! a served request becomes no entry. The threshold is chosen with the ground truth of the whole stream, which is
//! better than anybody can choose it in advance.

use super::stream::{Entries, Stream};
use crate::Served;

/// Thresholds tried: `COUNT` steps from `FIRST`.
const FIRST: f32 = 0.6;
const STEP: f32 = 0.005;
const COUNT: usize = 81;

/// Returns the threshold with the most correct answers within the error rate, or infinity if no threshold is.
pub fn best(stream: &Stream, max_error_rate: f64) -> (f32, Served) {
    let thresholds = (0..=COUNT).map(|n| FIRST + STEP * n as f32);
    let runs = thresholds.map(|threshold| (threshold, run(stream, threshold)));
    let allowed = runs.filter(|(_, served)| served.wrong <= max_error_rate * stream.len() as f64);
    let best = allowed.max_by(|a, b| a.1.correct.total_cmp(&b.1.correct));
    best.unwrap_or((f32::INFINITY, Served::default()))
}

fn run(stream: &Stream, threshold: f32) -> Served {
    let mut entries = Entries::new(stream);
    let mut served = Served::default();
    for request in 0..stream.len() {
        let nearest = || entries.nearest(request).filter(|nearest| nearest.1 >= threshold).map(|n| n.0);
        match entries.exact(request).or_else(nearest) {
            Some(entry) => served.count(stream.is_right(request, entry)),
            None => entries.add(request, true),
        }
    }
    served
}

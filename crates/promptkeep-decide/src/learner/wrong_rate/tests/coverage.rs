//! Simulated streams of hits: how often the interval holds the truth at every look, and how wide it is.

use std::collections::BTreeMap;

use super::*;

const STREAMS: usize = 1500;

/// How a stream of hits is audited and labelled.
#[derive(Clone, Copy, Debug)]
struct Stream {
    hits: usize,
    /// Lowest probability of an audit.
    propensity: f32,
    /// Whether early hits are audited more often, as the server does.
    eager: bool,
    /// Share of wrong answers at the start and at the end.
    wrong: (f32, f32),
    /// Whether the share jumps halfway; else it moves evenly.
    jumps: bool,
    /// Errors of the comparison on distant pairs and on close ones: false "same", false "different".
    comparison: [(f32, f32); 2],
    /// Share of close pairs at the start and at the end.
    close: (f32, f32),
    /// Whether the comparison's errors are known no better than from 0 to 30 %.
    vague: bool,
    /// Errors of the verifier.
    verifier: (f32, f32),
    /// Width on either side of the verifier's error rates, as far as they are known.
    known: f32,
    /// Probability that an audit is verified.
    verified: f32,
    /// After so many verdicts, none is asked for any more.
    verdicts_max: u32,
    /// Probabilities of feedback on a right and on a wrong answer.
    feedback: (f32, f32),
}

/// What came of a stream.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    holds: bool,
    width: f32,
}

impl Stream {
    fn random(random: &mut fastrand::Rng, n: usize) -> Self {
        let choose = |random: &mut fastrand::Rng, from: &[f32]| from[random.usize(..from.len())];
        let upto = |random: &mut fastrand::Rng, max: f32| max * random.f32();
        let hits = 1500;
        let propensity = choose(random, &[0.02, 0.05, 0.2, 1.0]);
        let wrong = choose(random, &[0.0, 0.01, 0.05, 0.2]);
        let drifts = random.bool();
        let distant = (upto(random, 0.3), upto(random, 0.3));
        let close = if random.bool() { distant } else { (upto(random, 0.3), upto(random, 0.3)) };
        let verdicts = [0.0, 50.0, 500.0][n % 3];
        let stops = verdicts > 0.0 && random.u8(..4) == 0;
        let verified = (verdicts / (hits as f32 * propensity)).min(1.0);
        Self {
            hits,
            propensity,
            eager: random.bool(),
            wrong: (wrong, if drifts { upto(random, 0.2) } else { wrong }),
            jumps: random.bool(),
            comparison: [distant, close],
            close: (random.f32(), random.f32()),
            vague: random.bool(),
            verifier: (upto(random, 0.3), upto(random, 0.3)),
            known: if random.bool() { 0.0 } else { 0.01 },
            verified: if stops { verified.max(0.5) } else { verified },
            verdicts_max: if stops { 50 } else { u32::MAX },
            feedback: if random.u8(..3) == 0 { (0.02, 0.4) } else { (0.0, 0.0) },
        }
    }

    /// Rates that hold the true ones.
    fn errors(&self) -> LabelErrors {
        let [a, b] = self.comparison;
        let between = |a: f32, b: f32| match self.vague {
            true => ErrorRate::new(0.15, 0.0, 0.3),
            false => ErrorRate::new(0.5 * (a + b), a.min(b), a.max(b)),
        };
        let around = |rate: f32| ErrorRate::new(rate, (rate - self.known).max(0.0), rate + self.known);
        LabelErrors {
            comparison: SourceErrors { false_same: between(a.0, b.0), false_different: between(a.1, b.1) },
            verifier: SourceErrors {
                false_same: around(self.verifier.0),
                false_different: around(self.verifier.1),
            },
            feedback: NO_ERRORS,
        }
    }

    fn run(&self, random: &mut fastrand::Rng) -> Outcome {
        let errors = self.errors();
        let (mut tally, mut estimate, mut holds) = (Tally::default(), WrongHits::UNKNOWN, true);
        let (mut wrong_hits, mut verdicts, mut late) = (0_u32, 0, Vec::new());
        for hit in 0..self.hits {
            let at = hit as f32 / self.hits as f32;
            let is_wrong = random.f32() < blend(self.wrong, if self.jumps { at.round() } else { at });
            wrong_hits += u32::from(is_wrong);
            let early = if self.eager { 100.0 / (hit + 1) as f32 } else { 0.0 };
            let propensity = early.clamp(self.propensity, 1.0);
            if random.f32() < propensity {
                let verified = if verdicts < self.verdicts_max { self.verified } else { 0.0 };
                let audited =
                    Audited { propensity, verified, label: self.label(is_wrong, verified, at, random) };
                verdicts += u32::from(audited.label.source == LabelSource::Verifier);
                tally.add(&Tally::of(&audited).unwrap());
                let reports = if is_wrong { self.feedback.1 } else { self.feedback.0 };
                if random.f32() < reports {
                    late.push((hit + 50, audited, Label::reported(!is_wrong)));
                }
                while late.first().is_some_and(|(due, ..)| *due <= hit) {
                    let (_, before, label) = late.remove(0);
                    let after = Audited { label, ..before };
                    tally.replace(&Tally::of(&before).unwrap(), &Tally::of(&after).unwrap());
                }
                estimate = tally.estimate(&errors, 0);
            }
            let truth = wrong_hits as f32 / (hit + 1) as f32;
            holds &= (estimate.low - 1e-6..=estimate.high + 1e-6).contains(&truth);
        }
        Outcome { holds, width: estimate.high - estimate.low }
    }

    fn label(&self, is_wrong: bool, verified: f32, at: f32, random: &mut fastrand::Rng) -> Label {
        let same = |(false_same, false_different): (f32, f32), random: &mut fastrand::Rng| {
            random.f32() < if is_wrong { false_same } else { 1.0 - false_different }
        };
        let is_close = random.f32() < blend(self.close, at);
        let label =
            Label::compared(if same(self.comparison[usize::from(is_close)], random) { 4.0 } else { -4.0 });
        if random.f32() < verified { label.verified(same(self.verifier, random)) } else { label }
    }
}

fn blend((start, end): (f32, f32), at: f32) -> f32 {
    start + (end - start) * at
}

#[test]
fn the_interval_holds_the_truth_at_every_look() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut groups: BTreeMap<String, (u32, u32, f32)> = BTreeMap::new();
    for n in 0..STREAMS {
        let stream = Stream::random(&mut random, n);
        let outcome = stream.run(&mut random);
        let groupings = [
            "all".to_owned(),
            format!("audits {:4}", stream.propensity),
            format!("eager {}", stream.eager),
            format!(
                "verdicts {:3}{}",
                [0, 50, 500][n % 3],
                if stream.verdicts_max < 100 { " stops" } else { "" }
            ),
            format!("wrong {:4}, drift {}", stream.wrong.0, stream.wrong.0 != stream.wrong.1),
            format!("close {}", stream.comparison[0] != stream.comparison[1]),
            format!("feedback {}", stream.feedback.1 > 0.0),
            format!("exact {}", stream.known == 0.0),
        ];
        for group in groupings {
            let (streams, held, width) = groups.entry(group).or_default();
            (*streams, *held, *width) =
                (*streams + 1, *held + u32::from(outcome.holds), *width + outcome.width);
        }
    }
    for (group, (streams, held, width)) in &groups {
        let (streams, held) = (*streams as f32, *held as f32);
        println!("{group:28} {streams:5} streams, held {:.3}, width {:.3}", held / streams, width / streams);
        assert!(held >= 0.95 * streams, "{group}");
    }
}

/// An even stream with 3 % wrong hits whose audits are all verified, by a verifier that errs as known.
fn steady(hits: usize, propensity: f32, known: f32) -> Stream {
    Stream {
        hits,
        propensity,
        eager: false,
        wrong: (0.03, 0.03),
        jumps: false,
        comparison: [(0.10, 0.45); 2],
        close: (0.0, 0.0),
        vague: false,
        verifier: (0.02, 0.05),
        known,
        verified: 1.0,
        verdicts_max: u32::MAX,
        feedback: (0.0, 0.0),
    }
}

/// A fifth of 1,000 hits, of whose verdicts 8 % say "different", tells the share with a standard deviation of 2.0
/// points. Even for a single look, no interval with 95 % can be shorter than 5.8 points on average (Pratt, "Length of
/// confidence intervals", 1961); the normal one is 6.8. So 6 points take more audits, here as many as all 1,000 hits.
#[test]
fn the_interval_is_not_idle() {
    let mut random = fastrand::Rng::with_seed(7);
    for (hits, propensity, known, points) in [
        (1000, 0.2, 0.0, 11.5),
        (1000, 0.2, 0.01, 13.5),
        (1000, 1.0, 0.0, 6.2),
        (1000, 1.0, 0.01, 8.0),
        (6000, 0.2, 0.0, 6.0),
    ] {
        let stream = steady(hits, propensity, known);
        let width = 100.0 * (0..40).map(|_| stream.run(&mut random).width).sum::<f32>() / 40.0;
        println!("{hits} hits, audits {propensity}, errors within {known}: {width:.1} points");
        assert!(width <= points, "{width:.1}: {stream:?}");
    }
}

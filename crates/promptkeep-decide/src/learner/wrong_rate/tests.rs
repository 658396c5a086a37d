//! The estimate on figures worked out by hand, its sums, and what it does with impossible numbers.

use super::*;

mod coverage;

const NO_ERRORS: SourceErrors =
    SourceErrors { false_same: ErrorRate::exactly(0.0), false_different: ErrorRate::exactly(0.0) };

fn compared(propensity: f32, same: f32) -> Audited {
    Audited { propensity, verified: 0.0, label: Label::compared(if same > 0.5 { 4.0 } else { -4.0 }) }
}

fn verified(propensity: f32, same: bool) -> Audited {
    Audited { propensity, verified: 1.0, label: Label::compared(4.0).verified(same) }
}

fn tally(audits: impl IntoIterator<Item = Audited>) -> Tally {
    let mut tally = Tally::default();
    audits.into_iter().for_each(|audited| tally.add(&Tally::of(&audited).unwrap()));
    tally
}

fn assert_equal(mut a: Tally, mut b: Tally) {
    for (a, b) in a.all().zip(b.all()) {
        assert!((*a - *b).abs() <= 1e-9 * (1.0 + b.abs()), "{a} {b}");
    }
}

/// 16 wrong hits among 160, all of them audited, were reported as 3.1 %, 0.0 to 9.0: the most that the comparison might
/// err was subtracted as if it were known to.
#[test]
fn an_assumed_error_rate_does_not_hide_wrong_hits() {
    let tally = tally((0..160).map(|n| compared(1.0, if n % 10 == 0 { 0.0 } else { 1.0 })));
    let comparison = SourceErrors { false_different: ErrorRate::new(0.03, 0.0, 0.06), ..NO_ERRORS };
    let WrongHits { rate, low, high, checks, labels } =
        tally.estimate(&LabelErrors { comparison, ..LabelErrors::ASSUMED }, 160);
    assert!(low < 0.05 && high > 0.10 && high < 0.21, "{low} to {high}");
    assert!((rate - 0.07 / 0.97).abs() < 1e-4, "{rate}");
    assert_eq!((checks, labels), (160, LabelCounts { comparison: 160, verifier: 0, feedback: 0 }));
    // The assumed comparison would call three right answers in ten different, which these labels refute.
    let assumed = tally.estimate(&LabelErrors::ASSUMED, 160);
    assert!(assumed.low == 0.0 && assumed.high > 0.10, "{assumed:?}");
}

#[test]
fn a_few_heavy_hits_leave_everything_open() {
    let light = (0..30).map(|_| verified(1.0, true));
    let estimate = tally(light.chain([verified(0.001, false)])).estimate(&LabelErrors::ASSUMED, 31);
    assert!(estimate.rate > 0.9 && estimate.low < 0.05 && estimate.high > 0.99, "{estimate:?}");
}

#[test]
fn feedback_replaces_the_label_of_its_hit_and_stands_for_no_other() {
    let exact = LabelErrors { comparison: NO_ERRORS, verifier: NO_ERRORS, feedback: NO_ERRORS };
    let before = verified(0.5, true);
    let mut improved = tally((0..100).map(|_| before));
    let after = Audited { label: Label::reported(false), ..before };
    let [of_before, of_after] = [before, after].map(|audited| Tally::of(&audited).unwrap());
    (0..10).for_each(|_| improved.replace(&of_before, &of_after));
    assert_equal(improved, tally((0..100).map(|n| if n < 10 { after } else { before })));
    let known = improved;
    improved.replace(&Tally::of(&compared(0.5, 0.0)).unwrap(), &of_after);
    assert_eq!(improved, known, "not among them");
    let estimate = improved.estimate(&exact, 100);
    assert!(
        (estimate.rate - 0.1).abs() < 1e-6 && estimate.low > 0.02 && estimate.high < 0.25,
        "{estimate:?}"
    );
    assert_eq!(estimate.labels, LabelCounts { comparison: 0, verifier: 90, feedback: 10 });
}

/// Half of the audits are verified. The comparison calls two in five right answers different, yet its errors cancel.
#[test]
fn verdicts_on_a_part_replace_the_errors_of_the_comparison() {
    let audit = |n: u32| {
        let comparison = Label::compared(if n.is_multiple_of(20) || n % 5 < 2 { -4.0 } else { 4.0 });
        let label = if n % 40 < 20 { comparison.verified(!n.is_multiple_of(20)) } else { comparison };
        Audited { propensity: 0.5, verified: 0.5, label }
    };
    let errors = LabelErrors { verifier: NO_ERRORS, ..LabelErrors::ASSUMED };
    let estimate = tally((0..2000).map(audit)).estimate(&errors, 2000);
    assert!((estimate.rate - 0.05).abs() < 0.005 && estimate.high - estimate.low < 0.06, "{estimate:?}");
    assert_eq!(estimate.labels, LabelCounts { comparison: 1000, verifier: 1000, feedback: 0 });
}

#[test]
fn replicas_add_up_to_one() {
    let mut random = fastrand::Rng::with_seed(3);
    let audits: Vec<_> = (0..500)
        .map(|_| {
            let label = Label::compared(random.f32() - 0.5);
            let label = if random.bool() { label.verified(random.bool()) } else { label };
            Audited { propensity: 0.02 + 0.9 * random.f32(), verified: 0.5, label }
        })
        .collect();
    let (a, b) = audits.split_at(200);
    let mut sum = tally(a.iter().copied());
    sum.add(&tally(b.iter().copied()));
    let one = tally(audits);
    assert_equal(sum, one);
    let (sum, one) = (sum.estimate(&LabelErrors::ASSUMED, 0), one.estimate(&LabelErrors::ASSUMED, 0));
    assert!((sum.low - one.low).abs() < 1e-6 && (sum.high - one.high).abs() < 1e-6);
}

#[test]
fn a_tally_is_read_as_written() {
    let tally =
        tally((0..50).map(|n| if n % 3 == 0 { verified(0.1, n % 2 == 0) } else { compared(0.3, 0.4) }));
    let mut bytes = Vec::new();
    tally.encode(&mut bytes);
    assert_eq!(Tally::decode(&mut Reader::new(&bytes)), Ok(tally));
    assert!(Tally::decode(&mut Reader::new(&bytes[1..])).is_err());
    for sum in [f64::NAN, f64::INFINITY, -1.0] {
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        assert!(Tally::decode(&mut Reader::new(&bytes)).is_err(), "{sum}");
    }
}

#[test]
fn numbers_that_make_no_sense_count_for_nothing() {
    for propensity in [0.0, -1.0, f32::NAN] {
        assert_eq!(Tally::of(&compared(propensity, 1.0)), None);
    }
    // Nor does a comparison that cannot tell.
    for evidence in [f32::NAN, 0.0] {
        let label = Label::compared(evidence);
        assert_eq!(Tally::of(&Audited { propensity: 1.0, verified: 0.0, label }), None);
    }
    let verified = |verified| Audited { verified, ..compared(1.0, 0.5) };
    assert_eq!(tally([verified(f32::NAN)]).labels().comparison, 1);
    assert_eq!(
        Tally::default().estimate(&LabelErrors::ASSUMED, 7),
        WrongHits { checks: 7, ..WrongHits::UNKNOWN }
    );
}

#[test]
fn any_sums_give_shares() {
    let certain = LabelErrors {
        comparison: SourceErrors {
            false_same: ErrorRate::exactly(0.6),
            false_different: ErrorRate::exactly(0.6),
        },
        ..LabelErrors::ASSUMED
    };
    for sum in [0.0, 1e-300, 1e-9, 1.0, 1e18, 9e99] {
        for other in [0.0, 1e-300, 1.0, 1e18, 9e99] {
            let mut tally = Tally::default();
            tally.all().enumerate().for_each(|(n, at)| *at = if n % 2 == 0 { sum } else { other });
            for errors in [&LabelErrors::ASSUMED, &certain] {
                let WrongHits { rate, low, high, .. } = tally.estimate(errors, u64::MAX);
                assert!(
                    0.0 <= low && low <= rate && rate <= high && high <= 1.0,
                    "{low} {rate} {high}: {tally:?}"
                );
            }
        }
    }
}

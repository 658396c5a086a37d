//! The demo's report for a terminal of 100 columns.

use std::fmt::{self, Display, Formatter};

use super::{Count, Percentiles, Report, VerifierReport};
use crate::{
    demo::{
        grading::{Pair, SameWords},
        learning_curve::{Block, LearningCurve},
    },
    offline::report::{Percent, Table, dollars, interval, share, wilson, write_counts},
};

/// Characters of a prompt that fit beside the indentation.
const EXCERPT: usize = 80;

/// Pairs shown of each section; the rest is counted.
const PAIRS_SHOWN: usize = 4;

/// Pairs shown of one reason, or of one application if there is no reason, before other kinds get their turn.
const PAIRS_PER_KIND: usize = 2;

const OUTCOMES: Table = Table { label: 14, cells: &[9, 9, 14, 11, 17, 11] };
const MONEY: Table = Table { label: 46, cells: &[10, 28] };
const LEARNING: Table = Table { label: 12, cells: &[9, 8, 10, 10, 7, 9, 30] };
const ERRORS: Table = Table { label: 14, cells: &[10, 26, 10] };

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { requests, applications, elapsed_seconds, .. } = self;
        writeln!(f, "{requests} requests of {applications} applications in {elapsed_seconds:.0} s")?;
        writeln!(
            f,
            "Real cache, embedding, gRPC and disk; the models, their delays and tokens are simulated."
        )?;
        self.write_outcomes(f)?;
        self.write_money(f)?;
        write_verifier(f, &self.verifier)?;
        self.learned.iter().try_for_each(|curve| write_learning_curve(f, curve))?;
        self.write_grades(f)
    }
}

impl Report {
    fn write_outcomes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nHow they were answered")?;
        let columns: [&dyn Display; 6] =
            [&"requests", &"share", &"latency p50", &"p99", &"1st token p50", &"p99"];
        writeln!(f, "{}", OUTCOMES.line("", &columns))?;
        for line in &self.outcomes {
            let [p50, p99] = cells(Some(line.latency));
            let [first_p50, first_p99] = cells(line.first_token);
            let columns: [&dyn Display; 6] =
                [&line.requests, &Percent(line.share), &p50, &p99, &first_p50, &first_p99];
            writeln!(f, "{}", OUTCOMES.line(format_args!("  {}", line.outcome), &columns))?;
        }
        writeln!(f, "\n  {} of all requests needed no model call of their own", Percent(self.hit_ratio))?;
        let counts = |counts: &[Count]| counts.iter().map(|c| (c.name.clone(), c.count)).collect::<Vec<_>>();
        write_counts(f, "asked a model because", counts(&self.misses))?;
        write_counts(f, "failed with", counts(&self.failures))
    }

    fn write_money(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let money = &self.money;
        let without_cache = money.spent_usd + money.saved_usd;
        let saved_share = if without_cache > 0.0 { money.saved_usd / without_cache } else { 0.0 };
        writeln!(f, "\nMoney, by the catalog's prices")?;
        writeln!(f, "{}", MONEY.line("", &[&"this run", &"per million such requests"]))?;
        for (what, usd) in [
            ("spent on models", money.spent_usd),
            ("spent on verifications", money.verifications_usd),
            (&format!("saved by the cache ({} of the bill)", Percent(saved_share)), money.saved_usd),
            (&format!("{} for everything, no cache", money.hot_model), money.hot_only_usd),
        ] {
            let per_million = format!("${:.0}", usd / self.requests.max(1) as f64 * 1e6);
            writeln!(f, "{}", MONEY.line(format_args!("  {what}"), &[&dollars(usd), &per_million]))?;
        }
        Ok(())
    }

    fn write_grades(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let truth = &self.truth;
        writeln!(f, "\nHeld against the ground truth")?;
        writeln!(f, "  {:>4} of {} answers right", truth.answered_rightly, self.requests)?;
        for (count, what) in [
            (truth.wrong_hits.len(), "wrong hits"),
            (truth.paraphrases_hit.len(), "paraphrases answered from the cache"),
            (truth.paraphrases_missed.len(), "paraphrases not recognised, at the price of a call"),
            (truth.near_misses_refused.len(), "near misses rightly refused"),
            (truth.same_words_refused.len(), "times the same words in another context, rightly refused"),
        ] {
            writeln!(f, "  {count:>4} {what}")?;
        }
        write_pairs(f, "Wrong hits", &truth.wrong_hits)?;
        write_pairs(f, "Paraphrases answered from the cache", &truth.paraphrases_hit)?;
        write_pairs(f, "Near misses rightly refused", &truth.near_misses_refused)?;
        write_same_words(f, &truth.same_words_refused)?;
        write_pairs(f, "Paraphrases not recognised", &truth.paraphrases_missed)
    }
}

fn write_verifier(f: &mut Formatter<'_>, verifier: &VerifierReport) -> fmt::Result {
    let VerifierReport { model, verdicts, hits, wrong_hits, .. } = verifier;
    let (verified, all) = (verifier.verified_hits(), verifier.semantic_hits());
    writeln!(f, "\nWhat the simulated verifier did")?;
    writeln!(f, "  {model} is simulated: it knows the ground truth, and errs at the stated rates.")?;
    write_counts(f, "verifications", verdicts.iter().filter(|(_, n)| **n > 0).map(|(v, n)| (v, *n)))?;
    writeln!(f, "{}", ERRORS.line("", &[&"stated", &"measured", &"pairs"]))?;
    for (what, stated, wrong, of) in verifier.errors() {
        let (low, high) = wilson(wrong, of);
        let measured = format!("{} ({:.1} to {:.1})", Percent(share(wrong, of)), 100.0 * low, 100.0 * high);
        let cells: [&dyn Display; 3] = [&Percent(stated), &measured, &of];
        writeln!(f, "{}", ERRORS.line(format_args!("  {what}"), &cells))?;
    }
    writeln!(
        f,
        "  cost {}, {} of what the requests would have cost without a cache (limit {});",
        dollars(verifier.cost_usd),
        Percent(verifier.share_of_spend),
        Percent(verifier.max_share_of_spend),
    )?;
    writeln!(f, "  its hits saved {}", dollars(verifier.saved_usd))?;
    write_counts(f, "semantic hits by approval", hits.iter().map(|(by, n)| (by, *n)))?;
    writeln!(
        f,
        "  {all} semantic hits with the verifier; {} of them needed none; of its {verified}, {wrong_hits} are wrong",
        all - verified
    )
}

fn write_learning_curve(f: &mut Formatter<'_>, curve: &LearningCurve) -> fmt::Result {
    writeln!(f, "\nHow it learned: the requests of {}, in their order", curve.namespace)?;
    let columns: [&dyn Display; 7] = [
        &"possible",
        &"exact",
        &"semantic",
        &"verified",
        &"wrong",
        &"checked",
        &"wrong of semantic, measured",
    ];
    writeln!(f, "{}", LEARNING.line("", &columns))?;
    let mut before = 0;
    for block in &curve.blocks {
        let until = before + block.requests;
        write_block(f, &format!("{}–{until}", before + 1), block)?;
        before = until;
    }
    write_block(f, "all", &curve.all)?;
    writeln!(
        f,
        "\n  possible: an earlier request has the answer; verified: semantic hits that the verifier approved;\n  \
         checked: the model was asked too, in the background"
    )?;
    writeln!(
        f,
        "  wrong in truth: {} of these requests (budget {}), {} of the semantic hits (budget {})",
        Percent(curve.error_rate),
        Percent(curve.max_error_rate),
        Percent(curve.wrong_hits),
        Percent(curve.max_wrong_hits)
    )
}

fn write_block(f: &mut Formatter<'_>, name: &str, block: &Block) -> fmt::Result {
    let Block { possible, exact, semantic, verified, wrong, checked, measured, .. } = block;
    let measured = measured.as_ref().map_or_else(String::new, interval);
    let columns: [&dyn Display; 7] = [possible, exact, semantic, verified, wrong, checked, &measured];
    writeln!(f, "{}", LEARNING.line(format_args!("  {name}"), &columns))
}

fn write_pairs(f: &mut Formatter<'_>, title: &str, all: &[Pair]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let shown = selection(all);
    let rest = match all.len() - shown.len() {
        0 => String::new(),
        _ => format!(" ({} of {})", shown.len(), all.len()),
    };
    writeln!(f, "\n{title}{rest}")?;
    for pair in shown {
        let similarity = pair.similarity.map_or_else(String::new, |s| format!("{s:.3}"));
        writeln!(f, "  {similarity:>5}  asked    {}", excerpt(&pair.asked))?;
        writeln!(f, "         earlier  {}", excerpt(&pair.earlier))?;
        if !pair.reason.is_empty() {
            writeln!(f, "         {}", pair.reason)?;
        }
    }
    Ok(())
}

fn write_same_words(f: &mut Formatter<'_>, all: &[SameWords]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nSame words, another context, rightly refused")?;
    for SameWords { asked, namespace, earlier_namespace, .. } in all.iter().take(PAIRS_SHOWN) {
        writeln!(f, "         asked    {}", excerpt(asked))?;
        match namespace == earlier_namespace {
            true => writeln!(f, "         earlier  in another conversation of {namespace}")?,
            false => writeln!(f, "         earlier  in {earlier_namespace}, now in {namespace}")?,
        }
    }
    Ok(())
}

/// Chooses the first few distinct pairs, in order, but only a few of one kind while there are others.
fn selection(all: &[Pair]) -> Vec<&Pair> {
    let kind =
        |pair: &Pair| if pair.reason.is_empty() { pair.namespace.clone() } else { pair.reason.clone() };
    let mut chosen: Vec<usize> = Vec::new();
    for limit in [PAIRS_PER_KIND, usize::MAX] {
        for (i, pair) in all.iter().enumerate() {
            let seen = chosen.iter().any(|&c| all[c].asked == pair.asked && all[c].earlier == pair.earlier);
            let alike = chosen.iter().filter(|&&c| kind(&all[c]) == kind(pair)).count();
            if chosen.len() < PAIRS_SHOWN && alike < limit && !seen {
                chosen.push(i);
            }
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|i| &all[i]).collect()
}

/// Returns the beginning of a prompt, on one line.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= EXCERPT {
        return line;
    }
    let cut: String = line.chars().take(EXCERPT - 1).collect();
    format!("{}…", cut.trim_end())
}

fn cells(times: Option<Percentiles>) -> [String; 2] {
    times.map_or_else(|| ["–", "–"].map(str::to_owned), |times| [times.p50_ms, times.p99_ms].map(millis))
}

/// Shows three or four digits, so that fast and slow are easy to tell apart.
fn millis(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

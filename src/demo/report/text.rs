//! The report for a terminal of 100 columns.

use std::fmt::{self, Display, Formatter};

use super::{Block, Count, Learned, Pair, Percentiles, Report, SameWords};

/// Characters of a prompt that fit beside the indentation.
const EXCERPT: usize = 80;

/// Pairs shown of each kind; the rest is counted.
const PAIRS_SHOWN: usize = 4;

/// Pairs of one reason, or without a reason of one application, shown before others get their turn.
const PAIRS_PER_KIND: usize = 2;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.outcomes(f)?;
        self.money(f)?;
        self.learned.iter().try_for_each(|learned| self::learned(f, learned))?;
        self.truth(f)
    }
}

// === impl Report ===

impl Report {
    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { requests, applications, elapsed_seconds, .. } = self;
        writeln!(f, "{requests} requests of {applications} applications in {elapsed_seconds:.0} s")?;
        writeln!(
            f,
            "Real cache, embedding, gRPC and disk; the models, their delays and tokens are simulated."
        )
    }

    fn outcomes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        title(f, "How they were answered")?;
        writeln!(
            f,
            "  {:<12}{:>9}{:>9}   {:>11}{:>11}   {:>14}{:>11}",
            "", "requests", "share", "latency p50", "p99", "1st token p50", "p99"
        )?;
        for line in &self.outcomes {
            let share = percent(line.share);
            write!(f, "  {:<12}{:>9}{share:>9}   ", line.outcome, line.requests)?;
            write!(f, "{}   ", Columns(Some(line.latency), 11))?;
            writeln!(f, "{}", Columns(line.first_token, 14))?;
        }
        writeln!(f, "\n  {} of all requests needed no model call of their own", percent(self.hit_ratio))?;
        names(f, "asked a model because", &self.misses)?;
        names(f, "failed with", &self.failures)
    }

    fn money(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let money = &self.money;
        let without_cache = money.spent_usd + money.saved_usd;
        let saved_share = if without_cache > 0.0 { money.saved_usd / without_cache } else { 0.0 };
        let saved = format!("saved by the cache ({} of the bill)", percent(saved_share));
        let hot = format!("{} for everything, no cache", money.hot_model);
        title(f, "Money, by the catalog's prices")?;
        writeln!(f, "  {:<44}{:>10}{:>28}", "", "this run", "per million such requests")?;
        for (what, usd) in
            [("spent on models", money.spent_usd), (&saved, money.saved_usd), (&hot, money.hot_only_usd)]
        {
            let per_million = usd / self.requests.max(1) as f64 * 1e6;
            writeln!(f, "  {what:<44}{:>10}{:>28}", format!("${usd:.4}"), format!("${per_million:.0}"))?;
        }
        Ok(())
    }

    fn truth(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let truth = &self.truth;
        title(f, "Held against the ground truth")?;
        writeln!(f, "  {:>4} of {} answers right", truth.answered_rightly, self.requests)?;
        writeln!(f, "  {:>4} wrong hits", truth.wrong_hits.len())?;
        writeln!(f, "  {:>4} paraphrases answered from the cache", truth.paraphrases_hit.len())?;
        writeln!(
            f,
            "  {:>4} paraphrases not recognised, at the price of a call",
            truth.paraphrases_missed.len()
        )?;
        writeln!(f, "  {:>4} near misses rightly refused", truth.near_misses_refused.len())?;
        let same_words = truth.same_words_refused.len();
        writeln!(f, "  {same_words:>4} times the same words in another context, rightly refused")?;
        pairs(f, "Wrong hits", &truth.wrong_hits)?;
        pairs(f, "Paraphrases answered from the cache", &truth.paraphrases_hit)?;
        pairs(f, "Near misses rightly refused", &truth.near_misses_refused)?;
        same_words_pairs(f, &truth.same_words_refused)?;
        pairs(f, "Paraphrases not recognised", &truth.paraphrases_missed)
    }
}

fn learned(f: &mut Formatter<'_>, learned: &Learned) -> fmt::Result {
    let Learned { namespace, blocks, error_rate, max_error_rate, wrong_hits, max_wrong_hits } = learned;
    title(f, &format!("How it learned: the requests of {namespace}, in their order"))?;
    writeln!(
        f,
        "  {:<12}{:>9}{:>10}{:>10}{:>7}{:>9}   {:>27}",
        "", "possible", "exact", "semantic", "wrong", "checked", "wrong of semantic, measured"
    )?;
    let mut before = 0;
    for block in blocks {
        let until = before + block.requests;
        block_line(f, &format!("{}–{until}", before + 1), block)?;
        before = until;
    }
    block_line(f, "all", &Block::sum(blocks))?;
    writeln!(
        f,
        "\n  possible: an earlier request has the answer; checked: the model was asked too, in the background"
    )?;
    writeln!(
        f,
        "  wrong in truth: {} of these requests (budget {}), {} of the semantic hits (budget {})",
        percent(*error_rate),
        percent(*max_error_rate),
        percent(*wrong_hits),
        percent(*max_wrong_hits)
    )
}

fn block_line(f: &mut Formatter<'_>, name: &str, block: &Block) -> fmt::Result {
    let Block { possible, exact, semantic, wrong, checked, measured, .. } = block;
    let measured = measured.map_or_else(String::new, |measured| {
        let [rate, low, high] = [measured.rate, measured.low, measured.high].map(|share| 100.0 * share);
        format!("{rate:.1} % ({low:.1} to {high:.1})")
    });
    let line =
        format!("  {name:<12}{possible:>9}{exact:>10}{semantic:>10}{wrong:>7}{checked:>9}   {measured:>27}");
    writeln!(f, "{}", line.trim_end())
}

fn title(f: &mut Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "\n{title}")
}

/// One line: `what: name 3, name 2`.
fn names(f: &mut Formatter<'_>, what: &str, counts: &[Count]) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = counts.iter().map(|count| format!("{} {}", count.name, count.count)).collect();
    writeln!(f, "{}", wrapped(&format!("  {what}: "), &all))
}

/// Joins `items` by commas, breaking lines at 98 columns.
fn wrapped(start: &str, items: &[String]) -> String {
    let mut text = start.to_owned();
    let mut column = text.len();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            let fits = column + item.len() <= 96;
            text.push_str(if fits { ", " } else { ",\n    " });
            column = if fits { column + 2 } else { 4 };
        }
        text.push_str(item);
        column += item.len();
    }
    text
}

fn pairs(f: &mut Formatter<'_>, what: &str, all: &[Pair]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let shown = selection(all);
    let rest = match all.len() - shown.len() {
        0 => String::new(),
        _ => format!(" ({} of {})", shown.len(), all.len()),
    };
    title(f, &format!("{what}{rest}"))?;
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

fn same_words_pairs(f: &mut Formatter<'_>, all: &[SameWords]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    title(f, "Same words, another context, rightly refused")?;
    for SameWords { asked, namespace, earlier_namespace, .. } in all.iter().take(PAIRS_SHOWN) {
        writeln!(f, "         asked    {}", excerpt(asked))?;
        match namespace == earlier_namespace {
            true => writeln!(f, "         earlier  in another conversation of {namespace}")?,
            false => writeln!(f, "         earlier  in {earlier_namespace}, now in {namespace}")?,
        }
    }
    Ok(())
}

/// The first few distinct pairs, in order, but only a few of one kind while there are others.
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

/// The beginning of a prompt on one line.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= EXCERPT {
        return line;
    }
    let cut: String = line.chars().take(EXCERPT - 1).collect();
    format!("{}…", cut.trim_end())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Two right-aligned columns, the first this wide; blank without times.
struct Columns(Option<Percentiles>, usize);

impl Display for Columns {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(times, width) = *self;
        let cell =
            |ms: fn(&Percentiles) -> f64| times.as_ref().map_or_else(|| "–".to_owned(), |t| millis(ms(t)));
        write!(f, "{:>width$}{:>11}", cell(|t| t.p50_ms), cell(|t| t.p99_ms))
    }
}

/// Three digits at most, so that fast and slow are told apart at a glance.
fn millis(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

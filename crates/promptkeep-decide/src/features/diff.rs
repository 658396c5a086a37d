//! The difference of two texts, word by word. All lengths count words.

use crate::{
    lexicon,
    overlap::dice,
    similar::{is_typo, is_variant},
    text::Analysis,
    word::Word,
};

/// Maximum length of a sequence that is aligned; words beyond it count as different.
const ALIGN_MAX: usize = 48;

/// The words that two texts share, and the words that only one of them has.
pub struct Diff<'t> {
    new: &'t Analysis,
    entry: &'t Analysis,
    /// Content words of the new text that the entry lacks. Excludes words of which the entry has a variant.
    pub only_new: Vec<&'t Word>,
    /// Content words of the entry that the new text lacks, likewise.
    pub only_entry: Vec<&'t Word>,
    /// Number of content words that both have.
    pub shared: usize,
    /// Number of the shared words that are variants of each other.
    pub spelled_alike: usize,
    /// Number of words before the first difference and after the last one.
    prefix: usize,
    suffix: usize,
}

impl<'t> Diff<'t> {
    /// Compares two texts.
    pub fn of(new: &'t Analysis, entry: &'t Analysis) -> Self {
        let mut only_new: Vec<_> = new.content_lacking_in(entry).collect();
        let mut only_entry: Vec<_> = entry.content_lacking_in(new).collect();
        let shared = new.content().count() - only_new.len();
        let spelled_alike = drop_variants(new, &mut only_new, entry, &mut only_entry);
        let same = |(a, b): &(&Word, &Word)| a.hash == b.hash;
        let prefix = new.words.iter().zip(&entry.words).take_while(same).count();
        let most = new.words.len().min(entry.words.len()) - prefix;
        let suffix = new.words.iter().rev().zip(entry.words.iter().rev()).take(most).take_while(same).count();
        Self {
            new,
            entry,
            only_new,
            only_entry,
            shared: shared + spelled_alike,
            spelled_alike,
            prefix,
            suffix,
        }
    }

    /// Returns the words between the common prefix and the common suffix, of the new text and of the entry.
    pub fn middle(&self) -> (&'t [Word], &'t [Word]) {
        let cut = |words: &'t [Word]| &words[self.prefix..words.len() - self.suffix];
        (cut(&self.new.words), cut(&self.entry.words))
    }

    /// Returns the length of the longest common subsequence as a fraction of the mean length.
    pub fn subsequence(&self) -> f32 {
        let (a, b) = self.middle();
        let total = self.new.words.len() + self.entry.words.len();
        if total == 0 {
            return 1.0;
        }
        let common = self.prefix + self.suffix + subsequence(a, b);
        2.0 * common as f32 / total as f32
    }

    /// Returns the fraction of pairs of neighbouring words that both texts have.
    pub fn bigrams(&self) -> f32 {
        let (a, b) = (&self.new.words, &self.entry.words);
        if a.len() < 2 || b.len() < 2 {
            return f32::from(u8::from(a.len() == b.len() && self.middle().0.is_empty()));
        }
        let (middle_a, middle_b) = self.middle();
        let around = self.prefix.saturating_sub(1) + self.suffix.saturating_sub(1);
        let pairs = |words: &'t [Word]| words.windows(2).take(ALIGN_MAX);
        let found = pairs(middle_a)
            .filter(|x| pairs(middle_b).any(|y| x[0].hash == y[0].hash && x[1].hash == y[1].hash))
            .count();
        2.0 * (around + found) as f32 / (a.len() + b.len() - 2) as f32
    }

    /// Returns the fraction of pairs of shared content words that have the opposite order.
    pub fn inversions(&self) -> f32 {
        let (a, b) = self.middle();
        let mut positions = [0_usize; ALIGN_MAX];
        let mut n = 0;
        for word in a.iter().filter(|w| w.is_content()).take(ALIGN_MAX) {
            if let Some(position) = b.iter().position(|v| v.stem == word.stem) {
                positions[n] = position;
                n += 1;
            }
        }
        if n < 2 {
            return 0.0;
        }
        let positions = &positions[..n];
        let inverted: usize =
            (0..n).map(|i| positions[i + 1..].iter().filter(|p| **p < positions[i]).count()).sum();
        inverted as f32 / (n * (n - 1) / 2) as f32
    }

    /// Whether the texts have equal words in equal order. Ignores case, marks, politeness, contractions and spelling.
    pub fn is_surface(&self) -> bool {
        let plain = |text: &'t Analysis| text.words.iter().filter(|w| !w.info.has(lexicon::FILLER));
        let (mut a, mut b) = (plain(self.new), plain(self.entry));
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(x), Some(y)) if x.hash == y.hash => {}
                (Some(x), Some(y)) if x.is_content() && y.is_content() => {
                    if !is_typo(self.new.str(x), self.entry.str(y)) {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }
}

/// Removes pairs of variants from both lists and returns their number.
fn drop_variants<'t>(
    new: &Analysis,
    a: &mut Vec<&'t Word>,
    entry: &Analysis,
    b: &mut Vec<&'t Word>,
) -> usize {
    let before = a.len();
    if before > ALIGN_MAX || b.len() > ALIGN_MAX {
        return 0;
    }
    a.retain(|x| {
        let found = b.iter().position(|y| {
            let topic = x.info.topic > 0 && x.info.topic == y.info.topic && x.info.flags == y.info.flags;
            topic || is_variant(new.str(x), entry.str(y))
        });
        if let Some(position) = found {
            b.swap_remove(position);
        }
        found.is_none()
    });
    before - a.len()
}

/// Returns the length of the longest common subsequence.
fn subsequence(a: &[Word], b: &[Word]) -> usize {
    let (a, b) = (&a[..a.len().min(ALIGN_MAX)], &b[..b.len().min(ALIGN_MAX)]);
    let mut lengths = [0_u8; ALIGN_MAX + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if x.stem == y.stem { diagonal + 1 } else { above.max(lengths[j]) };
            diagonal = above;
        }
    }
    usize::from(lengths[b.len()])
}

/// Returns the Dice coefficient of the letter trigrams of two word sequences; 1 for two empty ones.
pub fn trigrams(a: &[Word], lower_a: &str, b: &[Word], lower_b: &str) -> f32 {
    dice(&grams(a, lower_a), &grams(b, lower_b))
}

/// Returns the sorted letter trigrams of the first [`ALIGN_MAX`] words.
fn grams(words: &[Word], lower: &str) -> Vec<u32> {
    let words = &words[..words.len().min(ALIGN_MAX)];
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return Vec::new() };
    let bytes = &lower.as_bytes()[first.start as usize..last.end as usize];
    let pad = [b' '].iter().chain(bytes).chain(b" ").copied().collect::<Vec<u8>>();
    let mut grams: Vec<u32> =
        pad.windows(3).map(|w| u32::from(w[0]) << 16 | u32::from(w[1]) << 8 | u32::from(w[2])).collect();
    grams.sort_unstable();
    grams
}

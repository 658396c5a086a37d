//! Whether two words are one word spelled differently.

/// Longest word whose spelling is compared, bytes.
const WORD_MAX: usize = 32;
/// Shortest word in which one wrong letter is taken for a typing mistake.
const TYPO_MIN: usize = 5;

/// Whether one is the other with a typing mistake or a derived ending: "perccent", "Indian".
pub fn is_variant(a: &str, b: &str) -> bool {
    is_typo(a, b) || is_derived(a, b)
}

/// One letter added, left out, replaced, or two neighbours exchanged; never the first letter.
pub fn is_typo(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if short.len() < TYPO_MIN || long.len() > WORD_MAX || long.len() - short.len() > 1 {
        return false;
    }
    let (short, long) = (short.as_bytes(), long.as_bytes());
    let same = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    if same == 0 {
        return false;
    }
    let (s, l) = (&short[same..], &long[same..]);
    if s.len() < l.len() {
        return s == &l[1..];
    }
    let exchanged = s.len() > 1 && s[0] == l[1] && s[1] == l[0] && s[2..] == l[2..];
    s.is_empty() || s[1..] == l[1..] || exchanged
}

/// "German" and "Germany", "Italy" and "Italian": all but the end of the shorter is common.
fn is_derived(a: &str, b: &str) -> bool {
    let common = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let (short, long) = (a.len().min(b.len()), a.len().max(b.len()));
    common >= 4 && common + 1 >= short && long - common <= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_and_derived_forms_are_variants() {
        for (a, b) in
            [("percent", "perccent"), ("office", "offcie"), ("heater", "heter"), ("germany", "german")]
        {
            assert!(is_variant(a, b), "{a} {b}");
            assert!(is_variant(b, a), "{b} {a}");
        }
    }

    #[test]
    fn other_words_are_not() {
        for (a, b) in [("rome", "home"), ("paris", "basel"), ("austria", "australia"), ("", "a")] {
            assert!(!is_variant(a, b), "{a} {b}");
        }
    }
}

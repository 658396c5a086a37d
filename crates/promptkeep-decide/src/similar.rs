//! Whether two words are spellings or forms of one word.

/// Maximum length of a word whose spelling is compared, bytes.
const WORD_BYTES_MAX: usize = 32;
/// Minimum length of a word in which one wrong letter counts as a typing mistake, bytes.
const TYPO_BYTES_MIN: usize = 5;

/// Whether one word is the other with a typing mistake ("perccent") or a derived ending ("Indian").
pub fn is_variant(a: &str, b: &str) -> bool {
    is_typo(a, b) || is_derived(a, b)
}

/// Whether the words differ by one letter added, left out or replaced, or by two exchanged neighbours. The first
/// letter must be equal.
pub fn is_typo(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if short.len() < TYPO_BYTES_MIN || long.len() > WORD_BYTES_MAX || long.len() - short.len() > 1 {
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

/// Whether the words share all but their endings: "German" and "Germany", "Italy" and "Italian".
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
    fn different_words_are_not_variants() {
        for (a, b) in [("rome", "home"), ("paris", "basel"), ("austria", "australia"), ("", "a")] {
            assert!(!is_variant(a, b), "{a} {b}");
        }
    }
}

use super::{is_variant, same_marks};
use crate::{rarity::Rarity, table::Table};

/// Number of random texts per property.
const ROUNDS: usize = 2000;

fn rarity() -> Rarity {
    Table::embedded().unwrap().rarity.clone()
}

/// Pairs of texts, one a line: whether they are variants, and the two texts, with `\n`, `\t`, `\\` and `\u{…}`.
const PAIRS: &str = include_str!("pairs.tsv");

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let (c, left) = after.split_at(1);
        rest = left;
        match c {
            "n" => plain.push('\n'),
            "r" => plain.push('\r'),
            "t" => plain.push('\t'),
            "u" => {
                let (code, left) = left[1..].split_once('}').unwrap();
                plain.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
                rest = left;
            }
            other => plain.push_str(other),
        }
    }
    plain + rest
}

fn pairs(wanted: &str) -> Vec<(String, String)> {
    let rows = PAIRS.lines().filter(|line| !line.is_empty() && !line.starts_with("//"));
    let cells = rows.map(|line| line.split('\t').collect::<Vec<_>>());
    let pair = |row: Vec<&str>| {
        assert_eq!(row.len(), 3, "{row:?}");
        (row[0] == wanted).then(|| (unescape(row[1]), unescape(row[2])))
    };
    cells.filter_map(pair).collect()
}

fn failing(wanted: &str, holds: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let wrong = pairs(wanted).into_iter().filter(|(a, b)| !(holds(a, b) && holds(b, a)));
    wrong.map(|(a, b)| format!("{a:?} / {b:?}")).collect()
}

#[test]
fn the_table_has_enough_pairs_of_both_kinds() {
    assert!(pairs("variant").len() >= 200, "{}", pairs("variant").len());
    assert!(pairs("different").len() >= 200, "{}", pairs("different").len());
}

#[test]
fn variants_are_recognised_in_both_directions() {
    let rarity = rarity();
    let wrong = failing("variant", |a, b| is_variant(a, b, &rarity));
    assert!(wrong.is_empty(), "{} are no variants:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn different_texts_are_never_variants() {
    let rarity = rarity();
    let wrong = failing("different", |a, b| !is_variant(a, b, &rarity));
    assert!(wrong.is_empty(), "{} are variants:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_text_is_a_variant_of_itself_and_of_its_composed_form() {
    let rarity = rarity();
    for (a, b) in pairs("variant").into_iter().chain(pairs("different")) {
        for text in [a, b] {
            let decomposed =
                icu_normalizer::DecomposingNormalizerBorrowed::new_nfd().normalize(&text).into_owned();
            for other in [&text, &decomposed] {
                assert!(is_variant(&text, other, &rarity) && same_marks(&text, other), "{text:?}");
            }
        }
    }
}

const WORDS: [&str; 24] = [
    "what",
    "is",
    "the",
    "best",
    "way",
    "to",
    "improve",
    "spoken",
    "language",
    "skills",
    "in",
    "winter",
    "while",
    "living",
    "near",
    "mountains",
    "and",
    "valleys",
    "with",
    "many",
    "different",
    "topics",
    "from",
    "school",
];

/// Returns a random sentence of common words.
fn sentence(random: &mut fastrand::Rng) -> Vec<&'static str> {
    (0..random.usize(3..14)).map(|_| WORDS[random.usize(..WORDS.len())]).collect()
}

#[test]
fn sentences_in_another_case_are_variants() {
    let (rarity, mut random) = (rarity(), fastrand::Rng::with_seed(1));
    for _ in 0..ROUNDS {
        let text = sentence(&mut random).join(" ");
        let mut capital = text.clone();
        capital[..1].make_ascii_uppercase();
        for other in [text.to_uppercase(), capital.clone(), format!("{capital}?"), format!(" {text} .")] {
            assert!(is_variant(&text, &other, &rarity), "{text:?} / {other:?}");
        }
    }
}

/// Words and marks of which every one changes a text.
const CONTENT: [&str; 44] = [
    "+", "=", "*", "/", "<", ">", "%", "^", "&", "|", "~", "$", "€", "#", "@", "_", "\\", "[", "]", "{", "}",
    "-5", "7", "0", "42", "1.5", "(", ")", "😀", "👍🏽", "→", "½", "not", "no", "never", "without", "cannot",
    "nothing", "\u{200b}", "\u{202e}", "\u{ad}", ",", ";", ":",
];

#[test]
fn a_symbol_digit_sign_or_negation_added_removed_or_replaced_makes_another_text() {
    let (rarity, mut random) = (rarity(), fastrand::Rng::with_seed(2));
    for _ in 0..4 * ROUNDS {
        let words = sentence(&mut random);
        let at = random.usize(..=words.len());
        let mark = CONTENT[random.usize(..CONTENT.len())];
        let other = CONTENT[random.usize(..CONTENT.len())];
        let gap = if random.bool() { " " } else { "" };
        let (before, after) = (words[..at].join(" "), words[at..].join(" "));
        let text = |mark: &str| format!("{before}{gap}{mark} {after}").trim().to_owned();
        let (plain, with) = (text(" "), text(mark));
        assert!(!is_variant(&plain, &with, &rarity), "{plain:?} / {with:?}");
        assert!(!is_variant(&with, &plain, &rarity), "{with:?} / {plain:?}");
        if mark != other {
            assert!(!is_variant(&with, &text(other), &rarity), "{with:?} / {:?}", text(other));
        }
    }
}

/// Returns random text of a few characters that often occur, or of any bytes.
fn noise(random: &mut fastrand::Rng) -> String {
    const PIECES: [&str; 32] = [
        "a", "I", "us", "US", " ", " ", "\n", "\t", "'", "’", "s", "n't", ".", "?", "!", "…", "-", "—", "(",
        ")", "5", "1.5", "é", "e\u{301}", "ß", "日本", "😀", "\u{200d}", "please", "thanks", "`", "ς",
    ];
    if random.bool() {
        return (0..random.usize(..12)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
    }
    let bytes: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn comparisons_of_noise_are_symmetric_and_reflexive_and_never_panic() {
    let (rarity, mut random) = (rarity(), fastrand::Rng::with_seed(3));
    for _ in 0..10 * ROUNDS {
        let (a, b) = (noise(&mut random), noise(&mut random));
        assert_eq!(is_variant(&a, &b, &rarity), is_variant(&b, &a, &rarity), "{a:?} / {b:?}");
        assert_eq!(same_marks(&a, &b), same_marks(&b, &a), "{a:?} / {b:?}");
        assert!(is_variant(&a, &format!(" {a}"), &rarity) || a.trim() != a, "{a:?}");
    }
}

#[test]
fn enormous_texts_are_compared_in_linear_time() {
    let rarity = rarity();
    for piece in ["a", " ", "- ", "(", "5\"", "'", "don't ", "日", "e\u{301}", "\u{0}", ". "] {
        let bytes = if piece == "don't " { 8_000_000 } else { 100_000 };
        let text = piece.repeat(bytes / piece.len());
        let other = format!("{text}x");
        assert!(!is_variant(&text, &other, &rarity), "{piece:?}");
        same_marks(&text, &other);
    }
    let long = "What is  this? ".repeat(1000);
    assert!(is_variant(&long, &long.replace("  ", " "), &rarity));
    assert!(!is_variant(&long, &long.to_uppercase(), &rarity));
}

#[test]
fn marks_of_paraphrases_agree_without_prose_punctuation() {
    for (a, b) in [
        ("How do I reset my password?", "Password reset: how?"),
        ("Is it well-known (by experts), and/or loved?", "Do experts know it, and is it loved"),
        ("What's the dog's name", "name of the dog"),
        ("He said “stop” – twice…", "twice, he said 'stop'"),
        ("What is 1,000 plus 2", "add 2 to 1000"),
        ("¿Dónde está la estación?", "¿Cómo llego a la estación?"),
        ("In 1998, who won (in France)?", "who won in 1998"),
        ("Convert 5% to a fraction", "what is 5% as a fraction"),
        ("how old is “Tom 2”?", "how old is Tom 2"),
    ] {
        assert!(same_marks(a, b) && same_marks(b, a), "{a:?} / {b:?}");
    }
}

#[test]
fn texts_with_other_marks_are_told_apart() {
    for (a, b) in [
        ("2 + 2", "2 - 2"),
        ("2 - 2", "2 2"),
        ("What is -5 plus 3", "What is 5 plus 3"),
        ("1.5 litres", "15 litres"),
        ("1.5 litres", "1,5 litres"),
        (".5 mg", "5 mg"),
        ("5 %", "5"),
        ("$5", "€5"),
        ("great 😀", "great 😢"),
        ("great 😀", "great"),
        ("[0-9]+", "[0-9]*"),
        ("a.*b", "a*b"),
        ("colou?r", "colour"),
        ("f(x)", "f x"),
        ("(2+3)*4", "2+3*4"),
        ("ls -v", "ls -V"),
        ("ls -v", "ls v"),
        ("rm --force", "rm force"),
        ("C++ lists", "C lists"),
        ("C# lists", "C lists"),
        ("5! is what", "5 is what"),
        ("x != y", "x = y"),
        ("6' tall", "6\" tall"),
        ("tengo un año", "tengo un ano"),
        ("das ist schön", "ist das schon so"),
        ("दिन में", "दीन में"),
        ("今天天气", "今天天津"),
        ("ไกล", "ใกล้"),
        ("user_name", "user name"),
        ("x²", "x2"),
        ("50 °C", "50 C"),
        ("great :)", "great :("),
    ] {
        assert!(!same_marks(a, b) && !same_marks(b, a), "{a:?} / {b:?}");
    }
}

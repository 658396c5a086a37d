//! Tests of the analysis of single texts.

use super::*;

fn numbers(text: &str) -> Vec<f64> {
    Analysis::of(text).quantities.iter().map(|q| q.value).collect()
}

fn dates(text: &str) -> Vec<Date> {
    Analysis::of(text).dates
}

#[test]
fn numbers_are_parsed_in_words_and_digits() {
    assert_eq!(numbers("two thousand and 30.50, 1,000 or 3,5"), [2000.0, 30.5, 1000.0, 3.5]);
    assert_eq!(numbers("forty two, 10k, 2M, the 3rd, seventh"), [42.0, 10_000.0, 2e6, 3.0, 7.0]);
}

#[test]
fn the_word_one_alone_is_not_a_number() {
    assert!(numbers("which one is the best one").is_empty());
}

#[test]
fn a_unit_belongs_to_its_number() {
    let text = Analysis::of("5km and 7 miles");
    assert_eq!(text.quantities.len(), 2);
    assert!(text.quantities.iter().all(|q| q.unit > 0));
    assert_ne!(text.quantities[0].unit, text.quantities[1].unit);
}

#[test]
fn all_notations_of_a_date_are_parsed_alike() {
    let day = Date { year: 2024, month: 1, day: 5, ..Date::default() };
    for form in ["Jan 5 2024", "January 5th, 2024", "5 January 2024", "the 5th of January 2024", "2024-01-05"]
    {
        assert_eq!(dates(form), [day], "{form}");
    }
    assert!(dates("01/05/2024")[0].same(&day));
    assert!(dates("05/01/2024")[0].same(&day));
    assert_eq!(dates("you may march on"), []);
}

#[test]
fn times_are_minutes_after_midnight_plus_one() {
    let at = |time| [Date { time, ..Date::default() }];
    assert_eq!(dates("at 3pm"), at(901));
    assert_eq!(dates("at 15:00"), at(901));
    assert_eq!(dates("at 12:30 AM"), at(31));
}

#[test]
fn contractions_are_expanded() {
    let text = Analysis::of("What's wrong, why can't I? Don't!");
    assert_eq!(text.lower, "what is wrong why can not i do not");
    assert_eq!(text.negations, 2);
}

#[test]
fn english_is_detected_by_its_function_words() {
    assert!(Analysis::of("how do I get to Berlin").english);
    assert!(!Analysis::of("wie komme ich nach Berlin").english);
    assert!(!Analysis::of("Москва").english);
}

#[test]
fn quotations_are_found_in_any_marks() {
    let text = Analysis::of("say 'Good day', “Hi there” and `fn main`; don't quote it's 'rock 'n' roll'");
    assert_eq!(text.quoted[..3], ["good day", "hi there", "fn main"]);
}

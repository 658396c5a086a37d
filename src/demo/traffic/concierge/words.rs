//! The words of the concierge's traffic. `{a}`, `{b}` and `{city}` are a question's own; the other placeholders
//! are facts of one house.

/// A way of asking, and what there is to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Opens,
    Closes,
    Price,
    Where,
    Way,
    May,
}

/// Something to ask about.
pub struct Subject {
    pub id: &'static str,
    pub kind: Kind,
    /// For `{a}` and `{b}`.
    pub slots: [&'static str; 2],
}

/// The most popular first.
pub const CITIES: [&str; 10] =
    ["Vienna", "Lisbon", "Oslo", "Prague", "Dublin", "Athens", "Ghent", "Turin", "Riga", "Seville"];

/// The most popular first; near misses of one another in every neighbourhood.
pub const SUBJECTS: [Subject; 36] = [
    of("pool-opens", Kind::Opens, "pool"),
    of("pool-closes", Kind::Closes, "pool"),
    way("from-airport", "the airport", "the {city} house"),
    way("to-airport", "the {city} house", "the airport"),
    of("late-check-out", Kind::Price, "a late check-out"),
    of("early-check-in", Kind::Price, "an early check-in"),
    of("nearest-pharmacy", Kind::Where, "nearest pharmacy"),
    of("dog", Kind::May, "bring a dog"),
    of("parking-night", Kind::Price, "parking for one night"),
    of("parking-week", Kind::Price, "parking for a week"),
    of("best-restaurant", Kind::Where, "best restaurant"),
    of("cheapest-restaurant", Kind::Where, "cheapest restaurant"),
    of("gym-opens", Kind::Opens, "gym"),
    of("bar-closes", Kind::Closes, "bar"),
    of("luggage-after", Kind::May, "leave luggage after check-out"),
    of("luggage-before", Kind::May, "leave luggage before check-in"),
    way("from-station", "the railway station", "the {city} house"),
    way("to-station", "the {city} house", "the railway station"),
    of("breakfast-child", Kind::Price, "breakfast for a child"),
    of("breakfast-adult", Kind::Price, "breakfast for an adult"),
    of("nearest-supermarket", Kind::Where, "nearest supermarket"),
    of("cheapest-supermarket", Kind::Where, "cheapest supermarket"),
    of("cancel-same-day", Kind::May, "cancel on the day of arrival"),
    of("cancel-day-before", Kind::May, "cancel one day before arrival"),
    of("bar-opens", Kind::Opens, "bar"),
    of("gym-closes", Kind::Closes, "gym"),
    of("extra-bed", Kind::Price, "an extra bed"),
    of("baby-cot", Kind::Price, "a baby cot"),
    of("smoke-balcony", Kind::May, "smoke on the balcony"),
    of("smoke-room", Kind::May, "smoke in the room"),
    of("sauna-opens", Kind::Opens, "sauna"),
    of("sauna-closes", Kind::Closes, "sauna"),
    way("airport-station", "the airport", "the railway station in {city}"),
    way("station-airport", "the railway station in {city}", "the airport"),
    of("best-bakery", Kind::Where, "best bakery"),
    of("bike-day", Kind::Price, "a rental bike for one day"),
];

/// Before a question.
pub const GREETINGS: [&str; 4] = ["Hi, ", "Hello, ", "Good morning, ", "Quick question: "];

/// What differs between houses and subjects, by its placeholder.
pub const FACTS: [(&str, &[&str]); 11] = [
    (
        "{time}",
        &["half past six", "7:15", "eight", "9:45", "ten", "half past eleven", "16:20", "19:30", "22:10"],
    ),
    ("{price}", &["7 euros", "twelve euros", "18 euros", "23 euros", "thirty euros", "41 euros", "56 euros"]),
    (
        "{street}",
        &["Mill Lane", "Abbey Row", "Copper Street", "Fishmarket", "Linden Alley", "Old Quay", "Tower Hill"],
    ),
    (
        "{line}",
        &["bus 4", "tram 11", "the S2 train", "the green metro", "night bus 60", "the ferry", "tram 27"],
    ),
    ("{minutes}", &["six", "nine", "14", "seventeen", "25", "33", "forty"]),
    (
        "{may}",
        &["Yes, guests may", "Sorry, nobody may", "With pleasure, you may", "Unfortunately you may not"],
    ),
    ("{name}", &["Marta", "Anton", "Ines", "Pavel", "Sofia", "Declan", "Eleni", "Joris", "Chiara", "Edgar"]),
    ("{language}", &["Dutch", "Greek", "Polish", "Spanish", "German", "French", "Latvian", "Danish"]),
    ("{colour}", &["green", "amber", "violet", "white", "scarlet", "blue", "silver", "brown"]),
    (
        "{spot}",
        &["lift", "fountain", "library", "palm tree", "mailbox", "piano", "terrace door", "cloakroom"],
    ),
    ("{day}", &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]),
];

/// What an answer adds, each in a few phrasings that share most of their words.
pub const DETAILS: [&[&str]; 30] = [
    &[
        "{name} at reception speaks {language} and arranges everything.",
        "Reception's {name}, who speaks {language}, arranges everything.",
    ],
    &["Follow {colour} arrows past our {spot}.", "Past our {spot}, just follow {colour} arrows."],
    &[
        "Every {day} a market blocks that side, so allow extra minutes.",
        "Allow extra minutes each {day}, as a market blocks that side.",
    ],
    &["Key cards unlock it; keep yours handy.", "Keep your key card handy, since cards unlock it."],
    &[
        "Dial {minutes} from any phone if something seems unclear.",
        "If something seems unclear, dial {minutes} from any phone.",
    ],
    &["Printed maps hang beside the {spot}.", "Beside the {spot} hang printed maps."],
    &[
        "Students and pensioners receive ten percent discount.",
        "Ten percent discount goes to students and pensioners.",
    ],
    &[
        "Heavy rain sometimes causes delays, particularly on {day}.",
        "Particularly on {day}, heavy rain sometimes causes delays.",
    ],
    &[
        "Families love this, especially with toddlers.",
        "This is what families love, especially with toddlers.",
    ],
    &["Staff wear {colour} badges there.", "There, staff wear {colour} badges."],
    &[
        "Book online before {day}, groups fill up quickly.",
        "Groups fill up quickly: book online before {day}.",
    ],
    &["Wheelchairs enter through {street}.", "Through {street} wheelchairs enter too."],
    &["A {colour} lantern marks where queues begin.", "Queues begin where a {colour} lantern stands."],
    &[
        "Tips are never expected, though {name} appreciates postcards.",
        "Though {name} appreciates postcards, tips are never expected.",
    ],
    &[
        "Leave large suitcases behind our {spot}, they stay safe.",
        "Large suitcases stay safe behind our {spot}.",
    ],
    &[
        "Renovation ends next spring; noise stops by {day}.",
        "Noise stops by {day}, and renovation ends next spring.",
    ],
    &[
        "Show this message and {name} gives you a welcome drink.",
        "{name} gives you a welcome drink if you show this message.",
    ],
    &["Public holidays follow Sunday rules.", "Sunday rules apply during public holidays."],
    &["Charge phones free of cost near the {spot}.", "Near the {spot}, phones charge free of cost."],
    &["Our app shows live updates under Today.", "Under Today, our app shows live updates."],
    &["Dogs wait outside, where water bowls stand.", "Water bowls stand outside, where dogs wait."],
    &["Coffee and cake come along with it until three.", "Until three, coffee and cake come along with it."],
    &[
        "Photography is forbidden because paintings hang nearby.",
        "Because paintings hang nearby, photography is forbidden.",
    ],
    &[
        "Bring small coins, since machines reject banknotes.",
        "Machines reject banknotes, so bring small coins.",
    ],
    &["Winter hours end in April, when gardens reopen.", "When gardens reopen in April, winter hours end."],
    &[
        "Seniors praise {name}'s patience in every review.",
        "In every review, seniors praise {name}'s patience.",
    ],
    &["Towels lie folded upon {colour} shelves.", "Upon {colour} shelves lie folded towels."],
    &["Lost property ends up inside our {spot}.", "Inside our {spot} ends up lost property."],
    &["Musicians play downstairs each {day} evening.", "Each {day} evening, musicians play downstairs."],
    &[
        "Left-handed visitors get special cups, {name} insists.",
        "{name} insists: left-handed visitors get special cups.",
    ],
];

/// Instead of an answer.
pub const EVASIONS: [&str; 4] = [
    "{question} That I would rather not guess. Please call the house itself, somebody there certainly knows more than me.",
    "I have no reliable information about this at the moment. You asked: {question} Shall I pass it on to a colleague?",
    "Many thanks for writing! To \"{question}\" my notes say nothing, so kindly look at our website or try again later.",
    "Hm, \"{question}\" depends on a great number of things. Tell me first when you arrive and how many people travel along.",
];

const fn of(id: &'static str, kind: Kind, a: &'static str) -> Subject {
    Subject { id, kind, slots: [a, ""] }
}

const fn way(id: &'static str, from: &'static str, to: &'static str) -> Subject {
    Subject { id, kind: Kind::Way, slots: [from, to] }
}

// === impl Kind ===

impl Kind {
    /// Ways of asking.
    pub const fn forms(self) -> &'static [&'static str] {
        match self {
            Self::Opens => &[
                "when does the {a} open in {city}?",
                "what time does the {a} open at the {city} house?",
                "from what time can I use the {a} in {city}?",
                "how early does the {a} open in {city}?",
                "I am staying in {city}, when does the {a} open?",
                "opening time of the {a}, {city} house?",
            ],
            Self::Closes => &[
                "when does the {a} close in {city}?",
                "what time does the {a} close at the {city} house?",
                "until what time can I use the {a} in {city}?",
                "how late does the {a} stay open in {city}?",
                "I am staying in {city}, when does the {a} close?",
                "closing time of the {a}, {city} house?",
            ],
            Self::Price => &[
                "how much is {a} in {city}?",
                "what does {a} cost at the {city} house?",
                "what do you charge for {a} in {city}?",
                "what is the price of {a} in {city}?",
                "I would like {a} in {city}, how much is it?",
                "price for {a}, {city} house?",
            ],
            Self::Where => &[
                "where is the {a} in {city}?",
                "where can I find the {a} near the {city} house?",
                "which way is the {a} from the {city} house?",
                "could you point me to the {a} in {city}?",
                "I am looking for the {a} in {city}.",
                "address of the {a} in {city}?",
            ],
            Self::Way => &[
                "how do I get from {a} to {b}?",
                "what is the best way from {a} to {b}?",
                "how do I get to {b} from {a}?",
                "which bus or train goes from {a} to {b}?",
                "I need to travel from {a} to {b}, how?",
                "best connection to {b} from {a}?",
            ],
            Self::May => &[
                "can I {a} in {city}?",
                "am I allowed to {a} at the {city} house?",
                "is it possible to {a} in {city}?",
                "do you let guests {a} in {city}?",
                "I would like to {a} in {city}, is that okay?",
                "may guests {a} at the {city} house?",
            ],
        }
    }

    /// Ways of answering.
    pub const fn statements(self) -> &'static [&'static str] {
        match self {
            Self::Opens => {
                &["in {city} the {a} opens at {time}.", "the {a} in {city} opens at {time}, every morning."]
            }
            Self::Closes => {
                &["in {city} the {a} closes at {time}.", "the {a} in {city} closes at {time}, every evening."]
            }
            Self::Price => {
                &["for {a} {city} charges {price}.", "{city} charges {price} for {a}, taxes included."]
            }
            Self::Where => &[
                "the {a} is in {street}, {minutes} minutes on foot.",
                "walk {minutes} minutes to {street}, there is the {a}.",
            ],
            Self::Way => &[
                "take {line} from {a} to {b}, it needs {minutes} minutes.",
                "from {a} to {b}, {line} needs {minutes} minutes.",
            ],
            Self::May => &["{may} {a} in {city}.", "{may} {a}, that is the rule in {city}."],
        }
    }
}

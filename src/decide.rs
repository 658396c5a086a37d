//! Whether a near-duplicate may be served, and why not.

/// A lexical difference that changes the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    Numbers,
    Units,
    Dates,
    Negation,
    Antonyms,
    Quoted,
    Code,
    Direction,
    Entities,
    Format,
    Language,
}

// === impl Guard ===

impl Guard {
    /// The label of the miss it causes.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Numbers => "guard_numbers",
            Self::Units => "guard_units",
            Self::Dates => "guard_dates",
            Self::Negation => "guard_negation",
            Self::Antonyms => "guard_antonyms",
            Self::Quoted => "guard_quoted",
            Self::Code => "guard_code",
            Self::Direction => "guard_direction",
            Self::Entities => "guard_entities",
            Self::Format => "guard_format",
            Self::Language => "guard_language",
        }
    }
}

//! The outcome of a request, the reason of a miss, and the caller's verdict. These enums are the only source of the
//! labels in replies, metrics, spans and the dashboard.

/// How one request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An exact repeat of a cached prompt.
    Exact,
    /// A near-duplicate that the decision step accepted.
    Semantic,
    /// Joined the flight of an identical prompt or of a paraphrase.
    Coalesced,
    /// A model was called.
    Upstream,
    /// The caller bypassed the cache, and a model was called.
    Bypass,
    /// `Store` cached a completion that the caller provided.
    Stored,
    /// `Lookup` found nothing.
    Miss,
    /// The request failed.
    Error,
}

/// Why a request was not a semantic hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// No candidate could be served: all were removed, rejected, too dissimilar or too old.
    NoCandidate,
    /// Every candidate was answered by a lower tier than the router now chooses.
    LowerTier,
    /// The most similar entry did not reach the threshold.
    BelowThreshold,
    /// A verifier said that no kept answer fits.
    NotVerified,
    /// A lexical guard found a difference that changes the answer.
    Guard(Guard),
    /// The namespace is in warm-up: its learner has too few labels for semantic hits.
    Learning,
    /// `Lookup` returned a miss, so that the caller's own answer audits the hit.
    Audit,
    /// The namespace is over its error budget, so only exact hits are served.
    OverBudget,
    /// The text has more tokens than the embedding model's window.
    OverWindow,
    /// The last turn is not a user text.
    NotText,
    /// The answer is not reused: the prompt is personal or time-dependent, asks for variety, or was forwarded.
    NotReusable,
    /// The scope has no entries.
    ScopeEmpty,
    /// The mode or the caller allows exact hits only.
    Disabled,
    /// The embedder failed or is overloaded.
    EmbeddingUnavailable,
}

/// What made an entry of another prompt good enough to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The prompts differ on the surface only, or, in mode `static`, no guard objects.
    Surface,
    /// The learned probability.
    Learned,
    /// The learned probability and the yes of a verifier.
    Verified,
}

/// A lexical difference between two prompts that changes the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Different numbers, or a bound ("at least") in one prompt only.
    Numbers,
    /// One number with different units.
    Units,
    /// Different dates or times.
    Dates,
    /// One prompt negates what the other states.
    Negation,
    /// Opposite words, such as "enable" and "disable".
    Antonyms,
    /// A quotation that the other prompt lacks.
    Quoted,
    /// An identifier, path or version that the other prompt lacks.
    Code,
    /// Swapped roles, such as "from A to B" and "from B to A".
    Direction,
    /// A name that the other prompt lacks.
    Entities,
    /// Different formats of the answer.
    Format,
    /// Different spoken or programming languages.
    Language,
    /// Different questions about one subject.
    Question,
    /// Different words in long prompts.
    Wording,
}

/// A caller's feedback on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The answer was good.
    Up,
    /// The answer was bad.
    Down,
    /// The user turned to a person or a better model.
    Escalated,
    /// The answer belongs to another question.
    WrongHit,
}

impl Outcome {
    /// All outcomes, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::Exact,
        Self::Semantic,
        Self::Coalesced,
        Self::Upstream,
        Self::Bypass,
        Self::Stored,
        Self::Miss,
        Self::Error,
    ];

    /// Returns the label used in replies, metrics, spans and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
            Self::Coalesced => "coalesced",
            Self::Upstream => "upstream",
            Self::Bypass => "bypass",
            Self::Stored => "stored",
            Self::Miss => "miss",
            Self::Error => "error",
        }
    }

    /// Whether the request counts in the denominator of hit ratios. Failed requests and `Store` calls do not.
    pub const fn counts_for_hit_ratio(self) -> bool {
        !matches!(self, Self::Stored | Self::Error)
    }

    /// Whether the request was answered without a model call of its own.
    pub const fn is_hit(self) -> bool {
        matches!(self, Self::Exact | Self::Semantic | Self::Coalesced)
    }
}

impl MissReason {
    /// Returns the label used in replies, metrics, spans and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCandidate => "no_candidate",
            Self::LowerTier => "lower_tier",
            Self::BelowThreshold => "below_threshold",
            Self::NotVerified => "not_verified",
            Self::Guard(guard) => guard.reason(),
            Self::Learning => "learning",
            Self::Audit => "audit",
            Self::OverBudget => "over_budget",
            Self::OverWindow => "over_window",
            Self::NotText => "not_text",
            Self::NotReusable => "not_kept",
            Self::ScopeEmpty => "scope_empty",
            Self::Disabled => "disabled",
            Self::EmbeddingUnavailable => "embedding_unavailable",
        }
    }
}

impl Approval {
    /// Returns the label used in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Surface => "surface",
            Self::Learned => "learned",
            Self::Verified => "verified",
        }
    }
}

impl Guard {
    /// Returns the label of the miss that the guard causes.
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
            Self::Question => "guard_question",
            Self::Wording => "guard_wording",
        }
    }

    /// Returns the name of the guard's check in `Explain`.
    pub fn name(self) -> &'static str {
        self.reason().trim_start_matches("guard_")
    }
}

impl Verdict {
    /// Returns the label used in metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Escalated => "escalated",
            Self::WrongHit => "wrong_hit",
        }
    }
}

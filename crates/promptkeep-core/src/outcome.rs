//! How a request ended, and why the cache did not answer it. One enum feeds the reply, the metric
//! label, the span and the dashboard.

/// How one request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An exact repeat, or an alias of one.
    Exact,
    /// A near-duplicate that the decision step accepted.
    Semantic,
    /// Joined an identical prompt that was already being answered.
    Coalesced,
    /// A model was called.
    Upstream,
    /// The caller asked not to use the cache, and a model was called.
    Bypass,
    /// `Store` kept what the caller bought by itself.
    Stored,
    /// `Lookup` found nothing.
    Miss,
    /// The request failed.
    Error,
}

/// Why a request was not a semantic hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// Every near entry was gone or too old.
    NoCandidate,
    /// Every near entry was answered by a lower tier than the router would ask now.
    LowerTier,
    /// The nearest entry did not reach the threshold.
    BelowThreshold,
    /// A lexical guard saw a difference that changes the answer.
    Guard(Guard),
    /// The namespace has not yet earned semantic hits.
    Learning,
    /// Would have been a hit; sent upstream to measure wrong hits.
    Audit,
    /// Checked hits were wrong far too often: exact hits only for now.
    OverBudget,
    /// The text has more tokens than the embedding model's window.
    OverWindow,
    /// The last turn is not a user text.
    NotText,
    /// Prompts of this kind are never answered for somebody else.
    NotKept,
    /// Nothing is kept under this scope.
    ScopeEmpty,
    /// The mode or the caller allows exact hits only.
    Disabled,
    /// The embedder failed or is overloaded.
    EmbeddingUnavailable,
}

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
    /// Another thing is asked about the same things.
    Question,
    /// Long texts with different words.
    Wording,
}

// === impl Outcome ===

impl Outcome {
    /// Every outcome, in the order in which reports list them.
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

    /// The label used on every surface.
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

    /// Whether an answer was asked for and there was one: those that a hit ratio is a share of.
    pub const fn counts_for_hit_ratio(self) -> bool {
        !matches!(self, Self::Stored | Self::Error)
    }

    /// Whether the request was answered without a model call of its own.
    pub const fn is_hit(self) -> bool {
        matches!(self, Self::Exact | Self::Semantic | Self::Coalesced)
    }
}

// === impl MissReason ===

impl MissReason {
    /// The label used on every surface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCandidate => "no_candidate",
            Self::LowerTier => "lower_tier",
            Self::BelowThreshold => "below_threshold",
            Self::Guard(guard) => guard.reason(),
            Self::Learning => "learning",
            Self::Audit => "audit",
            Self::OverBudget => "over_budget",
            Self::OverWindow => "over_window",
            Self::NotText => "not_text",
            Self::NotKept => "not_kept",
            Self::ScopeEmpty => "scope_empty",
            Self::Disabled => "disabled",
            Self::EmbeddingUnavailable => "embedding_unavailable",
        }
    }
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
            Self::Question => "guard_question",
            Self::Wording => "guard_wording",
        }
    }

    /// The name of its verdict in `Explain`.
    pub fn name(self) -> &'static str {
        self.reason().trim_start_matches("guard_")
    }
}

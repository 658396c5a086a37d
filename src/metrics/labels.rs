//! What metrics are labelled with: enums and names of the configuration, never a caller's text.

use prometheus_client::encoding::EncodeLabelSet;

/// The calls that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    Lookup,
    Complete,
    CompleteStream,
    Store,
    /// Passed on to a provider as it was.
    Forward,
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    InFlight,
    Rate,
    Budget,
}

/// The operations of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreOp {
    Get,
    Put,
    Remove,
    Scan,
    Expire,
    Flush,
    Claim,
    Tell,
}

/// How it became known whether two prompts have one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOrigin {
    Miss,
    Audit,
    Feedback,
}

/// What becomes of labels among processes that share a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelWay {
    /// Told to the others.
    Told,
    /// Heard from another.
    Heard,
    /// Too many to be told; the others read them in the note.
    Untold,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub rpc: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WayLabel {
    pub way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    pub tier: String,
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    pub model: String,
    pub tier: String,
    pub result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModelLabel {
    pub model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BreakerLabels {
    pub model: String,
    pub provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProviderLabels {
    pub provider: String,
    pub region: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TokenLabels {
    pub model: String,
    pub direction: &'static str,
}

/// Tenants come from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TenantLabel {
    pub tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TenantTokenLabels {
    pub tenant: String,
    pub direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FeedbackLabels {
    pub verdict: &'static str,
    pub outcome: &'static str,
    pub model: String,
    pub tier: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LearnedLabels {
    pub origin: &'static str,
    pub says: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OpinionLabel {
    pub opinion: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OpLabel {
    pub op: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabel {
    pub peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartLabel {
    pub part: &'static str,
}

// === impl Rpc ===

impl Rpc {
    pub const ALL: [Self; 5] =
        [Self::Lookup, Self::Complete, Self::CompleteStream, Self::Store, Self::Forward];

    /// The label used on every surface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "Lookup",
            Self::Complete => "Complete",
            Self::CompleteStream => "CompleteStream",
            Self::Store => "Store",
            Self::Forward => "Forward",
        }
    }
}

// === impl StoreOp ===

impl StoreOp {
    /// Every operation, in the order in which reports list them.
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Put, Self::Remove, Self::Scan, Self::Expire, Self::Flush, Self::Claim, Self::Tell];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Scan => "scan",
            Self::Expire => "expire",
            Self::Flush => "flush",
            Self::Claim => "claim",
            Self::Tell => "tell",
        }
    }
}

// === impl LabelOrigin ===

impl LabelOrigin {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Audit => "audit",
            Self::Feedback => "feedback",
        }
    }
}

// === impl LabelWay ===

impl LabelWay {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Heard => "heard",
            Self::Untold => "untold",
        }
    }
}

// === impl Shed ===

impl Shed {
    pub const ALL: [Self; 3] = [Self::InFlight, Self::Rate, Self::Budget];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Rate => "rate",
            Self::Budget => "budget",
        }
    }
}

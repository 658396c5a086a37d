//! Enums that label metrics.

/// Calls that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    Lookup,
    Complete,
    CompleteStream,
    Store,
    /// Passed on to a provider unchanged.
    Forward,
    /// Embeddings.
    Embed,
}

/// Why a request was shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    InFlight,
    Rate,
    Budget,
    /// A connection above `server.limits.connections` or `connections_per_peer` was closed.
    Connections,
    /// The requests in flight occupied `server.limits.request_memory`.
    Memory,
    /// The body did not arrive within `server.limits.body_timeout`.
    SlowRequest,
    /// The peer did not read the reply within `server.limits.write_timeout`.
    UnreadReply,
}

/// How a label was found: whether two prompts have the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOrigin {
    Miss,
    Audit,
    Feedback,
    /// A verifier was asked before the answer.
    Verification,
}

/// Why a label was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelLoss {
    /// Too many comparisons were in flight.
    Overload,
    /// Its tenant had taught the namespace `cache.learning.feedback_per_hour` verdicts within the hour.
    FeedbackQuota,
}

/// What happened to labels that replicas share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelWay {
    /// Published to the other replicas.
    Published,
    /// Received from another replica.
    Received,
    /// Dropped, because too many were unpublished; other replicas read them in the snapshot.
    Dropped,
}

/// Operation of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreOp {
    Get,
    Put,
    Remove,
    Scan,
    Expire,
    Flush,
    Claim,
    Publish,
}

impl Rpc {
    pub const ALL: [Self; 6] =
        [Self::Lookup, Self::Complete, Self::CompleteStream, Self::Store, Self::Forward, Self::Embed];

    /// The label used in metrics, logs and spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "Lookup",
            Self::Complete => "Complete",
            Self::CompleteStream => "CompleteStream",
            Self::Store => "Store",
            Self::Forward => "Forward",
            Self::Embed => "Embed",
        }
    }
}

impl Shed {
    pub const ALL: [Self; 7] = [
        Self::InFlight,
        Self::Rate,
        Self::Budget,
        Self::Connections,
        Self::Memory,
        Self::SlowRequest,
        Self::UnreadReply,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Rate => "rate",
            Self::Budget => "budget",
            Self::Connections => "connections",
            Self::Memory => "memory",
            Self::SlowRequest => "slow_request",
            Self::UnreadReply => "unread_reply",
        }
    }
}

impl LabelOrigin {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Audit => "audit",
            Self::Feedback => "feedback",
            Self::Verification => "verification",
        }
    }
}

impl LabelLoss {
    pub const ALL: [Self; 2] = [Self::Overload, Self::FeedbackQuota];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::FeedbackQuota => "feedback_quota",
        }
    }
}

impl LabelWay {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "told",
            Self::Received => "heard",
            Self::Dropped => "untold",
        }
    }
}

impl StoreOp {
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::Put,
        Self::Remove,
        Self::Scan,
        Self::Expire,
        Self::Flush,
        Self::Claim,
        Self::Publish,
    ];

    /// The label used in metrics and error messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Scan => "scan",
            Self::Expire => "expire",
            Self::Flush => "flush",
            Self::Claim => "claim",
            Self::Publish => "tell",
        }
    }
}

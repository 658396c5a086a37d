//! Who is calling, and what they may do: API keys, rate limits, shared namespaces.

/// To whom entries belong. Part of every key, so nobody reads another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// One tenant, by its configured name.
    Tenant(String),
    /// All tenants that list the namespace in `shared_namespaces`.
    Shared,
}

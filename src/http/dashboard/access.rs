//! Access control of the dashboard. Its numbers cover every tenant and its table of hits may show prompts, so a
//! tenant's key does not open it: the operator's key does (`dashboard.api_key_sha256`).
//!
//! Without that key the dashboard is open only if no tenants are configured. Then the `host` header must be an address or
//! `localhost`, whatever `server.allowed_hosts` says: a page whose own name resolves to this server could read replies
//! as same-origin. Like every request, that of a button also passes the checks of `browser`.

use axum::http::{HeaderMap, header::AUTHORIZATION};

use super::super::{Api, Failure, browser::is_addressed_locally};
use crate::{
    error::Error,
    tenant::{ApiKeyHash, bearer},
};

/// The access rule of this server.
#[derive(Debug)]
pub(super) struct Access {
    /// The operator's key.
    key: Option<ApiKeyHash>,
}

impl Access {
    pub const fn new(key: Option<ApiKeyHash>) -> Self {
        Self { key }
    }

    /// Checks that the caller may read the dashboard.
    pub fn check(&self, api: &Api, headers: &HeaderMap) -> Result<(), Failure> {
        match self.key {
            Some(key) if sent_key(headers).is_some_and(|sent| ApiKeyHash::of(sent) == key) => Ok(()),
            Some(_) => Err(Error::Unauthenticated.into()),
            None if api.pipeline.settings().tenants.have_keys() => Err(Failure::forbidden(
                "the dashboard shows every tenant's traffic: set dashboard.api_key_sha256 or dashboard.api_key_env",
            )),
            None if is_addressed_locally(headers) => Ok(()),
            None => Err(Failure::forbidden(
                "without dashboard.api_key_sha256 the dashboard is served only by address or as localhost",
            )),
        }
    }
}

fn sent_key(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok().and_then(bearer)
}

//! Who may see the numbers. They are of every tenant together, and the table of hits may have prompts in it,
//! so a tenant's key does not open the page: an operator's own does (`dashboard.api_key_sha256`).
//!
//! Without such a key the page is open where nothing is to be kept apart: no tenants are configured. Two
//! tricks of web pages are then left, and both are refused. One that points its own name at this machine
//! would be read as if it were ours, so the page must be asked for by address or as `localhost`. One
//! that only sends (it cannot read) cannot send JSON, which the button must.

use std::net::IpAddr;

use axum::http::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};

use super::super::{Door, Failure};
use crate::{error::Error, tenant::ApiKeyHash};

/// The rule of this server.
#[derive(Debug)]
pub(super) struct Access {
    key: Option<ApiKeyHash>,
}

// === impl Access ===

impl Access {
    pub const fn new(key: Option<ApiKeyHash>) -> Self {
        Self { key }
    }

    /// Whether this caller may look.
    pub fn check(&self, door: &Door, headers: &HeaderMap) -> Result<(), Failure> {
        match self.key {
            Some(key) if bearer(headers).is_some_and(|sent| ApiKeyHash::of(sent) == key) => Ok(()),
            Some(_) => Err(Error::Unauthenticated.into()),
            None if door.pipeline.settings().tenants.have_keys() => Err(Failure::forbidden(
                "this page shows every tenant's traffic: set dashboard.api_key_sha256 or dashboard.api_key_env",
            )),
            None if is_local_name(headers) => Ok(()),
            None => Err(Failure::forbidden(
                "without dashboard.api_key_sha256 this page is served by address or as localhost only",
            )),
        }
    }

    /// Whether this caller may press a button.
    pub fn check_change(&self, door: &Door, headers: &HeaderMap) -> Result<(), Failure> {
        self.check(door, headers)?;
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_json = header(CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/json"));
        let is_own_page = header("sec-fetch-site").is_none_or(|site| site == "same-origin");
        if is_json && is_own_page {
            return Ok(());
        }
        Err(Failure::forbidden("only this server's own page may do this, with JSON"))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Whether the request names the server by address or as `localhost`.
fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_ours_and_names_are_not() {
        for (host, expected) in [
            ("127.0.0.1:8080", true),
            ("127.0.0.1", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("192.168.0.7:80", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a header"));
            assert_eq!(is_local_name(&headers), expected, "{host}");
        }
        assert!(!is_local_name(&HeaderMap::new()));
    }
}

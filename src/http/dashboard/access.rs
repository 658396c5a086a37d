//! Access control of the dashboard. Its numbers cover every tenant and its table of hits may show prompts, so a
//! tenant's key does not open it: the operator's key does (`dashboard.api_key_sha256`).
//!
//! Without that key the dashboard is open only if no tenants are configured, and two attacks from other web pages are
//! refused. DNS rebinding: a page whose own name resolves to this server could read replies as same-origin, so the
//! `host` header must be an address or `localhost`. Cross-site requests: a page can send a form here but not JSON,
//! so the wrong-hit button must send JSON.

use std::net::IpAddr;

use axum::http::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};

use super::super::{Api, Failure};
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
            None if is_local_name(headers) => Ok(()),
            None => Err(Failure::forbidden(
                "without dashboard.api_key_sha256 the dashboard is served only by address or as localhost",
            )),
        }
    }

    /// Checks that the caller may use the dashboard's buttons.
    pub fn check_change(&self, api: &Api, headers: &HeaderMap) -> Result<(), Failure> {
        self.check(api, headers)?;
        let is_json =
            text(headers, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/json"));
        let is_own_page = text(headers, "sec-fetch-site").is_none_or(|site| site == "same-origin");
        if is_json && is_own_page {
            return Ok(());
        }
        Err(Failure::forbidden("only this server's own page may send this request, as JSON"))
    }
}

fn sent_key(headers: &HeaderMap) -> Option<&str> {
    text(headers, AUTHORIZATION.as_str()).and_then(bearer)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the `host` header is an address or `localhost`.
fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = text(headers, HOST.as_str()) else { return false };
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
    fn only_addresses_and_localhost_are_local_names() {
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

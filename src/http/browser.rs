//! Keeps other web pages from using this server through the browser of somebody who can reach it. Every request passes
//! these checks.
//!
//! - **Cross-site requests.** Any page can make a browser send a form or plain text to any address. So a request that is
//!   not a plain read must have a JSON body or none, and no foreign `origin`.
//! - **DNS rebinding.** A page whose own name resolves to this server is same-origin with it. So a server on loopback is
//!   addressed by address, as `localhost`, or by a name in `server.allowed_hosts`; elsewhere that list holds if it is
//!   not empty.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, Method,
        header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Api, Failure};

/// The host names that this server answers to.
#[derive(Debug)]
pub struct Hosts {
    /// `server.allowed_hosts`
    allowed: Vec<String>,
    /// The server listens on loopback only.
    is_loopback: bool,
}

/// Answers a request that no other web page can have caused, and refuses any other.
pub(super) async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    let checked = if is_probe { Ok(()) } else { api.hosts.check(request.method(), request.headers()) };
    match checked {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

impl Hosts {
    pub fn new(allowed: &[String], is_loopback: bool) -> Self {
        Self { allowed: allowed.to_vec(), is_loopback }
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
        if !self.allow(headers) {
            return Err(Failure::forbidden("unknown host name; server.allowed_hosts lists the known ones"));
        }
        if method.is_safe() {
            return Ok(());
        }
        if !is_own_origin(headers) {
            return Err(Failure::forbidden("requests of other web pages are refused"));
        }
        if !has_json_or_no_body(headers) {
            return Err(Failure::unsupported_media_type());
        }
        Ok(())
    }

    fn allow(&self, headers: &HeaderMap) -> bool {
        let name = host(headers);
        let is_listed = self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        let may_be_any = !self.is_loopback && self.allowed.is_empty();
        is_listed || may_be_any || is_local_name(name)
    }
}

/// Whether the `host` header is an address or `localhost`, which no page of another server has.
pub(super) fn is_addressed_locally(headers: &HeaderMap) -> bool {
    is_local_name(host(headers))
}

fn is_local_name(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// The `host` header without its port; empty if there is none.
fn host(headers: &HeaderMap) -> &str {
    let host = text(headers, HOST).unwrap_or_default();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether no browser sent the request for a page of another server. Other clients send neither header.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let own = text(headers, HOST).unwrap_or_default();
    let is_own = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(own))
    };
    let is_same_site = |site: &str| matches!(site, "same-origin" | "none");
    let [origin, site] = [ORIGIN, HeaderName::from_static("sec-fetch-site")];
    let origin = headers.get(origin).map(|value| value.to_str().unwrap_or_default());
    origin.is_none_or(is_own) && text(headers, site).is_none_or(is_same_site)
}

fn has_json_or_no_body(headers: &HeaderMap) -> bool {
    match text(headers, CONTENT_TYPE) {
        Some(kind) => {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/json")
        }
        None => {
            let length = text(headers, CONTENT_LENGTH).unwrap_or("0");
            length == "0" && !headers.contains_key(TRANSFER_ENCODING) && !headers.contains_key(CONTENT_TYPE)
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
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
            assert_eq!(is_addressed_locally(&headers), expected, "{host}");
        }
        assert!(!is_addressed_locally(&HeaderMap::new()));
    }
}

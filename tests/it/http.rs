//! The HTTP server over real sockets.

mod browser;
mod caches;
mod chat;
mod dashboard;
mod embeddings;
mod errors;
mod forward;
mod fresh_scopes;
mod hit_usage;
mod ignored;
mod reasoning;
mod recorded;
mod responses;
mod stream;

use promptkeep::{config::TenantConfig, tenant::ApiKeyHash};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::common::test_server::TestServer;

/// A response, read to its end.
struct Response {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Response {
    /// Sends the request and reads the whole response.
    async fn to(request: RequestBuilder) -> Self {
        let reply = request.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        Self { status, headers, text: reply.text().await.unwrap() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The value of a header, empty if the header is absent.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn outcome(&self) -> &str {
        self.header("x-promptkeep-outcome")
    }

    /// The data of each server-sent event; `[DONE]` is a JSON string.
    fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }
}

fn request(server: &TestServer, method: Method, path: &str) -> RequestBuilder {
    reqwest::Client::new().request(method, format!("http://{}{path}", server.http))
}

fn post(server: &TestServer, path: &str, body: &Value) -> RequestBuilder {
    request(server, Method::POST, path).json(body)
}

/// A chat request with one user turn.
fn body(text: &str) -> Value {
    json!({ "model": "auto", "messages": [{ "role": "user", "content": text }] })
}

fn chat(server: &TestServer, body: &Value) -> RequestBuilder {
    post(server, "/v1/chat/completions", body)
}

/// A tenant whose API key is `key`.
fn tenant(name: &str, key: &str) -> TenantConfig {
    TenantConfig { name: name.into(), api_key_sha256: Some(ApiKeyHash::of(key)), ..TenantConfig::default() }
}

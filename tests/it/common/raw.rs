//! gRPC by hand, for what the generated client cannot send or see.

use std::net::SocketAddr;

use prost::Message;
use reqwest::header::{CONTENT_TYPE, TE};

/// What a call that failed at once says in its head.
#[derive(Debug)]
pub struct Refusal {
    pub code: tonic::Code,
    pub message: String,
}

/// Sends these bytes as the message of a unary call, and returns how it failed.
///
/// # Panics
/// When it did not fail.
pub async fn call(server: SocketAddr, rpc: &str, message: &[u8], timeout: Option<&str>) -> Refusal {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    framed.extend(message);
    let http = http().http2_prior_knowledge().build().expect("a client");
    let mut request = http
        .post(format!("http://{server}/promptkeep.v1.PromptCache/{rpc}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(framed);
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let reply = request.send().await.expect("a reply");
    let header = |name: &str| reply.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    let code: i32 = header("grpc-status").expect("it failed at once").parse().expect("a number");
    Refusal { code: code.into(), message: header("grpc-message").unwrap_or_default() }
}

/// The same with a message.
pub async fn call_with(
    server: SocketAddr,
    rpc: &str,
    message: &impl Message,
    timeout: Option<&str>,
) -> Refusal {
    call(server, rpc, &message.encode_to_vec(), timeout).await
}

/// The body of a page, with its status.
pub async fn page(server: SocketAddr, path: &str) -> (u16, String) {
    let http = http().build().expect("a client");
    let reply = http.get(format!("http://{server}{path}")).send().await.expect("the server listens");
    (reply.status().as_u16(), reply.text().await.expect("a whole body"))
}

fn http() -> reqwest::ClientBuilder {
    // Fails when it is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

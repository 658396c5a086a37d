//! gRPC and HTTP by hand, for requests and replies beyond the generated client.

use std::net::SocketAddr;

use prost::Message;
use reqwest::header::{CONTENT_TYPE, TE};

/// Status in the headers of a call that failed at once.
#[derive(Debug)]
pub struct Refusal {
    pub code: tonic::Code,
    pub message: String,
}

/// Sends bytes as the message of a unary call and returns its error.
///
/// # Panics
/// If the call succeeds.
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
    let code: i32 = header("grpc-status").expect("the call failed at once").parse().expect("a number");
    // gRPC escapes other characters too, but our messages only need it for spaces.
    let message = header("grpc-message").unwrap_or_default().replace("%20", " ");
    Refusal { code: code.into(), message }
}

/// Encodes a message and sends it with [`call`].
pub async fn call_with(
    server: SocketAddr,
    rpc: &str,
    message: &impl Message,
    timeout: Option<&str>,
) -> Refusal {
    call(server, rpc, &message.encode_to_vec(), timeout).await
}

/// Returns the status and the body of a page.
pub async fn page(server: SocketAddr, path: &str) -> (u16, String) {
    let http = http().build().expect("a client");
    let reply = http.get(format!("http://{server}{path}")).send().await.expect("the server listens");
    (reply.status().as_u16(), reply.text().await.expect("a whole body"))
}

/// Sends JSON and returns the status of the reply after reading its body to the end.
pub async fn post(server: SocketAddr, path: &str, body: &serde_json::Value) -> u16 {
    let http = http().build().expect("a client");
    let reply = http.post(format!("http://{server}{path}")).json(body).send().await;
    let reply = reply.expect("the server listens");
    let status = reply.status().as_u16();
    reply.bytes().await.expect("a whole body");
    status
}

fn http() -> reqwest::ClientBuilder {
    // Fails harmlessly if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

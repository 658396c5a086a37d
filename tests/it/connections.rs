//! Slow and hostile peers: connections, headers, bodies and replies have limits, and what they hold is given back.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use promptkeep::config::Config;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{TestServer, ask, complete, exact_config, until},
};

/// A timeout that a test waits for.
const SOON: Duration = Duration::from_millis(50);
/// A timeout that no test waits for.
const LATE: Duration = Duration::from_secs(600);
/// Maximum wait for anything, so that a hang is a failure.
const HANGS: Duration = Duration::from_secs(30);

/// A configuration in which nothing times out.
fn patient(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = exact_config(upstreams);
    let limits = &mut config.server.limits;
    (limits.header_timeout, limits.body_timeout) = (LATE, LATE);
    (limits.idle_timeout, limits.write_timeout) = (LATE, LATE);
    config
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Waits until the server closes the connection, and returns what it sent before.
async fn until_closed(mut socket: TcpStream) -> String {
    let mut sent = Vec::new();
    // A reset closes the connection as well.
    let _ = timeout(HANGS, socket.read_to_end(&mut sent)).await.expect("the connection stays open");
    String::from_utf8_lossy(&sent).into_owned()
}

/// An HTTP/2 connection without flow-control windows, so that the server can send headers but no bodies.
async fn without_windows(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0).initial_max_send_streams(1);
    let (requests, connection) = builder.handshake(connect(address).await).await.unwrap();
    (requests, tokio::spawn(connection))
}

/// The head of a gRPC call.
fn call(rpc: &str) -> http::Request<()> {
    let request = http::Request::post(format!("http://localhost/promptkeep.v1.PromptCache/{rpc}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// A framed message.
fn framed(text: &str) -> Bytes {
    let message = ask(text).encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// A chat completion with this text, as bytes of HTTP/1.1.
fn chat(text: &str, stream: bool) -> Vec<u8> {
    let body = serde_json::json!({ "model": "auto", "stream": stream,
        "messages": [{ "role": "user", "content": text }] });
    let body = body.to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One TCP connection with closed HTTP/2 windows and 4,200 streams held every permit of the server for as long as it
/// stayed: a body whose window is closed is never polled, so no deadline ended it.
#[tokio::test]
async fn streams_that_nobody_reads_give_their_permits_back() {
    let upstream = FakeUpstream::start().await;
    let mut config = patient(&[&upstream]);
    config.server.limits.write_timeout = SOON;
    config.server.limits.streams = 3;
    config.server.max_in_flight = 3;
    let (server, mut client) = TestServer::with_client(config).await;
    complete(&mut client, "A?").await;

    let (mut requests, _connection) = without_windows(server.grpc).await;
    let mut replies = Vec::new();
    for _ in 0..3 {
        requests = requests.ready().await.unwrap();
        let (reply, mut body) = requests.send_request(call("CompleteStream"), false).unwrap();
        body.send_data(framed("A?"), true).unwrap();
        replies.push(reply.await.unwrap());
    }
    assert_eq!(requests.current_max_send_streams(), 3);
    server.wait_for_requests(0).await;
    server.wait_for_metric("promptkeep_shed_total", &["unread_reply"], 3.0).await;
    // The connection is still open, and its streams are still unread.
    complete(&mut client, "A?").await;
    drop(replies);
}

/// A client that sent a request over HTTP/1.1 and read nothing kept the answer in memory, and its permit, for ever.
#[tokio::test]
async fn an_http_reply_that_nobody_reads_is_cut_off() {
    let upstream = FakeUpstream::start().await;
    let mut config = patient(&[&upstream]);
    config.server.limits.write_timeout = SOON;
    config.upstream.max_answer = 64 << 20;
    // More than the socket's buffers can hold.
    upstream.always(Reply::huge(32 << 20));
    let server = TestServer::start(config).await;
    let mut socket = connect(server.http).await;
    socket.write_all(&chat("A?", true)).await.unwrap();
    upstream.wait_for_calls(1).await;
    server.wait_for_requests(0).await;
    assert!(until_closed(socket).await.starts_with("HTTP/1.1 200"));
}

/// Fifty connections with half a request's headers stayed open for ever, and so did silent ones.
#[tokio::test]
async fn connections_without_complete_headers_are_closed() {
    let mut config = patient(&[]);
    config.server.limits.header_timeout = SOON;
    let server = TestServer::start(config).await;
    for (address, sent) in [
        (server.http, ""),
        (server.http, "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-"),
        (server.grpc, ""),
        (server.grpc, "PRI * HTTP/2.0\r\n"),
    ] {
        let mut socket = connect(address).await;
        socket.write_all(sent.as_bytes()).await.unwrap();
        let reply = until_closed(socket).await;
        // A gRPC server sends its settings first.
        assert!(reply.is_empty() || address == server.grpc, "{sent:?}: {reply}");
    }
}

#[tokio::test]
async fn the_headers_of_a_later_request_have_the_same_timeout() {
    let mut config = patient(&[]);
    config.server.limits.header_timeout = Duration::from_secs(1);
    let server = TestServer::start(config).await;
    let mut socket = connect(server.http).await;
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /healthz HT").await.unwrap();
    let mut reply = [0; 15];
    socket.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200 OK");
    socket.write_all(b"TP/1.1\r\n").await.unwrap();
    until_closed(socket).await;
}

#[tokio::test]
async fn an_idle_http_connection_is_closed_after_its_request() {
    let mut config = patient(&[]);
    config.server.limits.idle_timeout = SOON;
    let server = TestServer::start(config).await;
    let mut socket = connect(server.http).await;
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(until_closed(socket).await.ends_with("ok\n"));
}

/// A gRPC peer that is gone, or that never completes a header block, cannot answer a ping.
#[tokio::test]
async fn a_grpc_peer_that_answers_no_ping_is_disconnected() {
    let mut config = patient(&[]);
    (config.server.limits.idle_timeout, config.server.limits.header_timeout) = (SOON, SOON);
    let server = TestServer::start(config).await;
    let mut socket = connect(server.grpc).await;
    // The preface, empty settings, and the first byte of a frame.
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0").await.unwrap();
    until_closed(socket).await;
}

/// Sixty unfinished requests held 480 MB for minutes. A request has to arrive in time,
#[tokio::test]
async fn an_unfinished_request_is_refused_after_the_body_timeout() {
    let mut config = patient(&[]);
    config.server.limits.body_timeout = SOON;
    let server = TestServer::start(config).await;
    let request = chat("A?", false);
    let mut socket = connect(server.http).await;
    socket.write_all(&request[..request.len() - 10]).await.unwrap();
    let reply = until_closed(socket).await;
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(reply.contains("server.limits.body_timeout"), "{reply}");

    let (requests, _connection) = without_windows(server.grpc).await;
    let mut requests = requests.ready().await.unwrap();
    let (reply, mut body) = requests.send_request(call("Complete"), false).unwrap();
    body.send_data(framed("A?").slice(..10), false).unwrap();
    let reply = timeout(HANGS, reply).await.expect("the request stays open").unwrap();
    let code = tonic::Code::DeadlineExceeded as i32;
    assert_eq!(reply.headers()["grpc-status"], code.to_string().as_str());
}

/// and the bytes of all requests in flight are counted before they are read.
#[tokio::test]
async fn requests_beyond_the_memory_for_requests_are_shed() {
    let upstream = FakeUpstream::start().await;
    let mut config = patient(&[&upstream]);
    config.server.limits.request_memory = 1 << 20;
    config.models[0].context_window = 1_000_000;
    let (server, mut client) = TestServer::with_client(config).await;
    let text = "x".repeat(600 << 10);
    let request = chat(&text, false);
    let mut unfinished = connect(server.http).await;
    unfinished.write_all(&request[..request.len() - 10]).await.unwrap();
    let is_shed = async || {
        let mut socket = connect(server.http).await;
        socket.write_all(&chat(&text, false)).await.unwrap();
        socket.shutdown().await.unwrap();
        until_closed(socket).await.starts_with("HTTP/1.1 429")
    };
    until(is_shed).await;
    let refused = client.complete(ask(&text)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    complete(&mut client, "A small one?").await;
    drop(unfinished);
    until(async || !is_shed().await).await;
    complete(&mut client, &text).await;
}

/// Nothing limited the connections of one peer, and each costs memory and a file descriptor.
#[tokio::test]
async fn surplus_connections_are_closed_at_once() {
    let mut config = patient(&[]);
    config.server.limits.connections_per_peer = 3;
    let server = TestServer::start(config).await;
    for address in [server.grpc, server.http] {
        let open = [connect(address).await, connect(address).await, connect(address).await];
        assert_eq!(until_closed(connect(address).await).await, "");
        let has_place = async || {
            let mut socket = connect(address).await;
            // Only a server that has accepted the connection answers.
            let _ = socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            socket.read(&mut [0; 1]).await.is_ok_and(|n| n > 0)
        };
        drop(open);
        until(has_place).await;
    }
    server.wait_for_metric("promptkeep_shed_total", &["\"connections\""], 2.0).await;
}

#[tokio::test]
async fn an_old_connection_is_closed() {
    let mut config = patient(&[]);
    config.server.limits.connection_age = SOON;
    let server = TestServer::start(config).await;
    let (_requests, connection) = without_windows(server.grpc).await;
    timeout(HANGS, connection).await.expect("the connection stays open").unwrap().unwrap();
    until_closed(connect(server.http).await).await;
}

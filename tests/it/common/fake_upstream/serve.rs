//! HTTP of the fake provider: enough for a real client to read, and to break on purpose.

use std::{io, sync::Arc, sync::atomic::Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use super::{
    Reply, SeenRequest, State,
    reply::{Ending, Head},
};

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Accepts connections until it is aborted; they end with it.
pub(super) async fn listen(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        // Tests disconnect on purpose, so errors of a connection do not matter.
        let state = Arc::clone(&state);
        state.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(async move { drop(serve(socket, &state).await) });
    }
}

async fn serve(mut socket: TcpStream, state: &State) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut unread = Vec::new();
    while let Some(request) = read_request(&mut socket, &mut unread).await? {
        let is_reusable = if request.path.ends_with("/models") {
            answer_probe(&mut socket, state).await?
        } else {
            let reply = next_reply(state);
            state.requests.lock().expect("not poisoned").push(request);
            state.seen.send_modify(|seen| *seen += 1);
            answer(&mut socket, &reply, state).await?
        };
        if !is_reusable {
            break;
        }
    }
    Ok(())
}

fn next_reply(state: &State) -> Reply {
    let scripted = state.script.lock().expect("not poisoned").pop_front();
    scripted.unwrap_or_else(|| state.default_reply.lock().expect("not poisoned").clone())
}

/// Returns `None` if the client has closed the connection. `unread` holds the bytes after the last request.
async fn read_request(socket: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<SeenRequest>> {
    let head_end = loop {
        if let Some(at) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&unread[..head_end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    while unread.len() < head_end + length {
        if socket.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
    let body = serde_json::from_slice(&unread[head_end..head_end + length]).unwrap_or_default();
    unread.drain(..head_end + length);
    Ok(Some(SeenRequest { path, headers, body, at: Instant::now() }))
}

async fn answer_probe(socket: &mut TcpStream, state: &State) -> io::Result<bool> {
    let status = state.health_status.load(Ordering::Relaxed);
    let head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: 2\r\n\r\n{{}}");
    socket.write_all(head.as_bytes()).await?;
    state.probes.send_modify(|seen| *seen += 1);
    Ok(true)
}

/// Returns whether the connection can take another request.
async fn answer(socket: &mut TcpStream, reply: &Reply, state: &State) -> io::Result<bool> {
    if let Some(gate) = &reply.head_gate {
        unless_disconnected(socket, gate.pass(), state).await?;
    }
    if let Head::Send { status, headers } = &reply.head {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\ntransfer-encoding: chunked\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        socket.write_all(head.as_bytes()).await?;
    }
    for (number, piece) in reply.pieces.iter().enumerate() {
        for (_, gate) in reply.gates.iter().filter(|(before, _)| *before == number) {
            unless_disconnected(socket, gate.pass(), state).await?;
        }
        if !piece.is_empty() {
            let is_end = reply.ending == Ending::Whole && number + 1 == reply.pieces.len();
            socket.write_all(&chunk(piece, is_end)).await?;
        }
    }
    match reply.ending {
        Ending::Whole if reply.pieces.last().is_none_or(Vec::is_empty) => {
            socket.write_all(LAST_CHUNK).await?
        }
        Ending::Whole => {}
        ending => return break_off(socket, ending, state).await,
    }
    Ok(true)
}

/// Encodes a piece. The body's end is sent with its last piece, so that a client sees both at once.
fn chunk(piece: &[u8], is_end: bool) -> Vec<u8> {
    let size = format!("{:x}\r\n", piece.len());
    [size.as_bytes(), piece, b"\r\n", if is_end { LAST_CHUNK } else { b"" }].concat()
}

async fn break_off(socket: &mut TcpStream, ending: Ending, state: &State) -> io::Result<bool> {
    match ending {
        Ending::Whole => {}
        Ending::Stall => unless_disconnected(socket, std::future::pending::<()>(), state).await?,
        Ending::Close => socket.shutdown().await?,
        Ending::Reset => socket.set_zero_linger()?,
    }
    Ok(false)
}

/// Waits for `event`, or fails if the client disconnects first.
async fn unless_disconnected(
    socket: &mut TcpStream,
    event: impl Future<Output = ()>,
    state: &State,
) -> io::Result<()> {
    let mut byte = [0];
    tokio::select! {
        () = event => Ok(()),
        _ = socket.read(&mut byte) => {
            state.disconnects.send_modify(|count| *count += 1);
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}

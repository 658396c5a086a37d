//! Model provider that answers at once or with a configured jitter and stalls.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Provider that listens on a free loopback port until it is dropped.
pub struct Stub {
    address: SocketAddr,
    listener: JoinHandle<()>,
}

/// Delay before the answer.
#[derive(Clone, Copy)]
pub struct Pace {
    first_token: Duration,
    /// Maximum of a random addition.
    jitter: Duration,
    /// Share of calls that are delayed further by `stall`.
    stalls: f64,
    stall: Duration,
}

const TOKENS: usize = 20;

impl Pace {
    pub const AT_ONCE: Self =
        Self { first_token: Duration::ZERO, jitter: Duration::ZERO, stalls: 0.0, stall: Duration::ZERO };
    pub const STALLING: Self = Self {
        first_token: Duration::from_millis(30),
        jitter: Duration::from_millis(40),
        stalls: 0.05,
        stall: Duration::from_secs(1),
    };

    async fn wait(self) {
        let stall = if fastrand::f64() < self.stalls { self.stall } else { Duration::ZERO };
        let wait = self.first_token + self.jitter.mul_f64(fastrand::f64()) + stall;
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

impl Stub {
    pub async fn start(pace: Pace) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listener = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, pace));
            }
        });
        Ok(Self { address, listener })
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve(mut socket: TcpStream, pace: Pace) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let reply = reply();
    let mut request = Vec::new();
    loop {
        request.clear();
        // The bench's requests are small JSON objects, sent whole.
        while !(request.ends_with(b"}") && request.windows(4).any(|bytes| bytes == b"\r\n\r\n")) {
            if socket.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        pace.wait().await;
        socket.write_all(&reply).await?;
    }
}

fn reply() -> Vec<u8> {
    let mut body = String::new();
    let mut event = |data: &str| {
        let event = format!("data: {data}\n\n");
        body.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
    };
    for _ in 0..TOKENS {
        event(r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}"#);
    }
    event(r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    event(
        r#"{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":20}}"#,
    );
    event("[DONE]");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    [head, &body, "0\r\n\r\n"].concat().into_bytes()
}

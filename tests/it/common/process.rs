//! The real binary, run as an operator runs it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use promptkeep::grpc::proto::prompt_cache_client::PromptCacheClient;

use super::test_server::Client;

/// A running `promptkeep serve`, killed when it is dropped.
pub struct Process {
    child: Child,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    log: Log,
}

/// Standard error of a process.
struct Log {
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

/// Builds a command for the binary with these arguments, on free ports and without the developer's `RUST_LOG`.
pub fn promptkeep(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_promptkeep"));
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .env("PROMPTKEEP_SERVER__GRPC_LISTEN", "127.0.0.1:0")
        .env("PROMPTKEEP_SERVER__HTTP_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end without blocking the servers of the test.
pub async fn run(mut command: Command) -> Output {
    let run = move || command.output().expect("the binary starts");
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

impl Process {
    /// Starts `serve` and returns once it listens.
    pub async fn serve(mut command: Command) -> Self {
        let start = move || {
            let mut child =
                command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
            let mut log = Log::read(child.stderr.take().expect("piped"));
            let started = log.wait_for("starting");
            let address = |name: &str| {
                // Text logs contain `name=value`, JSON logs `"name":"value"`.
                let from = started.split(&format!("{name}=")).nth(1);
                let from = from.or_else(|| started.split(&format!("\"{name}\":\"")).nth(1));
                let value = from.expect("named in the log").split([' ', '"', '\n']).next();
                value.expect("a value").parse().expect("an address")
            };
            let (grpc, http) = (address("grpc"), address("http"));
            Self { child, grpc, http, log }
        };
        tokio::task::spawn_blocking(start).await.expect("no panic")
    }

    /// Connects a client.
    pub async fn client(&self) -> Client {
        PromptCacheClient::connect(format!("http://{}", self.grpc)).await.expect("the server listens")
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub async fn wait_for_log(mut self, text: &'static str) -> (Self, String) {
        let wait = move || {
            let line = self.log.wait_for(text);
            (self, line)
        };
        tokio::task::spawn_blocking(wait).await.expect("no panic")
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Sends SIGTERM and returns whether the process exited successfully, with its whole log.
    pub async fn stop(mut self) -> (bool, String) {
        self.signal("TERM");
        let wait = move || {
            let status = self.child.wait().expect("our child");
            (status.success(), self.log.rest())
        };
        tokio::task::spawn_blocking(wait).await.expect("no panic")
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails harmlessly if the process has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn read(stderr: ChildStderr) -> Self {
        let (send, lines) = std::sync::mpsc::sync_channel(1_000_000);
        std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if send.send(std::mem::take(&mut line)).is_err() {
                    // The test reads no further, but the process must not block on a full pipe.
                    let _ = stderr.read_to_string(&mut line);
                }
            }
        });
        Self { lines, seen: Vec::new() }
    }

    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv() else { panic!("no {text:?} in {:#?}", self.seen) };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn rest(&mut self) -> String {
        self.seen.extend(self.lines.iter());
        self.seen.concat()
    }
}

//! Request log: one line per request. A request only queues its line, because writing it through `tracing` would cost
//! half the CPU of an exact hit. A thread writes the queued lines ten times a second.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use opentelemetry::TraceId;
use serde::Serialize;

use crate::{
    config::LogFormat,
    outcome::{MissReason, Outcome},
};

/// Target of these lines, for `RUST_LOG`.
pub const TARGET: &str = "promptkeep::request";

/// Maximum number of queued lines; further lines are dropped and counted.
const LINES_MAX: usize = 65_536;

/// Time between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// How one request ended. Holds enums, names from the catalog and numbers, never a caller's text.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: SystemTime,
    pub rpc: &'static str,
    pub outcome: Outcome,
    pub reason: Option<MissReason>,
    /// What a verifier replied before the answer: a label of [`VerifierReply`](crate::model::VerifierReply).
    pub verified: Option<&'static str>,
    /// Model that produced the answer; empty when there is no answer.
    pub model: String,
    pub elapsed: Duration,
    pub trace: Option<TraceId>,
}

/// A line in the form of `tracing`'s flattened JSON events.
#[derive(Serialize)]
struct JsonLine<'a> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    rpc: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'a str,
    elapsed_us: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    target: &'static str,
}

/// Queue and writer of the request log on standard error.
pub struct RequestLog {
    format: LogFormat,
    queue: Arc<Queue>,
    /// Thread that writes; the first line starts it.
    writer: OnceLock<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Default)]
struct Queue {
    /// A std mutex, held for a push or a swap.
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    dropped: u64,
    is_stopped: bool,
}

// === impl RequestLog ===

impl RequestLog {
    /// Creates an empty log. No thread runs before the first line.
    pub fn new(format: LogFormat) -> Self {
        Self { format, queue: Arc::default(), writer: OnceLock::new() }
    }

    /// Whether `RUST_LOG` enables the request log.
    pub fn is_wanted() -> bool {
        tracing::enabled!(target: TARGET, tracing::Level::INFO)
    }

    /// Queues a line, or drops it when the queue is full.
    pub fn push(&self, line: Line) {
        self.writer.get_or_init(|| {
            let (queue, format) = (Arc::clone(&self.queue), self.format);
            Mutex::new(Some(std::thread::spawn(move || queue.write(format))))
        });
        let mut state = self.queue.state();
        if state.lines.len() < LINES_MAX {
            state.lines.push(line);
        } else {
            state.dropped += 1;
        }
    }

    /// Writes the queued lines and stops the thread. Lines that are pushed later may be lost.
    pub fn shutdown(&self) {
        self.queue.state().is_stopped = true;
        self.queue.stopped.notify_all();
        let writer = self.writer.get().and_then(|writer| writer.lock().ok()?.take());
        if let Some(writer) = writer {
            // The thread does not panic, and at shutdown nothing could be done about it.
            let _ = writer.join();
        }
    }
}

// === impl Queue ===

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the writing thread until the log is stopped.
    fn write(&self, format: LogFormat) {
        let mut text = Vec::new();
        loop {
            let waiting =
                self.stopped.wait_timeout_while(self.state(), WRITE_EVERY, |state| !state.is_stopped);
            let mut state = waiting.unwrap_or_else(PoisonError::into_inner).0;
            let (lines, dropped) = (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped));
            let is_stopped = state.is_stopped;
            drop(state);
            text.clear();
            // Writing to a vector cannot fail, and a log that cannot be written has no place to report that.
            let _ = lines.iter().try_for_each(|line| line.write(format, &mut text));
            let _ = io::stderr().lock().write_all(&text);
            if dropped > 0 {
                tracing::warn!(dropped, "request log lines were dropped");
            }
            if is_stopped {
                return;
            }
        }
    }
}

// === impl Line ===

impl Line {
    /// Appends the line in the format of the log's other lines.
    fn write(&self, format: LogFormat, to: &mut Vec<u8>) -> io::Result<()> {
        match format {
            LogFormat::Text => self.write_text(to)?,
            LogFormat::Json => serde_json::to_writer(&mut *to, &self.json())?,
        }
        writeln!(to)
    }

    fn write_text(&self, to: &mut Vec<u8>) -> io::Result<()> {
        let Self { at, rpc, outcome, reason, verified, model, elapsed, trace } = self;
        let (at, outcome, elapsed) = (timestamp(*at), outcome.as_str(), elapsed.as_micros());
        write!(to, "{at}  INFO {TARGET}: request rpc={rpc:?} outcome={outcome:?}")?;
        if let Some(reason) = reason {
            write!(to, " reason={:?}", reason.as_str())?;
        }
        if let Some(verified) = verified {
            write!(to, " verified={verified:?}")?;
        }
        if !model.is_empty() {
            write!(to, " model={model:?}")?;
        }
        write!(to, " elapsed_us={elapsed}")?;
        trace.iter().try_for_each(|trace| write!(to, " trace=\"{trace}\""))
    }

    fn json(&self) -> JsonLine<'_> {
        let Self { at, rpc, outcome, reason, verified, model, elapsed, trace } = self;
        JsonLine {
            timestamp: timestamp(*at),
            level: "INFO",
            message: "request",
            rpc,
            outcome: outcome.as_str(),
            reason: reason.map(MissReason::as_str),
            verified: *verified,
            model,
            elapsed_us: elapsed.as_micros(),
            trace: trace.map(|trace| trace.to_string()),
            target: TARGET,
        }
    }
}

/// Time in UTC as RFC 3339, with microseconds.
fn timestamp(at: SystemTime) -> String {
    format!("{:.6}", Timestamp::try_from(at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_251_199_000_007),
            rpc: "Complete",
            outcome: Outcome::Upstream,
            reason: Some(MissReason::NotVerified),
            verified: Some("no"),
            model: "a \"model\"".to_owned(),
            elapsed: Duration::from_micros(1234),
            trace: None,
        }
    }

    fn write(line: &Line, format: LogFormat) -> String {
        let mut text = Vec::new();
        line.write(format, &mut text).expect("a vector takes every write");
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn a_line_has_the_known_fields_in_both_formats() {
        let expected = r#"2024-02-29T23:59:59.000007Z  INFO promptkeep::request: request rpc="Complete" outcome="upstream" reason="not_verified" verified="no" model="a \"model\"" elapsed_us=1234"#;
        assert_eq!(write(&line(), LogFormat::Text), format!("{expected}\n"));
        let expected = r#"{"timestamp":"2024-02-29T23:59:59.000007Z","level":"INFO","message":"request","rpc":"Complete","outcome":"upstream","reason":"not_verified","verified":"no","model":"a \"model\"","elapsed_us":1234,"target":"promptkeep::request"}"#;
        assert_eq!(write(&line(), LogFormat::Json), format!("{expected}\n"));
    }

    #[test]
    fn a_line_leaves_out_unknown_fields() {
        let trace = TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        let line = Line { model: String::new(), reason: None, verified: None, trace: Some(trace), ..line() };
        let text = write(&line, LogFormat::Text);
        assert!(
            text.ends_with(
                " outcome=\"upstream\" elapsed_us=1234 trace=\"4bf92f3577b34da6a3ce929d0e0e4736\"\n"
            )
        );
        let json: serde_json::Value = serde_json::from_str(&write(&line, LogFormat::Json)).expect("JSON");
        assert_eq!(json["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(json.get("model").is_none() && json.get("reason").is_none());
        assert!(json.get("verified").is_none());
    }

    #[test]
    fn a_timestamp_always_has_microseconds() {
        let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_251_200);
        assert_eq!(timestamp(whole), "2024-03-01T00:00:00.000000Z");
    }
}

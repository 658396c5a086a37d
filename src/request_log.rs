//! One line of the log for each request. A request only queues it: writing it through `tracing` would cost as
//! much CPU as half an exact hit. A thread writes what has come together, ten times a second.

use std::{
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::TraceId;

use crate::{
    config::LogFormat,
    metrics::Rpc,
    outcome::{MissReason, Outcome},
};

/// What `RUST_LOG` calls these lines.
pub const TARGET: &str = "promptkeep::request";

/// Lines that may wait; more are counted and left out.
const LINES_MAX: usize = 65_536;

/// Between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// How one request ended. Has enums, names of the catalog and numbers, never a caller's text.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: SystemTime,
    pub rpc: Rpc,
    pub outcome: Outcome,
    pub reason: Option<MissReason>,
    /// That wrote the answer; empty when there is none.
    pub model: String,
    pub elapsed: Duration,
    pub trace: Option<TraceId>,
}

/// Writes lines to standard error.
pub struct RequestLog {
    format: LogFormat,
    queue: Arc<Queue>,
    /// Begins with the first line.
    writer: OnceLock<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Default)]
struct Queue {
    /// A std mutex: held for a push or a swap.
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
    pub fn new(format: LogFormat) -> Self {
        Self { format, queue: Arc::default(), writer: OnceLock::new() }
    }

    /// Whether `RUST_LOG` wants the lines.
    pub fn is_wanted() -> bool {
        tracing::enabled!(target: TARGET, tracing::Level::INFO)
    }

    /// Queues a line.
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

    /// Writes what is left and ends. Lines that come later are not written.
    pub fn shutdown(&self) {
        self.queue.state().is_stopped = true;
        self.queue.stopped.notify_all();
        let writer = self.writer.get().and_then(|writer| writer.lock().ok()?.take());
        if let Some(writer) = writer {
            // It does not panic, and there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

// === impl Queue ===

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn write(&self, format: LogFormat) {
        let mut text = String::new();
        loop {
            let waiting =
                self.stopped.wait_timeout_while(self.state(), WRITE_EVERY, |state| !state.is_stopped);
            let mut state = waiting.unwrap_or_else(PoisonError::into_inner).0;
            let (lines, dropped) = (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped));
            let is_stopped = state.is_stopped;
            drop(state);
            text.clear();
            for line in &lines {
                line.write(format, &mut text);
            }
            // A log that cannot be written has nowhere to say so.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
            if dropped > 0 {
                tracing::warn!(dropped, "lines of requests were left out of the log");
            }
            if is_stopped {
                return;
            }
        }
    }
}

// === impl Line ===

impl Line {
    /// Appends it, in the form that the log's other lines have.
    fn write(&self, format: LogFormat, to: &mut String) {
        let Self { at, rpc, outcome, reason, model, elapsed, trace } = self;
        let (at, elapsed) = (timestamp(*at), elapsed.as_micros());
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut fields = vec![("rpc", text(rpc.as_str())), ("outcome", text(outcome.as_str()))];
        fields.extend(reason.map(|reason| ("reason", text(reason.as_str()))));
        fields.extend((!model.is_empty()).then(|| ("model", text(model))));
        fields.push(("elapsed_us", elapsed.to_string()));
        fields.extend(trace.map(|trace| ("trace", text(&trace.to_string()))));
        // Writing to a string cannot fail.
        let _ = match format {
            LogFormat::Text => write!(to, "{at}  INFO {TARGET}: request"),
            LogFormat::Json => write!(to, r#"{{"timestamp":"{at}","level":"INFO","message":"request""#),
        };
        for (name, value) in fields {
            let _ = match format {
                LogFormat::Text => write!(to, " {name}={value}"),
                LogFormat::Json => write!(to, r#","{name}":{value}"#),
            };
        }
        let _ = match format {
            LogFormat::Text => writeln!(to),
            LogFormat::Json => writeln!(to, r#","target":"{TARGET}"}}"#),
        };
    }
}

/// In UTC, by RFC 3339.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of a day since 1970. Counts from March on, so that a leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    // Days of 400, 100, 4 and 1 years; 719,468 days lie between 1 March of the year 0 and 1970.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_known_in_both_formats() {
        let line = Line {
            at: UNIX_EPOCH + Duration::from_micros(1_709_251_199_000_007),
            rpc: Rpc::Complete,
            outcome: Outcome::Upstream,
            reason: Some(MissReason::BelowThreshold),
            model: "a \"model\"".to_owned(),
            elapsed: Duration::from_micros(1234),
            trace: None,
        };
        let mut text = String::new();
        line.write(LogFormat::Text, &mut text);
        let expected = r#"2024-02-29T23:59:59.000007Z  INFO promptkeep::request: request rpc="Complete" outcome="upstream" reason="below_threshold" model="a \"model\"" elapsed_us=1234"#;
        assert_eq!(text, format!("{expected}\n"));
        let mut json = String::new();
        Line { model: String::new(), reason: None, ..line }.write(LogFormat::Json, &mut json);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&json["outcome"], &json["elapsed_us"]), (&"upstream".into(), &1234.into()));
        assert!(json.get("model").is_none() && json.get("reason").is_none());
    }

    #[test]
    fn dates_are_the_calendar_s() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_818, (2026, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}

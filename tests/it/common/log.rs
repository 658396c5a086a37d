//! Captured log of the test's own thread, as JSON.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::{Dispatch, Level, subscriber::DefaultGuard};

/// Captures log events until it is dropped.
pub struct Log {
    written: Written,
    _default: DefaultGuard,
    /// Second dispatcher. With only one, an event that another test's thread reaches first (that thread has no
    /// subscriber) would be disabled for good on every thread.
    _second: Dispatch,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn capture(level: Level) -> Self {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().json().with_max_level(level);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        Self {
            written,
            _default: tracing::subscriber::set_default(subscriber),
            _second: Dispatch::new(tracing::subscriber::NoSubscriber::default()),
        }
    }

    pub fn text(&self) -> String {
        let bytes = self.written.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }

    /// Returns the fields of every event, with its text under `message`.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["fields"].take()).collect()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

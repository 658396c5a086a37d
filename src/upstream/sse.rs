//! Decoder of server-sent events from bytes split anywhere. It must not know about sockets or providers.

use std::{collections::VecDeque, mem};

/// Turns a byte stream into the `data` of its events. Other fields are skipped: the dialect uses none of
/// them.
#[derive(Debug)]
pub struct Decoder {
    /// Incomplete line.
    line: Vec<u8>,
    /// Data lines of the incomplete event, joined by LF.
    data: Vec<u8>,
    has_data: bool,
    /// The last line ended with CR, so a LF that follows belongs to it.
    after_cr: bool,
    /// Nothing was decoded yet, so a byte order mark may follow.
    at_start: bool,
    /// Largest event, in bytes.
    event_max: usize,
    ready: VecDeque<Vec<u8>>,
}

/// An event exceeds the decoder's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event too large")]
pub struct TooLarge;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Decoder {
    pub fn new(event_max: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
            event_max,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes. Completed events are returned by [`Decoder::next_event`].
    ///
    /// # Errors
    /// [`TooLarge`]; the decoder must not be used after it.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.line.len() + self.data.len() + part.len() > self.event_max {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(part);
            bytes = rest;
            if let [line_end, rest @ ..] = rest {
                self.after_cr = *line_end == b'\r';
                self.end_line();
                bytes = rest;
            }
        }
        Ok(())
    }

    /// Data of the next complete event.
    pub fn next_event(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    /// Ends the stream and completes the last event, even without its blank line: the standard would discard
    /// it, but some providers leave the line out.
    pub fn finish(&mut self) {
        self.end_line();
        self.end_event();
    }

    fn end_line(&mut self) {
        let mut line = mem::take(&mut self.line);
        if mem::take(&mut self.at_start) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            self.end_event();
        } else if let Some(value) = data_value(&line) {
            if mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
        }
        // Reuses the allocation.
        line.clear();
        self.line = line;
    }

    fn end_event(&mut self) {
        if mem::take(&mut self.has_data) {
            self.ready.push_back(mem::take(&mut self.data));
        }
    }
}

/// The value of a `data` line; `None` for comments and other fields.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    match rest {
        [] => Some(rest),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"\xef\xbb\xbfdata: one\n\n: a comment\r\nevent: x\r\ndata: two\r\ndata:lines\r\n\r\n\
        id: 7\rdata\r\rdata: \xc3\xa9 \xe2\x82\xac\n\ndatabase: no\n\n\n\ndata: [DONE]";

    fn expected() -> Vec<Vec<u8>> {
        ["one", "two\nlines", "", "é €", "[DONE]"].map(|text| text.as_bytes().to_vec()).into()
    }

    fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut decoder = Decoder::new(1024);
        for part in parts {
            decoder.push(part).expect("small enough");
        }
        decoder.finish();
        std::iter::from_fn(|| decoder.next_event()).collect()
    }

    #[test]
    fn any_split_in_up_to_three_parts_gives_equal_events() {
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let parts = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(decode(parts), expected(), "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn single_bytes_give_equal_events() {
        assert_eq!(decode(STREAM.chunks(1)), expected());
    }

    #[test]
    fn an_oversized_event_is_refused_however_it_arrives() {
        let mut whole = Decoder::new(16);
        assert_eq!(whole.push(&[b'x'; 17]), Err(TooLarge));
        let mut lines = Decoder::new(16);
        assert_eq!(lines.push(b"data: 0123456789\ndata: 0123456789\n"), Err(TooLarge));
        let mut small = Decoder::new(16);
        for _ in 0..100 {
            small.push(b"data: 01234567\n\n").expect("each event is small enough");
        }
    }

    #[test]
    fn junk_never_panics_and_splits_do_not_matter() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let alphabet = b"data: \r\n:{}x\xff\xef\xbb\xbf";
            let bytes: Vec<u8> =
                (0..random.usize(..60)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
            let cut = random.usize(..=bytes.len());
            assert_eq!(decode([&bytes[..cut], &bytes[cut..]]), decode([bytes.as_slice()]));
        }
    }
}

//! Readers of streams that continue from their last position, and report when Redis trimmed a stream past it or lost its
//! data.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis::{
    Cmd, FromRedisValue, Value, cmd,
    streams::{StreamId, StreamRangeReply, StreamReadReply},
};
use tokio::time::sleep;

use super::{
    core::{BACKGROUND_TIMEOUT, Core},
    event::{Event, Message},
    link::{Conn, Fault, Link, within},
    log::Position,
};

/// Messages of a stream read at once.
const PAGE: usize = 500;

/// Learner events read at once. They are larger: a page is some megabytes at most.
const LEARNER_EVENTS_PAGE: usize = 16;

/// Maximum time that a read waits for messages. It blocks in Redis, on a connection of its own.
const WAIT: Duration = Duration::from_millis(500);

/// Pause between two reads of a cluster, whose client cannot block on a connection.
const POLL: Duration = Duration::from_millis(50);

/// Streams with the position in each.
pub struct Tail {
    streams: Vec<String>,
    /// Last message read, by stream.
    positions: Vec<Position>,
    /// Messages of a stream read at once.
    page: usize,
    read_only: bool,
    /// A connection whose reads may block. `None` before the first read and after a fault; then the positions are checked.
    conn: Option<Conn>,
    /// Time at which everything had been read.
    pub caught_up: Instant,
}

/// The result of a read.
pub enum Update {
    /// Messages in the order of each stream.
    Messages(Vec<(Position, Message)>),
    /// Some messages were lost unread. The next read continues at the ends of the streams.
    Missed,
}

impl Tail {
    /// Follows `streams` from their ends. An empty stream gets a message, unless it is `read_only`.
    pub async fn at_end(core: &Core, streams: Vec<String>, read_only: bool) -> Result<Self, Fault> {
        let mut tail = Self { read_only, ..Self::from(streams, Vec::new()) };
        tail.positions = vec![Position::default(); tail.streams.len()];
        tail.skip_to_end(core).await?;
        Ok(tail)
    }

    /// Continues from `positions`. Read-only.
    pub fn from(streams: Vec<String>, positions: Vec<Position>) -> Self {
        Self { streams, positions, page: PAGE, read_only: true, conn: None, caught_up: Instant::now() }
    }

    /// Reads learner events, in smaller pages.
    pub fn of_learner_events(self) -> Self {
        Self { page: LEARNER_EVENTS_PAGE, ..self }
    }

    /// Waits for messages, at most about half a second.
    ///
    /// # Errors
    /// [`Fault`]. The next read reconnects and continues where this one was.
    pub async fn read(&mut self, core: &Core) -> Result<Update, Fault> {
        let update = self.try_read(core).await;
        if update.is_err() {
            self.conn = None;
        }
        update
    }

    /// Position in the first stream.
    pub fn position(&self) -> Position {
        self.positions[0]
    }

    /// Position in each stream.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    async fn try_read(&mut self, core: &Core) -> Result<Update, Fault> {
        if self.conn.is_none() {
            self.conn = Some(core.link.dedicated().await?);
            if !self.is_intact(&core.link).await? {
                self.skip_to_end(core).await?;
                return Ok(Update::Missed);
            }
        }
        let pages = self.pages().await?;
        // A reader that gets less than a page has kept up, so nothing was trimmed unread.
        let is_behind = pages.iter().any(|page| page.len() >= self.page);
        if is_behind && !self.is_intact(&core.link).await? {
            self.skip_to_end(core).await?;
            return Ok(Update::Missed);
        }
        if !is_behind {
            self.caught_up = Instant::now();
        }
        Ok(Update::Messages(self.advance(&pages)))
    }

    /// Advances the positions and decodes the messages.
    fn advance(&mut self, pages: &[Vec<StreamId>]) -> Vec<(Position, Message)> {
        let mut messages = Vec::new();
        for (position, page) in self.positions.iter_mut().zip(pages) {
            for entry in page {
                let Ok(at) = entry.id.parse() else { continue };
                *position = at;
                messages.extend(Message::read(&entry.map).map(|message| (at, message)));
            }
        }
        messages
    }

    /// Reads what is new in each stream.
    async fn pages(&mut self) -> Result<Vec<Vec<StreamId>>, Fault> {
        let Some(conn) = &mut self.conn else { return Err(Fault::Unreachable("not connected".to_owned())) };
        if let Conn::Single(_) = conn {
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(self.page).arg("BLOCK").arg(WAIT.as_millis() as u64).arg("STREAMS");
            read.arg(&self.streams).arg(self.positions.iter().map(Position::to_string).collect::<Vec<_>>());
            let read: Option<StreamReadReply> = blocking(conn, &read).await?;
            return Ok(self.by_stream(read));
        }
        let until = Instant::now() + WAIT;
        loop {
            let mut pages = Vec::with_capacity(self.streams.len());
            for (stream, position) in self.streams.iter().zip(&self.positions) {
                let mut read = cmd("XREAD");
                read.arg("COUNT").arg(self.page).arg("STREAMS").arg(stream).arg(position.to_string());
                let read: Option<StreamReadReply> = blocking(conn, &read).await?;
                pages.push(read.into_iter().flat_map(|read| read.keys).flat_map(|key| key.ids).collect());
            }
            if Instant::now() >= until || pages.iter().any(|page: &Vec<_>| !page.is_empty()) {
                return Ok(pages);
            }
            sleep(POLL).await;
        }
    }

    fn by_stream(&self, read: Option<StreamReadReply>) -> Vec<Vec<StreamId>> {
        let mut pages = vec![Vec::new(); self.streams.len()];
        for key in read.into_iter().flat_map(|read| read.keys) {
            if let Some(at) = self.streams.iter().position(|stream| *stream == key.key) {
                pages[at] = key.ids;
            }
        }
        pages
    }

    /// Whether the last message read is still in each stream. Then nothing after it can have been lost.
    async fn is_intact(&self, link: &Link) -> Result<bool, Fault> {
        for (stream, position) in self.streams.iter().zip(&self.positions) {
            let at = position.to_string();
            let there = range(link, cmd("XRANGE").arg(stream).arg(&at).arg(&at)).await?;
            if there.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves to the ends of the streams.
    async fn skip_to_end(&mut self, core: &Core) -> Result<(), Fault> {
        for (stream, position) in self.streams.iter().zip(&mut self.positions) {
            *position = match last(&core.link, stream).await? {
                Some(last) => last,
                None if self.read_only => Position::default(),
                None => core.append(stream, None, Event::Opened).await?,
            };
        }
        self.caught_up = Instant::now();
        Ok(())
    }
}

/// Position of the last message of a stream.
pub async fn last(link: &Link, stream: &str) -> Result<Option<Position>, Fault> {
    let last = range(link, cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(1)).await?;
    Ok(last.first().and_then(|entry| entry.id.parse().ok()))
}

/// Whether a stream was trimmed. A server older than Redis 7 does not report it, so the answer is yes.
pub async fn was_trimmed(link: &Link, stream: &str) -> Result<bool, Fault> {
    let info = cmd("XINFO").arg("STREAM").arg(stream).clone();
    let info: HashMap<String, Value> = link.call_within(BACKGROUND_TIMEOUT, &info).await?;
    let number = |name| redis::from_redis_value_ref::<u64>(info.get(name)?).ok();
    Ok(number("entries-added").is_none_or(|added| Some(added) != number("length")))
}

/// Reads a range of a stream.
pub async fn range(link: &Link, command: &Cmd) -> Result<Vec<StreamId>, Fault> {
    let read: StreamRangeReply = link.call_within(BACKGROUND_TIMEOUT, command).await?;
    Ok(read.ids)
}

/// Sends a command that may block in Redis.
async fn blocking<T: FromRedisValue>(conn: &mut Conn, command: &Cmd) -> Result<T, Fault> {
    within(WAIT + BACKGROUND_TIMEOUT, command.query_async(conn)).await
}

//! Reads streams from where it left them, and says when it missed something: when Redis trimmed a stream past
//! that point, or lost what it had there.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis::{
    Cmd, FromRedisValue, Value, cmd,
    streams::{StreamId, StreamRangeReply, StreamReadReply},
};
use tokio::time::{sleep, timeout};

use super::{
    core::{BACKGROUND_PATIENCE, Core},
    event::{Event, Message},
    link::{Conn, Fault, Link},
    log::Position,
};

/// Entries of one stream read at once.
const PAGE: usize = 500;

/// The same of lessons, which are larger: at most some megabytes together.
const LESSONS_PAGE: usize = 16;

/// Longest a read waits for news. A connection of its own waits in Redis.
const WAIT: Duration = Duration::from_millis(500);

/// Pause between two looks at a cluster, whose client has no connection to spare for waiting.
const POLL: Duration = Duration::from_millis(50);

/// Some streams, and the place in each.
pub struct Tail {
    streams: Vec<String>,
    /// Last entry read, by stream.
    positions: Vec<Position>,
    /// Entries of one stream read at once.
    page: usize,
    read_only: bool,
    /// A connection whose reads may wait; `None` when it must be made, and the places be checked.
    conn: Option<Conn>,
    /// When everything that there was had been read.
    pub caught_up: Instant,
}

/// What a read found.
pub enum News {
    /// Entries in the order of each stream.
    Messages(Vec<(Position, Message)>),
    /// Some entries are gone unread. Goes on with what comes from now on.
    Missed,
}

// === impl Tail ===

impl Tail {
    /// Follows `streams` from their present ends. A stream without entries gets one, unless it is another
    /// region's.
    pub async fn at_end(core: &Core, streams: Vec<String>, read_only: bool) -> Result<Self, Fault> {
        let mut tail = Self { read_only, ..Self::from(streams, Vec::new()) };
        tail.positions = vec![Position::default(); tail.streams.len()];
        tail.skip_to_end(core).await?;
        Ok(tail)
    }

    /// Goes on from `positions` in another region.
    pub fn from(streams: Vec<String>, positions: Vec<Position>) -> Self {
        Self { streams, positions, page: PAGE, read_only: true, conn: None, caught_up: Instant::now() }
    }

    /// Reads lessons.
    pub fn of_lessons(self) -> Self {
        Self { page: LESSONS_PAGE, ..self }
    }

    /// Waits for news, about half a second at most.
    ///
    /// # Errors
    /// [`Fault`]; the next read connects anew, and goes on where this one was.
    pub async fn read(&mut self, core: &Core) -> Result<News, Fault> {
        let news = self.try_read(core).await;
        if news.is_err() {
            self.conn = None;
        }
        news
    }

    /// Where it is in its only stream.
    pub fn position(&self) -> Position {
        self.positions[0]
    }

    /// Where it is in each.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    async fn try_read(&mut self, core: &Core) -> Result<News, Fault> {
        if self.conn.is_none() {
            self.conn = Some(core.link.dedicated().await?);
            if !self.all_there(&core.link).await? {
                self.skip_to_end(core).await?;
                return Ok(News::Missed);
            }
        }
        let pages = self.pages().await?;
        // Whoever reads less than a page has kept up, so nothing was trimmed before it was read.
        let is_behind = pages.iter().any(|page| page.len() >= self.page);
        if is_behind && !self.all_there(&core.link).await? {
            self.skip_to_end(core).await?;
            return Ok(News::Missed);
        }
        if !is_behind {
            self.caught_up = Instant::now();
        }
        Ok(News::Messages(self.advance(&pages)))
    }

    /// Moves behind what was read.
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

    /// What is new in each stream.
    async fn pages(&mut self) -> Result<Vec<Vec<StreamId>>, Fault> {
        let Some(conn) = &mut self.conn else { return Err(Fault::Away("not connected".to_owned())) };
        if let Conn::Single(_) = conn {
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(self.page).arg("BLOCK").arg(WAIT.as_millis() as u64).arg("STREAMS");
            read.arg(&self.streams).arg(self.positions.iter().map(Position::to_string).collect::<Vec<_>>());
            let read: Option<StreamReadReply> = ask(conn, &read).await?;
            return Ok(self.by_stream(read));
        }
        let until = Instant::now() + WAIT;
        loop {
            let mut pages = Vec::with_capacity(self.streams.len());
            for (stream, position) in self.streams.iter().zip(&self.positions) {
                let mut read = cmd("XREAD");
                read.arg("COUNT").arg(self.page).arg("STREAMS").arg(stream).arg(position.to_string());
                let read: Option<StreamReadReply> = ask(conn, &read).await?;
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

    /// Whether what was read last is still there: nothing behind it can be gone then.
    async fn all_there(&self, link: &Link) -> Result<bool, Fault> {
        for (stream, position) in self.streams.iter().zip(&self.positions) {
            let at = position.to_string();
            let there = range(link, cmd("XRANGE").arg(stream).arg(&at).arg(&at)).await?;
            if there.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves to the ends.
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

/// The last entry of a stream.
pub async fn last(link: &Link, stream: &str) -> Result<Option<Position>, Fault> {
    let last = range(link, cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(1)).await?;
    Ok(last.first().and_then(|entry| entry.id.parse().ok()))
}

/// Whether entries of a stream were dropped because it was too long. A server older than Redis 7 does not say,
/// so it counts as having done so.
pub async fn was_trimmed(link: &Link, stream: &str) -> Result<bool, Fault> {
    let info = cmd("XINFO").arg("STREAM").arg(stream).clone();
    let info: HashMap<String, Value> = link.call_within(BACKGROUND_PATIENCE, &info).await?;
    let number = |name| redis::from_redis_value_ref::<u64>(info.get(name)?).ok();
    Ok(number("entries-added").is_none_or(|added| Some(added) != number("length")))
}

/// Entries of one stream.
pub async fn range(link: &Link, command: &Cmd) -> Result<Vec<StreamId>, Fault> {
    let read: StreamRangeReply = link.call_within(BACKGROUND_PATIENCE, command).await?;
    Ok(read.ids)
}

/// A command that may wait in Redis.
async fn ask<T: FromRedisValue>(conn: &mut Conn, command: &Cmd) -> Result<T, Fault> {
    let reply = timeout(WAIT + BACKGROUND_PATIENCE, command.query_async(conn)).await;
    Ok(reply.map_err(|_| Fault::Away("no reply in time".to_owned()))??)
}

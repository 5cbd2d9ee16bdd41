//! A place in a log, from which it is read page by page.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lazyfox_core::time::Timestamp;
use tokio::sync::{Semaphore, watch};

use super::record::Record;
use super::segments::{Head, path};
use crate::providers::Source;
use crate::when::rfc3339;

/// Bytes read at once. Longer than any line.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes read for one page, whether or not anything in them was looked for: then others have their turn,
/// and a reader that went away is noticed.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// Which lines are wanted. What does not exist has none.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this worker.
    pub worker: Option<String>,
    /// Of this job.
    pub job: Option<String>,
    /// From this source.
    pub source: Option<Source>,
}

impl Filter {
    fn wants(&self, line: &Record<'_>) -> bool {
        self.source.is_none_or(|source| source == line.source)
            && self.worker.as_deref().is_none_or(|it| it == line.worker)
            && (self.job.is_none() || self.job.as_deref() == line.job)
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// After the line of this number; 0 is the beginning.
    After(u64),
    /// At the first line since then.
    Since(Timestamp),
    /// At the last so many lines of those that are wanted.
    Tail(usize),
}

/// Lines in a row.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What was made of the lines.
    pub text: Vec<u8>,
    /// How many they are.
    pub lines: usize,
    /// Before them some are missing, because the log was cut: of those after the first number and up to
    /// the second one.
    pub missed: Option<(u64, u64)>,
    /// Up to here everything was looked at.
    pub position: u64,
    /// Whether there is more to read at once.
    pub more: bool,
}

/// How much there may be on a page.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Lines.
    pub lines: usize,
    /// Bytes of what is made of them; the last line may go beyond it.
    pub bytes: usize,
}

/// How a line is written to the end of a page's text.
pub type Write = fn(&Record<'_>, &mut Vec<u8>);

/// Somebody who reads a log.
pub struct Reader {
    dir: PathBuf,
    heads: watch::Receiver<Head>,
    filter: Filter,
    /// Nothing before is wanted.
    since: String,
    position: u64,
    open: Option<Open>,
    reads: Arc<Semaphore>,
}

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    /// It is taken, and so may be the next.
    More,
    /// It is taken, and was the last.
    Enough,
    /// It is left for later.
    NotThis,
}

/// The file that is read.
struct Open {
    start: u64,
    file: File,
    offset: u64,
}

impl Reader {
    pub(super) fn new(
        dir: PathBuf,
        heads: watch::Receiver<Head>,
        filter: Filter,
        reads: Arc<Semaphore>,
    ) -> Self {
        Self {
            dir,
            heads,
            filter,
            since: String::new(),
            position: 0,
            open: None,
            reads,
        }
    }

    /// Up to here everything was looked at.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to where reading begins.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn go(self, from: Begin) -> io::Result<Self> {
        let head = self.heads.borrow().clone();
        let oldest = head
            .starts
            .first()
            .map_or(head.last, |start| start.saturating_sub(1));
        match from {
            // Who asks from the beginning misses nothing, whatever went before.
            Begin::After(0) => Ok(self.at(oldest)),
            // Greater ones were of a log that is no more, and nobody shall wait for them to come again.
            Begin::After(number) => Ok(self.at(number.min(head.last))),
            Begin::Since(at) => self.since(at, head, oldest).await,
            Begin::Tail(count) => self.tail(count, head, oldest).await,
        }
    }

    fn at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    async fn since(mut self, at: Timestamp, head: Head, oldest: u64) -> io::Result<Self> {
        self.since = rfc3339(at);
        let since = u64::try_from(at.as_ms()).unwrap_or(0).saturating_mul(1000);
        // A line's number is not below that of its time, so what comes before a file that begins with a
        // lower one is older than wanted.
        let begun = head.starts.partition_point(|&start| start <= since);
        let Some(index) = begun.checked_sub(1) else {
            return Ok(self.at(oldest));
        };
        let end = head.starts.get(begun).map_or(head.last, |next| next - 1);
        let start = head.starts[index];
        let (it, before) = self
            .blocking(move |it| it.last_before(start, head.last))
            .await?;
        Ok(it.at(before.unwrap_or(end)))
    }

    async fn tail(mut self, count: usize, head: Head, oldest: u64) -> io::Result<Self> {
        let mut left = count;
        for &start in head.starts.iter().rev() {
            if left == 0 {
                break;
            }
            let last = head.last;
            let found;
            (self, found) = self
                .blocking(move |it| it.last_of(start, last, left))
                .await?;
            left -= found.len();
            if let (0, Some(first)) = (left, found.front()) {
                return Ok(self.at(first - 1));
            }
        }
        Ok(self.at(if count == 0 { head.last } else { oldest }))
    }

    /// The next lines, as many as there are and may be.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn page(mut self, most: Most, write: Write) -> io::Result<(Self, Page)> {
        let head = self.heads.borrow_and_update().clone();
        if self.position >= head.last {
            let position = self.position;
            let page = Page {
                position,
                ..Page::default()
            };
            return Ok((self, page));
        }
        self.blocking(move |it| it.read(&head, most, write)).await
    }

    /// Waits until there may be more; false when there will be none, because the server is being stopped.
    pub async fn more(&mut self) -> bool {
        self.heads.changed().await.is_ok()
    }

    async fn blocking<T: Send + 'static>(
        mut self,
        read: impl FnOnce(&mut Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Self, T)> {
        // It is never closed.
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&mut self).map(|found| (self, found))
        });
        reading.await.map_err(io::Error::other)?
    }

    /// The numbers of the last lines of a file that are wanted.
    fn last_of(&mut self, start: u64, last: u64, count: usize) -> io::Result<VecDeque<u64>> {
        let mut found = VecDeque::new();
        let Some(mut open) = Open::at(&self.dir, start)? else {
            return Ok(found);
        };
        let filter = &self.filter;
        let mut note = |line: &Record<'_>| {
            if line.number <= last && filter.wants(line) {
                if found.len() == count {
                    found.pop_front();
                }
                found.push_back(line.number);
            }
            if line.number < last {
                Take::More
            } else {
                Take::Enough
            }
        };
        while open.lines(&mut note)? {}
        Ok(found)
    }

    /// The number below that of the first line of a file that is new enough.
    fn last_before(&mut self, start: u64, last: u64) -> io::Result<Option<u64>> {
        let mut found = None;
        let Some(mut open) = Open::at(&self.dir, start)? else {
            return Ok(found);
        };
        let mut note = |line: &Record<'_>| {
            if line.number > last {
                return Take::NotThis;
            }
            if line.at < self.since.as_str() {
                return Take::More;
            }
            found = Some(line.number - 1);
            Take::Enough
        };
        while open.lines(&mut note)? {}
        Ok(found)
    }

    fn read(&mut self, head: &Head, most: Most, write: Write) -> io::Result<Page> {
        let mut page = Page::default();
        let mut left = PAGE_BYTES;
        while self.position < head.last && left > 0 && page.lines < most.lines {
            // The newest file that begins with what comes next or before it.
            let index = head
                .starts
                .partition_point(|&start| start <= self.position + 1);
            let end = head.starts.get(index).map_or(head.last, |next| next - 1);
            if index == 0 {
                if page.lines > 0 {
                    break;
                }
                self.miss(&mut page, end);
                continue;
            }
            let start = head.starts[index - 1];
            if self.open.as_ref().is_none_or(|open| open.start != start) {
                self.open = Open::at(&self.dir, start)?;
            }
            let Some(mut open) = self.open.take() else {
                // It was deleted for newer lines, or by somebody.
                if page.lines > 0 {
                    break;
                }
                self.miss(&mut page, end);
                continue;
            };
            let before = open.offset;
            let goes_on =
                open.lines(&mut |line| self.take(line, head.last, most, write, &mut page))?;
            left = left.saturating_sub(open.offset - before);
            let is_full = page.lines >= most.lines || page.text.len() >= most.bytes;
            if !goes_on && !is_full {
                // All of it that is there was read.
                self.position = end;
            }
            self.open = Some(open);
            if is_full {
                break;
            }
        }
        page.position = self.position;
        page.more = self.position < head.last;
        Ok(page)
    }

    /// Puts a line on the page if it is wanted.
    fn take(
        &mut self,
        line: &Record<'_>,
        last: u64,
        most: Most,
        write: Write,
        page: &mut Page,
    ) -> Take {
        if line.number > last {
            return Take::NotThis;
        }
        if line.number > self.position {
            self.position = line.number;
            if self.filter.wants(line) && line.at >= self.since.as_str() {
                write(line, &mut page.text);
                page.lines += 1;
            }
        }
        if page.lines < most.lines && page.text.len() < most.bytes {
            Take::More
        } else {
            Take::Enough
        }
    }

    fn miss(&mut self, page: &mut Page, end: u64) {
        let from = page.missed.map_or(self.position, |(from, _)| from);
        page.missed = Some((from, end));
        self.position = end;
    }
}

impl Open {
    /// `None` when there is no such file.
    fn at(dir: &Path, start: u64) -> io::Result<Option<Self>> {
        match File::open(path(dir, start)) {
            Ok(file) => Ok(Some(Self {
                start,
                file,
                offset: 0,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands on the next whole lines of a chunk until no more are wanted, and stays behind the last one that
    /// was. False at the end of what there is, or of what is wanted.
    fn lines(&mut self, take: &mut dyn FnMut(&Record<'_>) -> Take) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = self.file.read_at(&mut chunk, self.offset)?;
        let chunk = &chunk[..read];
        let Some(end) = chunk.iter().rposition(|&byte| byte == b'\n') else {
            // A line that is being written, or what is none at all.
            let skipped = read == CHUNK_BYTES;
            self.offset += if skipped { read as u64 } else { 0 };
            return Ok(skipped);
        };
        for line in chunk[..end].split(|&byte| byte == b'\n') {
            let taken = Record::parse(line).map_or(Take::More, |line| take(&line));
            if taken == Take::NotThis {
                return Ok(false);
            }
            self.offset += line.len() as u64 + 1;
            if taken == Take::Enough {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

//! Follows the log that a worker writes, line by line, and keeps it from filling the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::providers::lines::{LastLines, Splitter};

/// A log longer than this is cut to nothing once it has been read, in bytes. Enough to look into
/// while the worker lives, and little beside the models that workers load.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How much is read before other tasks get their turn, in bytes. The log is in the page cache, so
/// this takes some tens of microseconds and is not worth a thread of its own.
const CHUNK_BYTES: usize = 64 * 1024;

/// One reader of one growing log.
pub(super) struct Tail {
    file: File,
    /// Up to here the log has been read.
    offset: u64,
    splitter: Splitter,
    last: LastLines,
    log_bytes_max: u64,
}

impl Tail {
    /// Reads the whole log.
    pub(super) fn from_start(path: &Path) -> io::Result<Self> {
        Ok(Self {
            // Writable, because it cuts the log as well.
            file: File::options().read(true).write(true).open(path)?,
            offset: 0,
            splitter: Splitter::default(),
            last: LastLines::default(),
            log_bytes_max: LOG_BYTES_MAX,
        })
    }

    /// Reads only what is added from now on, but knows the last lines already written, so that they
    /// can be reported.
    pub(super) fn from_end(path: &Path) -> io::Result<Self> {
        let mut tail = Self::from_start(path)?;
        let end = tail.file.metadata()?.len();
        tail.offset = end.saturating_sub(CHUNK_BYTES as u64);
        let cut = tail.offset > 0;
        let mut bytes = vec![0; CHUNK_BYTES];
        let read = tail.file.read_at(&mut bytes, tail.offset)?;
        tail.offset += read as u64;
        bytes.truncate(read);
        // Where the first piece of a line is missing, the rest of it would only mislead.
        let whole = match bytes.iter().position(|&byte| byte == b'\n') {
            Some(end) if cut => &bytes[end + 1..],
            _ => &bytes[..],
        };
        tail.split(whole, &|_| ());
        Ok(tail)
    }

    /// Hands on every line completed since the last call, up to the end that the log has now: a
    /// worker that never stops writing must not keep its end from being noticed.
    pub(super) async fn catch_up(&mut self, say: &(dyn Fn(&str) + Sync)) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        if end < self.offset {
            // Somebody else cut the log.
            self.offset = 0;
        }
        if end - self.offset > self.log_bytes_max {
            let dropped = end - self.offset;
            self.cut()?;
            self.splitter.forget();
            self.keep(
                format!("[{dropped} bytes of output were dropped: written faster than read]"),
                say,
            );
            return Ok(());
        }
        let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(end - self.offset).unwrap_or(0))];
        while self.offset < end {
            let read = self.file.read_at(&mut chunk, self.offset)?;
            if read == 0 {
                break;
            }
            self.offset += read as u64;
            self.split(&chunk[..read], say);
            tokio::task::yield_now().await;
        }
        if self.offset > self.log_bytes_max && self.file.metadata()?.len() == self.offset {
            self.cut()?;
        }
        Ok(())
    }

    /// Hands on a last line without an end, and returns the last lines.
    pub(super) fn finish(mut self, say: &(dyn Fn(&str) + Sync)) -> Vec<String> {
        self.splitter.finish(&mut |line| {
            say(&line);
            self.last.keep(line);
        });
        self.last.into()
    }

    /// Cuts the log to nothing. Safe while the worker writes, because it has the file open for
    /// appending: its next write goes to the new end and leaves no hole. What it writes between the
    /// last look at the length and the cut is lost, which is the price of needing nothing from the
    /// worker; it is paid once in 64 MiB.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.offset = 0;
        Ok(())
    }

    fn split(&mut self, bytes: &[u8], say: &(dyn Fn(&str) + Sync)) {
        self.splitter.feed(bytes, &mut |line| {
            say(&line);
            self.last.keep(line);
        });
    }

    fn keep(&mut self, line: String, say: &(dyn Fn(&str) + Sync)) {
        say(&line);
        self.last.keep(line);
    }
}

#[cfg(test)]
mod tests;

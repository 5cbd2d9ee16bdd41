//! What workers write, in lines of bounded length, and the last of them.

use std::collections::VecDeque;

/// Longest line handed on, in bytes; a longer one comes in pieces.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

/// How many lines are kept for the report of a worker's end: a Python traceback of usual depth.
pub(super) const LAST_LINES: usize = 20;

/// Makes lines of the bytes of one stream.
#[derive(Default)]
pub(super) struct Splitter {
    /// The beginning of a line whose end has not been written yet.
    partial: Vec<u8>,
}

impl Splitter {
    /// Hands on every line that these bytes complete.
    pub(super) fn feed(&mut self, bytes: &[u8], line: &mut dyn FnMut(String)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut rest = text;
            while !rest.is_empty() {
                if self.partial.len() == LINE_BYTES_MAX {
                    self.end_line(line);
                }
                let room = LINE_BYTES_MAX - self.partial.len();
                let (fits, later) = rest.split_at(rest.len().min(room));
                self.partial.extend_from_slice(fits);
                rest = later;
            }
            if ends {
                self.end_line(line);
            }
        }
    }

    /// Hands on a last line without an end.
    pub(super) fn finish(&mut self, line: &mut dyn FnMut(String)) {
        if !self.partial.is_empty() {
            self.end_line(line);
        }
    }

    /// Whether a line has begun and not ended.
    pub(super) fn is_within_a_line(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Forgets a line that has begun.
    pub(super) fn forget(&mut self) {
        self.partial.clear();
    }

    fn end_line(&mut self, line: &mut dyn FnMut(String)) {
        let bytes = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.partial.clear();
        line(text);
    }
}

/// The last lines of a worker, oldest first.
#[derive(Default)]
pub(super) struct LastLines(VecDeque<String>);

impl LastLines {
    /// Adds one; the oldest goes when there are too many.
    pub(super) fn keep(&mut self, line: String) {
        if self.0.len() == LAST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// A copy of them.
    pub(super) fn to_vec(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

impl From<Vec<String>> for LastLines {
    fn from(lines: Vec<String>) -> Self {
        let mut last = Self::default();
        lines.into_iter().for_each(|line| last.keep(line));
        last
    }
}

impl From<LastLines> for Vec<String> {
    fn from(lines: LastLines) -> Self {
        lines.0.into()
    }
}

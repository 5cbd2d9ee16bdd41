//! What a job says while it runs: passed on line by line, and the end of it kept.

use std::collections::VecDeque;
use std::fmt::Write as _;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

/// Longest line passed on, in bytes; a longer one comes in pieces.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How many lines are kept for the job's error: a traceback of usual depth.
const LAST_LINES: usize = 20;
/// How much of them: an error is for people.
const LAST_BYTES: usize = 8 * 1024;
/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// Lines that come in pieces.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    last: VecDeque<String>,
}

impl Lines {
    /// Takes the next bytes in, and hands each line on that they complete.
    fn push(&mut self, mut bytes: &[u8], say: &mut impl FnMut(&str)) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            let within = bytes.get(..room).unwrap_or(bytes);
            match within.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    self.partial.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    self.end_line(say);
                }
                None => {
                    self.partial.extend_from_slice(within);
                    bytes = &bytes[within.len()..];
                    if self.partial.len() == LINE_BYTES_MAX {
                        self.end_line(say);
                    }
                }
            }
        }
    }

    fn end_line(&mut self, say: &mut impl FnMut(&str)) {
        let bytes = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches('\r');
        say(line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    /// The last lines, one under the other.
    fn finish(mut self, say: &mut impl FnMut(&str)) -> String {
        if !self.partial.is_empty() {
            self.end_line(say);
        }
        let text = Vec::from(self.last).join("\n");
        let text = text.trim_end();
        let cut = text.len().saturating_sub(LAST_BYTES);
        let start = (cut..).find(|&at| text.is_char_boundary(at));
        text[start.unwrap_or_default()..].to_owned()
    }
}

/// Passes on what a job writes, to our own standard error and with its name before each line, until the
/// end. Gives back the last lines.
pub(super) async fn pass_on(mut from: impl AsyncRead + Unpin, job: String) -> String {
    let mut lines = Lines::default();
    let mut stderr = tokio::io::stderr();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut text = String::new();
    let write = |text: &mut String, line: &str| {
        writeln!(text, "{job}: {line}").expect("writing to a string cannot fail");
    };
    // A pipe that breaks has no more to say than one that ends.
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        lines.push(&chunk[..count], &mut |line| write(&mut text, line));
        // That nobody reads our log is no reason to end a job.
        stderr.write_all(text.as_bytes()).await.ok();
        text.clear();
    }
    let last = lines.finish(&mut |line| write(&mut text, line));
    stderr.write_all(text.as_bytes()).await.ok();
    stderr.flush().await.ok();
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let mut said = Vec::new();
        let mut lines = Lines::default();
        let mut say = |line: &str| said.push(line.to_owned());
        for piece in pieces {
            lines.push(piece, &mut say);
        }
        let last = lines.finish(&mut say);
        (said, last)
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let (said, last) = lines(&[b"on", b"e\r\ntwo\n\nth", b"ree \xff"]);
        assert_eq!(said, ["one", "two", "", "three \u{fffd}"]);
        assert_eq!(last, "one\ntwo\n\nthree \u{fffd}");
        assert_eq!(lines(&[]), (Vec::new(), String::new()));
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let long = vec![b'x'; LINE_BYTES_MAX + 10];
        let (said, _) = lines(&[&long, b"\n", &long[..LINE_BYTES_MAX], b"\nend"]);
        let lengths: Vec<usize> = said.iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, 10, LINE_BYTES_MAX, 0, 3]);
    }

    #[test]
    fn only_the_end_is_kept() {
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        let (said, last) = lines(&[many.as_bytes()]);
        assert_eq!(said.len(), 100);
        assert!(last.starts_with("80\n") && last.ends_with("\n99"), "{last}");
        let wide = "ü".repeat(LINE_BYTES_MAX / 2 - 1);
        let (_, last) = lines(&[wide.as_bytes(), b"\nend"]);
        assert!(last.len() <= LAST_BYTES && last.ends_with("ü\nend"));
    }
}

//! Reads what a container writes, each piece once, over every interruption.
//!
//! The engine puts the time before each piece and can be asked for all since a second. So it is enough to
//! know the second of the last piece, and how many of that second were read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;

use super::home::Mark;
use crate::providers::lines::{LastLines, Splitter};

/// How often it is written down how far the output was read. After a kill of the server so much of it
/// is said twice, which is better than never.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Longer than any time before a piece, in bytes.
const STAMP_BYTES_MAX: usize = 40;

/// Pieces that are remembered of a stream, to know them again.
const RECENT: usize = 8192;

const NANOSECONDS: i64 = 1_000_000_000;

/// Stdout or stderr of one container.
#[derive(Default)]
struct Stream {
    splitter: Splitter,
    /// When the last pieces were written, in nanoseconds of the epoch.
    recent: VecDeque<i64>,
    /// Which of them is expected once more.
    repeat: Option<usize>,
}

impl Stream {
    /// Whether a piece is one that the engine said already, and so are those after it, in the same order.
    /// Engines before version 23 begin the file once more when they began it while it was read.
    fn is_repeated(&mut self, written: i64) -> bool {
        if let Some(next) = self.repeat.take()
            && self.recent.get(next) == Some(&written)
        {
            self.repeat = Some(next + 1);
            return true;
        }
        // A clock that was set back does not hit the same nanosecond.
        if self.recent.back().is_some_and(|last| written < *last)
            && let Some(first) = self.recent.iter().position(|it| *it == written)
        {
            self.repeat = Some(first + 1);
            return true;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(written);
        false
    }
}

/// The output of one container.
pub(super) struct Log {
    stdout: Stream,
    stderr: Stream,
    last: LastLines,
    /// Up to here it was read.
    second: i64,
    pieces: u64,
    /// Pieces that come again because the engine was asked anew.
    again: u64,
    /// Up to here whole lines were handed on: a mark within a line would cut it in two.
    whole: (i64, u64),
    /// Writes the mark down.
    keep: Box<dyn Fn(&Mark) + Send>,
    /// When that was done, and whether there is something new to write.
    kept: Instant,
    is_new: bool,
}

impl Log {
    /// Goes on where a mark says, or begins.
    pub(super) fn from(mark: Mark, keep: impl Fn(&Mark) + Send + 'static) -> Self {
        Self {
            stdout: Stream::default(),
            stderr: Stream::default(),
            last: mark.last_lines.into(),
            second: mark.second,
            pieces: mark.pieces,
            again: 0,
            whole: (mark.second, mark.pieces),
            keep: Box::new(keep),
            kept: Instant::now(),
            is_new: false,
        }
    }

    /// From which second on the engine is asked, now that it is asked anew.
    pub(super) fn resume(&mut self) -> i32 {
        self.again = self.pieces;
        for stream in [&mut self.stdout, &mut self.stderr] {
            stream.recent.clear();
            stream.repeat = None;
        }
        i32::try_from(self.second).unwrap_or(i32::MAX)
    }

    /// Hands on the lines that a piece completes.
    pub(super) fn take(&mut self, piece: &LogOutput, say: &(dyn Fn(&str) + Sync)) {
        let (stream, bytes) = match piece {
            LogOutput::StdErr { message } => (&mut self.stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                (&mut self.stdout, message)
            }
            LogOutput::StdIn { .. } => return,
        };
        let (written, text) = stamped(bytes);
        if let Some(written) = written {
            let second = written.div_euclid(NANOSECONDS);
            if self.again > 0 && second <= self.second {
                self.again -= 1;
                return;
            }
            if stream.is_repeated(written) {
                return;
            }
            if second > self.second {
                self.second = second;
                self.pieces = 0;
                self.again = 0;
            }
            self.pieces += 1;
        }
        stream.splitter.feed(text, &mut keeper(&mut self.last, say));
        let is_within = |stream: &Stream| stream.splitter.is_within_a_line();
        if !is_within(&self.stdout) && !is_within(&self.stderr) {
            self.whole = (self.second, self.pieces);
            self.is_new = true;
        }
        if self.is_new && self.kept.elapsed() >= MARK_EVERY {
            self.keep();
        }
    }

    fn keep(&mut self) {
        self.kept = Instant::now();
        self.is_new = false;
        let (second, pieces) = self.whole;
        (self.keep)(&Mark {
            second,
            pieces,
            last_lines: self.last.to_vec(),
        });
    }

    /// Hands on last lines without an end, and returns the last lines.
    pub(super) fn finish(mut self, say: &(dyn Fn(&str) + Sync)) -> Vec<String> {
        self.is_new = false;
        for stream in [&mut self.stdout, &mut self.stderr] {
            stream.splitter.finish(&mut keeper(&mut self.last, say));
        }
        self.last.to_vec()
    }
}

impl Drop for Log {
    /// The container goes on without this server.
    fn drop(&mut self) {
        if self.is_new {
            self.keep();
        }
    }
}

/// Says a line and keeps it.
fn keeper<'a>(last: &'a mut LastLines, say: &'a (dyn Fn(&str) + Sync)) -> impl FnMut(String) + 'a {
    move |line| {
        say(&line);
        last.keep(line);
    }
}

/// The time before a piece, in nanoseconds of the epoch, and the piece. What has none continues the piece
/// before.
fn stamped(bytes: &[u8]) -> (Option<i64>, &[u8]) {
    let end = bytes.iter().take(STAMP_BYTES_MAX).position(|&b| b == b' ');
    let written = end.and_then(|end| nanoseconds(std::str::from_utf8(&bytes[..end]).ok()?));
    match (written, end) {
        (Some(written), Some(end)) => (Some(written), &bytes[end + 1..]),
        (None, _) | (_, None) => (None, bytes),
    }
}

/// A time such as `2026-05-01T12:03:04.123456789Z`, or with `+02:00`, in nanoseconds of the epoch.
fn nanoseconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize, before: u8| {
        let digits = text.get(from..to)?;
        let is_sound = from == 0 || text.as_bytes()[from - 1] == before;
        let is_number = digits.bytes().all(|b| b.is_ascii_digit());
        (is_sound && is_number).then(|| digits.parse::<i64>().ok())?
    };
    let (year, month, day) = (number(0, 4, 0)?, number(5, 7, b'-')?, number(8, 10, b'-')?);
    let hour = number(11, 13, b'T')?;
    let (minute, second) = (number(14, 16, b':')?, number(17, 19, b':')?);
    let rest = text.get(19..)?;
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let digits = rest.strip_suffix(zone)?.trim_start_matches('.');
    let fraction: i64 = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    let offset_s = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let [h1, h2, m1, m2] = [h1, h2, m1, m2].map(|b| i64::from(b.wrapping_sub(b'0')));
            let offset_s = (h1 * 10 + h2) * 3600 + (m1 * 10 + m2) * 60;
            if *sign == b'-' { -offset_s } else { offset_s }
        }
        _ => return None,
    };
    // Days since 1970 in the calendar that begins its years in March, as leap days are then at the end.
    let (month_from_march, year) = ((month + 9) % 12, year - i64::from(month <= 2));
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (153 * month_from_march + 2) / 5 + day - 1 - 719_468;
    let second = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    second.checked_mul(NANOSECONDS)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn piece(text: &str) -> LogOutput {
        LogOutput::StdOut {
            message: text.to_owned().into(),
        }
    }

    fn begun() -> Log {
        Log::from(Mark::default(), |_| ())
    }

    fn taken(log: &mut Log, pieces: &[LogOutput]) -> Vec<String> {
        let lines = Mutex::new(Vec::new());
        for piece in pieces {
            log.take(piece, &|line| lines.lock().unwrap().push(line.to_owned()));
        }
        lines.into_inner().unwrap()
    }

    #[test]
    fn times_are_nanoseconds_of_the_epoch_in_any_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("2026-05-01T12:03:04.999999999Z", 1_777_636_984_999_999_999),
            ("2026-05-01T12:03:04Z", 1_777_636_984_000_000_000),
            ("2026-05-01T14:33:04.5+02:30", 1_777_636_984_500_000_000),
            ("2000-02-29T23:59:59.1-01:00", 951_872_399_100_000_000),
        ] {
            assert_eq!(nanoseconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "hello",
            "2026-05-01",
            "2026-05-01T12:03:04",
            "2026-05-01T12:03:04.5+2",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
        // Beyond what fits.
        assert_eq!(nanoseconds("9999-05-01T12:03:04Z"), None);
    }

    #[test]
    fn a_file_that_the_engine_begins_once_more_is_said_once() {
        let at = |n: u32, text: &str| piece(&format!("1970-01-01T00:00:01.{n}Z {text}\n"));
        let mut log = begun();
        let pieces = [
            at(1, "a"),
            at(2, "b"),
            at(3, "c"),
            at(2, "b"),
            at(3, "c"),
            at(4, "d"),
        ];
        assert_eq!(taken(&mut log, &pieces), ["a", "b", "c", "d"]);
        // A clock that was set back is no repetition.
        assert_eq!(taken(&mut log, &[at(25, "e")]), ["e"]);
        assert_eq!(log.resume(), 1);
        assert_eq!(log.again, 5);
    }

    #[test]
    fn lines_are_made_of_pieces_and_their_times_left_out() {
        let mut log = begun();
        let pieces = [
            piece("1970-01-01T00:00:01.5Z one\n"),
            piece("1970-01-01T00:00:02.5Z tw"),
            LogOutput::StdErr {
                message: "1970-01-01T00:00:02.6Z err\n".into(),
            },
            piece("1970-01-01T00:00:02.5Z o\n"),
            piece("no time"),
        ];
        assert_eq!(taken(&mut log, &pieces), ["one", "err", "two"]);
        assert_eq!(log.finish(&|_| ()), ["one", "err", "two", "no time"]);
    }

    #[test]
    fn what_comes_again_is_said_once() {
        let pieces = [
            piece("1970-01-01T00:00:01.1Z a\n"),
            piece("1970-01-01T00:00:02.1Z b\n"),
            piece("1970-01-01T00:00:02.1Z c\n"),
            piece("1970-01-01T00:00:02.2Z d\n"),
            piece("1970-01-01T00:00:03.1Z e\n"),
        ];
        let mut log = begun();
        assert_eq!(taken(&mut log, &pieces[..3]), ["a", "b", "c"]);
        assert_eq!(log.resume(), 2);
        // The engine leaves out what is older.
        assert_eq!(taken(&mut log, &pieces[1..]), ["d", "e"]);
        assert_eq!(log.resume(), 3);
        assert_eq!(taken(&mut log, &pieces[4..]), [""; 0]);
        assert_eq!(log.finish(&|_| ()), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn a_mark_says_where_the_next_server_goes_on() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = |kept: &Arc<Mutex<Vec<Mark>>>| {
            let kept = Arc::clone(kept);
            move |mark: &Mark| kept.lock().unwrap().push(mark.clone())
        };
        let mut log = Log::from(Mark::default(), keep(&kept));
        let line = piece("1970-01-01T00:00:02.1Z a\n");
        let begun = piece("1970-01-01T00:00:02.1Z beg");
        taken(&mut log, &[line.clone(), begun.clone()]);
        assert_eq!(kept.lock().unwrap().len(), 0, "not yet");
        log.kept -= MARK_EVERY;
        let end = piece("1970-01-01T00:00:02.1Z un\n");
        taken(
            &mut log,
            &[end.clone(), piece("1970-01-01T00:00:02.2Z half")],
        );
        drop(log);
        let mut marks = std::mem::take(&mut *kept.lock().unwrap());
        assert_eq!(marks.len(), 1, "nothing new, but half a line");
        let mark = marks.remove(0);
        assert_eq!((mark.second, mark.pieces), (2, 3));

        let mut log = Log::from(mark, keep(&kept));
        assert_eq!(log.resume(), 2);
        assert_eq!(taken(&mut log, &[line, begun, end]), [""; 0]);
        assert_eq!(
            taken(&mut log, &[piece("1970-01-01T00:00:02.9Z new\n")]),
            ["new"]
        );
        drop(log);
        let mark = kept.lock().unwrap().remove(0);
        assert_eq!(mark.last_lines, ["a", "begun", "new"]);

        let log = Log::from(mark, keep(&kept));
        assert_eq!(log.finish(&|_| ()), ["a", "begun", "new"]);
        assert_eq!(kept.lock().unwrap().len(), 0, "its end needs no mark");
    }
}

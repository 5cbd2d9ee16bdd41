//! A line as it stands in a file: `NUMBER TIME SOURCE WORKER JOB TEXT`. It can be read with `less` and
//! searched with `grep`.

use std::io::Write as _;

use super::Line;
use crate::providers::Source;
use crate::when::rfc3339;

/// Longest text of a line, in bytes; the rest of a longer one is cut. Providers hand on pieces of 16 KiB.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What stands where no job is known.
const NO_JOB: &str = "-";

/// A line that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number in the endpoint's log: later ones are greater, and none is used twice.
    pub number: u64,
    /// When it was seen, by RFC 3339 with milliseconds.
    pub at: &'a str,
    /// Who says it.
    pub source: Source,
    /// Who says it, or of whom it is said.
    pub worker: &'a str,
    /// The job that it is about, if that is known.
    pub job: Option<&'a str>,
    /// The line.
    pub text: &'a str,
}

impl<'a> Record<'a> {
    /// Reads a line of a file, without its end; `None` when it is none, or not whole.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.splitn(6, ' ');
        Some(Self {
            number: words.next()?.parse().ok()?,
            at: words.next().filter(|at| at.ends_with('Z'))?,
            source: source(words.next()?)?,
            worker: words.next()?,
            job: words.next().map(|job| (job != NO_JOB).then_some(job))?,
            text: words.next()?,
        })
    }
}

/// The word for a source, in files and for everybody who asks.
pub(crate) fn word(source: Source) -> &'static str {
    match source {
        Source::Worker => "worker",
        Source::System => "system",
    }
}

/// The source of such a word.
pub(crate) fn source(word: &str) -> Option<Source> {
    match word {
        "worker" => Some(Source::Worker),
        "system" => Some(Source::System),
        _ => None,
    }
}

/// Writes one line of a line's text to the end of a file's bytes.
pub(super) fn write(to: &mut Vec<u8>, number: u64, line: &Line, text: &str) {
    let (at, source, worker) = (rfc3339(line.at), word(line.source), &line.worker);
    match line.job {
        Some(job) => write!(to, "{number} {at} {source} {worker} {job} "),
        None => write!(to, "{number} {at} {source} {worker} {NO_JOB} "),
    }
    .expect("memory can be written to");
    let text = cut(text);
    to.extend_from_slice(text.as_bytes());
    to.push(b'\n');
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use lazyfox_core::id::JobId;
    use lazyfox_core::time::Timestamp;

    use super::*;

    fn line(job: Option<JobId>) -> Line {
        Line {
            at: Timestamp::from_ms(1_777_636_984_567),
            endpoint: "ep".parse().unwrap(),
            worker: "wk1".parse().unwrap(),
            job,
            source: Source::Worker,
            text: String::new(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let job = JobId::new(Timestamp::from_ms(1), [1; 16], true);
        let of_job = job.to_string();
        for text in ["", " ", "two  words ", "-", "tab\tand\r return", "é\u{0}"] {
            for job in [None, Some(job)] {
                let mut bytes = Vec::new();
                write(&mut bytes, 7, &line(job), text);
                let expected = Record {
                    number: 7,
                    at: "2026-05-01T12:03:04.567Z",
                    source: Source::Worker,
                    worker: "wk1",
                    job: job.map(|_| of_job.as_str()),
                    text,
                };
                let whole = bytes.strip_suffix(b"\n").unwrap();
                assert_eq!(Record::parse(whole), Some(expected));
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_no_line() {
        let mut bytes = Vec::new();
        write(&mut bytes, 7, &line(None), "");
        for end in 0..bytes.len() - 1 {
            assert_eq!(Record::parse(&bytes[..end]), None, "{end}");
        }
        assert_eq!(Record::parse(&[0; 80]), None);
        assert_eq!(Record::parse(b"7 now worker wk1 - x"), None);
        assert_eq!(Record::parse(b"7 2026Z nobody wk1 - x"), None);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let long = format!("{}é", "x".repeat(TEXT_BYTES_MAX - 1));
        assert_eq!(cut(&long), &long[..TEXT_BYTES_MAX - 1]);
    }
}

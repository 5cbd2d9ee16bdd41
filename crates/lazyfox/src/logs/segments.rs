//! The files of one endpoint's log. Each is named after the number that came next when it was begun, so the
//! names alone tell whether anything is missing between a line and the first file that is left.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Record;

/// A log is kept in about so many files: what goes first is a sixteenth of it.
const FILES: u64 = 16;

/// Largest file, in bytes. One is read whole where somebody wants its last lines.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

const ENDING: &str = ".log";

/// What there is to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Where the files begin, in order.
    pub(super) starts: Arc<[u64]>,
    /// Up to here all is written.
    pub(super) last: u64,
}

/// The files as the writer knows them.
pub(super) struct Segments {
    dir: PathBuf,
    bytes_max: u64,
    files: Vec<Segment>,
    /// The one that is written to.
    open: Option<File>,
    /// The greatest number that was used.
    last: u64,
}

struct Segment {
    start: u64,
    bytes: u64,
}

pub(super) fn path(dir: &Path, start: u64) -> PathBuf {
    // So many digits as the numbers of some centuries have, so that names sort.
    dir.join(format!("{start:020}{ENDING}"))
}

impl Segments {
    /// What an earlier server left, and without the line that it could not finish.
    pub(super) fn recover(dir: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let mut segments = Self {
            dir,
            bytes_max,
            files: Vec::new(),
            open: None,
            last: 0,
        };
        let entries = match fs::read_dir(&segments.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // What has another name was not made here.
            let digits = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            if let Some(start) = digits.and_then(|digits| digits.parse().ok()) {
                let bytes = entry.metadata()?.len();
                segments.files.push(Segment { start, bytes });
            }
        }
        segments.files.sort_by_key(|segment| segment.start);
        segments.reopen()?;
        Ok(segments)
    }

    /// Goes on in the newest file, at the end of its last whole line.
    fn reopen(&mut self) -> io::Result<()> {
        let Some(newest) = self.files.last_mut() else {
            return Ok(());
        };
        let mut file = File::options()
            .read(true)
            .append(true)
            .open(path(&self.dir, newest.start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64)?;
        }
        newest.bytes = whole as u64;
        let lines = bytes[..whole].split(|&byte| byte == b'\n');
        let numbers = lines.filter_map(|line| Some(Record::parse(line)?.number));
        self.last = numbers
            .max()
            .unwrap_or(0)
            .max(newest.start.saturating_sub(1));
        self.open = Some(file);
        Ok(())
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn head(&self) -> Head {
        Head {
            starts: self.files.iter().map(|segment| segment.start).collect(),
            last: self.last,
        }
    }

    /// Adds whole lines, of which the last has this number, and deletes the oldest files for them.
    /// When it fails nothing of them is there, and their numbers are not used again.
    pub(super) fn add(&mut self, lines: &[u8], last: u64) -> io::Result<()> {
        let added = self
            .make_room(lines.len() as u64)
            .and_then(|()| self.write(lines));
        self.last = last;
        added
    }

    /// How many more bytes the present file takes before another one is begun.
    pub(super) fn room(&self) -> usize {
        let file_max = (self.bytes_max / FILES).min(FILE_BYTES_MAX);
        let used = match (&self.open, self.files.last()) {
            (Some(_), Some(newest)) => newest.bytes,
            _ => 0,
        };
        usize::try_from(file_max.saturating_sub(used)).unwrap_or(usize::MAX)
    }

    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let mut used: u64 = self.files.iter().map(|segment| segment.bytes).sum();
        while used + bytes > self.bytes_max && !self.files.is_empty() {
            let oldest = &self.files[0];
            match fs::remove_file(path(&self.dir, oldest.start)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            used -= oldest.bytes;
            self.files.remove(0);
        }
        if self.files.is_empty() {
            self.open = None;
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.open.is_none() || self.room() == 0 {
            self.begin()?;
        }
        let (Some(file), Some(newest)) = (&mut self.open, self.files.last_mut()) else {
            return Ok(());
        };
        let written = file.write_all(lines);
        match &written {
            Ok(()) => newest.bytes += lines.len() as u64,
            // A part may be there, and the next line must not stand behind a half one.
            Err(_) if file.set_len(newest.bytes).is_ok() => {}
            Err(_) => {
                newest.bytes = file.metadata().map_or(newest.bytes, |it| it.len());
                self.open = None;
            }
        }
        written
    }

    fn begin(&mut self) -> io::Result<()> {
        // What workers say is nobody else's business, as inputs and outputs are not.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let start = self.last + 1;
        let file = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path(&self.dir, start))?;
        self.files.push(Segment { start, bytes: 0 });
        self.open = Some(file);
        Ok(())
    }
}

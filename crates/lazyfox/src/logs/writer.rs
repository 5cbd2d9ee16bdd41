//! The one thread that writes the logs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use tokio::sync::watch;

use super::queue::{Gap, Queue, Waiting};
use super::segments::{Head, Segments};
use super::{Line, record};
use crate::providers::Source;

/// Bytes written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// Writes until the queue is closed.
pub(super) fn write(queue: &Queue, dir: &Path, bytes_max: u64) {
    let mut logs: HashMap<EndpointId, Log> = HashMap::new();
    let open = |endpoint: &EndpointId| Log::new(endpoint, dir, bytes_max);
    loop {
        let batch = queue.take();
        for (endpoint, waiting) in batch.lines {
            let log = logs.entry(endpoint).or_insert_with_key(open);
            log.keep(waiting);
        }
        for (endpoint, answer) in batch.requests {
            let log = logs.entry(endpoint).or_insert_with_key(open);
            // Who asked may be gone.
            let _ = answer.send((log.dir.clone(), log.heads.subscribe()));
        }
        if batch.is_last {
            return;
        }
    }
}

/// The log of one endpoint.
struct Log {
    endpoint: EndpointId,
    dir: PathBuf,
    bytes_max: u64,
    /// Not there as long as the directory cannot be read.
    segments: Option<Segments>,
    heads: watch::Sender<Head>,
    /// What the disk did not take since it last took something.
    lost: BTreeMap<WorkerId, Gap>,
}

impl Log {
    fn new(endpoint: &EndpointId, dir: &Path, bytes_max: u64) -> Self {
        let mut log = Self {
            endpoint: endpoint.clone(),
            dir: dir.join(endpoint.as_str()),
            bytes_max,
            segments: None,
            heads: watch::Sender::new(Head::default()),
            lost: BTreeMap::new(),
        };
        if let Err(error) = log.recover() {
            tracing::error!(endpoint.id = %endpoint, %error, "the log of its workers cannot be read");
        }
        log.tell();
        log
    }

    fn recover(&mut self) -> io::Result<&mut Segments> {
        match &mut self.segments {
            Some(segments) => Ok(segments),
            none => Ok(none.insert(Segments::recover(self.dir.clone(), self.bytes_max)?)),
        }
    }

    fn tell(&self) {
        if let Some(segments) = &self.segments {
            self.heads.send_replace(segments.head());
        }
    }

    fn keep(&mut self, waiting: Waiting) {
        let Waiting {
            mut lines, dropped, ..
        } = waiting;
        let why = "written faster than they could be kept";
        lines.extend(self.gaps(&dropped, why));
        let why = "the disk did not take them";
        let lost: Vec<Line> = self.gaps(&self.lost, why).collect();
        match self.put(&lost) {
            Ok(()) if lost.is_empty() => {}
            Ok(()) => {
                self.lost.clear();
                tracing::info!(endpoint.id = %self.endpoint, "lines of its workers are kept again");
            }
            Err(_) => return self.lose(&lines),
        }
        if let Err((written, error)) = self.put(&lines) {
            tracing::error!(
                endpoint.id = %self.endpoint, %error,
                "lines of its workers are lost until the disk takes them again"
            );
            self.lose(&lines[written..]);
        }
        self.tell();
    }

    fn lose(&mut self, lines: &[Line]) {
        for line in lines {
            self.lost.entry(line.worker.clone()).or_default().add(line);
        }
    }

    /// A line for each worker of whose lines some are missing.
    fn gaps(
        &self,
        gaps: &BTreeMap<WorkerId, Gap>,
        why: &str,
    ) -> impl Iterator<Item = Line> + use<> {
        let lines = gaps.iter().map(|(worker, gap)| Line {
            at: gap.at,
            endpoint: self.endpoint.clone(),
            worker: worker.clone(),
            job: None,
            source: Source::System,
            text: match gap.lines {
                1 => format!("1 line is missing here: {why}"),
                lines => format!("{lines} lines are missing here: {why}"),
            },
        });
        lines.collect::<Vec<_>>().into_iter()
    }

    /// Writes lines; an error says how many were written before it.
    fn put(&mut self, lines: &[Line]) -> Result<(), (usize, io::Error)> {
        if lines.is_empty() {
            return Ok(());
        }
        let segments = self.recover().map_err(|error| (0, error))?;
        let (mut buffer, mut number, mut written) = (Vec::new(), segments.last(), 0);
        for (index, line) in lines.iter().enumerate() {
            for text in line.text.split('\n') {
                number = after(number, line.at);
                record::write(&mut buffer, number, line, text);
                if buffer.len() >= segments.room().min(WRITE_BYTES) {
                    let added = segments.add(&buffer, number);
                    added.map_err(|error| (written, error))?;
                    written = index + 1;
                    buffer.clear();
                }
            }
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let added = segments.add(&buffer, number);
        added.map_err(|error| (written, error))
    }
}

/// The next number: never one that was used, and of the line's time where that is possible. A place in a log
/// then keeps its meaning even where the log was deleted and begun anew, or lost its end with the power.
fn after(number: u64, at: Timestamp) -> u64 {
    let of_time = u64::try_from(at.as_ms()).unwrap_or(0).saturating_mul(1000);
    of_time.max(number + 1)
}

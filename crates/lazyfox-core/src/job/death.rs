//! Workers that died while they ran a job, and what is said of a job that kills them.

use std::fmt::Write as _;

use crate::id::WorkerId;
use crate::limits;

/// One worker that died while it ran a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Who.
    pub worker: WorkerId,
    /// How, as a fragment of a sentence: at most [`limits::DEATH_BYTES`].
    pub how: String,
}

impl Death {
    pub(super) fn new(worker: &WorkerId, how: &str) -> Self {
        Self {
            worker: worker.clone(),
            how: shortened(how),
        }
    }
}

/// Without its middle, where it is long: it begins with the way of the end, and the reason is mostly in the
/// last lines of output.
fn shortened(how: &str) -> String {
    const GAP: &str = " … ";
    if how.len() <= limits::DEATH_BYTES {
        return how.to_owned();
    }
    let (head, kept) = (limits::DEATH_BYTES / 4, limits::DEATH_BYTES - GAP.len());
    let head = how.floor_char_boundary(head);
    let tail = how.ceil_char_boundary(how.len() - (kept - head));
    format!("{}{GAP}{}", &how[..head], &how[tail..])
}

/// Why a job is given up whose workers die.
pub(super) fn poison(deaths: &[Death]) -> String {
    let mut error = match deaths.len() {
        1 => "poison: 1 worker died while it ran this job".to_owned(),
        n => format!("poison: {n} workers died in a row while they ran this job"),
    };
    for (n, Death { worker, how }) in deaths.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(error, "; {}: worker {worker} {how}", n + 1);
    }
    error
}

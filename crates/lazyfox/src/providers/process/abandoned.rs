//! Ends the workers of a server that is gone.

use std::io;

use super::hold::Hold;
use super::home::{self, Home};
use super::watch::kill_strays;

/// Ends every worker of a directory, which is held meanwhile so that no server can take them over half
/// ended. Their directories stay: the next server reports the ends, with `why` as the last
/// line of what they wrote.
///
/// # Errors
/// When the directory cannot be read; what can be ended is.
pub(crate) fn end_all(hold: &Hold, why: &str) -> io::Result<()> {
    for entry in hold.dir().read_dir()? {
        let entry = entry?;
        let Some(worker) = home::worker_of(&entry) else {
            continue;
        };
        let home = Home::of(hold.dir(), &worker);
        // Without a record it was only half started, and is found by where it stands and what it carries.
        if let Ok(record) = home.read_record() {
            let was_alive = record.identity.is_alive();
            // Also when its first process is gone: the group may live on.
            let _ = record.identity.kill_group();
            if was_alive {
                let _ = home.note(why);
            }
        }
        kill_strays(&home, &worker);
    }
    Ok(())
}

//! The signals that end a server.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Watches for them. A signal that nobody awaits at the moment is kept.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` when the server was started to outlive its terminal.
    hangup: Option<Signal>,
}

/// Who wants the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A person with Ctrl-C, who may do it again.
    Interrupt,
    /// A service manager.
    Terminate,
    /// A terminal that was closed: nobody is there any more. Workers lead process groups of their own
    /// and do not hear it, so a server that it killed would leave them running.
    Hangup,
}

impl End {
    /// The signal's number, of which a shell makes an exit code.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

impl Signals {
    /// # Errors
    /// When the system refuses.
    pub(crate) fn watch() -> Result<Self> {
        let watched = |kind, name| signal(kind).with_context(|| format!("cannot watch for {name}"));
        Ok(Self {
            interrupt: watched(SignalKind::interrupt(), "SIGINT")?,
            terminate: watched(SignalKind::terminate(), "SIGTERM")?,
            hangup: match hangup_is_ignored() {
                true => None,
                false => Some(watched(SignalKind::hangup(), "SIGHUP")?),
            },
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> End {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => End::Interrupt,
            _ = self.terminate.recv() => End::Terminate,
            _ = hangup => End::Hangup,
        }
    }

    /// The next Ctrl-C.
    pub(crate) async fn interrupt(&mut self) {
        self.interrupt.recv().await;
    }
}

/// Whether `nohup` or a shell's `trap '' HUP` is around us: to watch for the signal would undo it.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is number 1, the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}

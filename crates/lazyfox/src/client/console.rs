//! Stdout and stderr, and whether a person sits in front of them.

use std::io::{self, IsTerminal as _, Write};

use super::failure::Failure;
use super::show::printable;

/// Columns of the progress line: longer ones would wrap on a narrow terminal, and a wrapped line
/// cannot be rewritten.
const PROGRESS_COLUMNS: usize = 78;

/// Where the client writes. Data goes to `out`, everything else to `err`.
pub(super) struct Console {
    pub(super) out: Box<dyn Write + Send>,
    pub(super) err: Box<dyn Write + Send>,
    pub(super) out_is_terminal: bool,
    pub(super) err_is_terminal: bool,
    /// Whether data may have colours.
    pub(super) colours: bool,
    /// The user asked for the server's documents instead of text.
    pub(super) json: bool,
    pub(super) progress_shown: bool,
}

impl Console {
    pub(super) fn standard(json: bool) -> Self {
        // What the wish of https://no-color.org is.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        Self {
            colours: io::stdout().is_terminal() && !plain,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            json,
            progress_shown: false,
        }
    }

    /// Prints a JSON document on one line. A line break in a JSON text can only be white space
    /// between tokens (in a string it must be escaped), so replacing it changes nothing.
    pub(super) fn document(&mut self, json: &str) -> Result<(), Failure> {
        let line = json.trim().replace(['\r', '\n'], " ");
        self.text(&line)
    }

    /// Prints a line of data.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.clear_progress();
        writeln!(self.out, "{text}")?;
        self.out.flush()?;
        Ok(())
    }

    /// Says something about the way, not the data. That stderr is gone is no reason to stop.
    pub(super) fn note(&mut self, text: &str) {
        self.clear_progress();
        writeln!(self.err, "{text}").ok();
    }

    /// Rewrites the progress line, where somebody can see it.
    pub(super) fn progress(&mut self, line: &str) {
        if !self.err_is_terminal {
            return;
        }
        let line = printable(line).replace(['\n', '\t'], " ");
        let line: String = line.chars().take(PROGRESS_COLUMNS).collect();
        write!(self.err, "\r\x1b[K{line}").ok();
        self.err.flush().ok();
        self.progress_shown = true;
    }

    /// Takes the progress line away, so that what follows does not stick to it.
    pub(super) fn clear_progress(&mut self) {
        if std::mem::take(&mut self.progress_shown) {
            write!(self.err, "\r\x1b[K").ok();
            self.err.flush().ok();
        }
    }
}

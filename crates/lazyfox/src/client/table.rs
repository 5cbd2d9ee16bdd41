//! Rows under a header, for people.

use super::console::Console;
use super::failure::Failure;
use super::show::printable;

/// A table that is printed piece by piece. Its widths only grow, so that the pages of one listing
/// line up.
pub(super) struct Table<const COLUMNS: usize> {
    header: [&'static str; COLUMNS],
    widths: [usize; COLUMNS],
    has_header: bool,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table whose columns are at least so wide, which should fit most pages from the start.
    pub(super) fn new(header: [&'static str; COLUMNS], widths: [usize; COLUMNS]) -> Self {
        Self {
            header,
            widths,
            has_header: false,
        }
    }

    pub(super) fn print(
        &mut self,
        rows: impl IntoIterator<Item = [String; COLUMNS]>,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let has_header = std::mem::replace(&mut self.has_header, true);
        let header = (!has_header).then(|| self.header.map(str::to_owned));
        let rows: Vec<[String; COLUMNS]> = header.into_iter().chain(rows).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(self.widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            console.text(cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A text on one line of at most this many characters.
pub(super) fn short(text: &str, chars: usize) -> String {
    let line = printable(text).replace(['\n', '\t'], " ");
    let mut short: String = line.chars().take(chars).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

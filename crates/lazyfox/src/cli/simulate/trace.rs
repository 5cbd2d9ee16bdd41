//! The trace: CSV with a header line, of which each mistake is named with its line and column.

use std::io::BufRead;

use anyhow::{Context as _, Result, bail, ensure};
use lazyfox_core::simulate::{Arrival, Trace};

use super::seconds::thousandths;
use crate::when::point;

/// The jobs as they stand in the file.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    /// In milliseconds, from 1970 or from whatever the seconds are counted from.
    at_ms: u64,
    run_ms: Option<u64>,
    low: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    At,
    Run,
    Low,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Seconds,
    Time,
}

impl Rows {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the line and the column.
    pub(super) fn read(mut reader: impl BufRead) -> Result<Self> {
        let mut rows = Vec::new();
        let mut columns: Option<Vec<Column>> = None;
        let mut form = None;
        let (mut text, mut line) = (String::new(), 0);
        loop {
            text.clear();
            line += 1;
            let at = || format!("line {line}");
            if reader.read_line(&mut text).with_context(at)? == 0 {
                break;
            }
            let text = text.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                continue;
            }
            let fields = text.split(',').map(unquoted);
            match &columns {
                None => columns = Some(header(fields).with_context(at)?),
                Some(columns) => rows.push(row(line, columns, fields, &mut form)?),
            }
        }
        ensure!(
            columns.is_some(),
            "line 1: there is no header; it names the columns, such as `at,run,low`"
        );
        Ok(Self { rows })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The jobs counted from the first one. Those that do not say how long they run take `run_ms`.
    ///
    /// # Errors
    /// When nothing says how long a job runs.
    pub(super) fn trace(&self, run_ms: Option<u64>) -> Result<Trace> {
        let first_ms = self.rows.iter().map(|row| row.at_ms).min().unwrap_or(0);
        let arrivals = self.rows.iter().map(|row| {
            let run_ms = row.run_ms.or(run_ms).with_context(|| {
                let line = row.line;
                format!("line {line}, column run: nothing says how long the job runs; say it with --run-time")
            })?;
            Ok(Arrival {
                at_ms: row.at_ms - first_ms,
                run_ms,
                low: row.low,
            })
        });
        Ok(Trace::new(arrivals.collect::<Result<_>>()?))
    }
}

fn unquoted(field: &str) -> &str {
    let field = field.trim();
    let inner = field.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    inner.unwrap_or(field).trim()
}

fn header<'t>(fields: impl Iterator<Item = &'t str>) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for name in fields {
        let column = match name {
            "at" => Column::At,
            "run" => Column::Run,
            "low" => Column::Low,
            other => bail!("column {other:?} is unknown; the columns are at, run and low"),
        };
        ensure!(
            !columns.contains(&column),
            "column {name} stands there twice"
        );
        columns.push(column);
    }
    ensure!(
        columns.contains(&Column::At),
        "column at is missing: it says when a job came"
    );
    Ok(columns)
}

fn row<'t>(
    line: usize,
    columns: &[Column],
    fields: impl Iterator<Item = &'t str>,
    form: &mut Option<Form>,
) -> Result<Row> {
    let fields: Vec<&str> = fields.collect();
    ensure!(
        fields.len() == columns.len(),
        "line {line}: {} fields, the header has {}",
        fields.len(),
        columns.len()
    );
    let mut row = Row {
        line,
        at_ms: 0,
        run_ms: None,
        low: false,
    };
    for (column, text) in columns.iter().zip(fields) {
        match column {
            Column::At => {
                row.at_ms = at(text, form).with_context(|| format!("line {line}, column at"))?;
            }
            Column::Run if text.is_empty() => {}
            Column::Run => {
                let ms = thousandths(text).map_err(|e| {
                    anyhow::anyhow!("line {line}, column run: {text:?} are no seconds: {e}")
                })?;
                row.run_ms = Some(ms);
            }
            Column::Low => match text {
                "true" | "1" | "yes" => row.low = true,
                "false" | "0" | "no" | "" => {}
                _ => bail!("line {line}, column low: {text:?} is neither true nor false"),
            },
        }
    }
    Ok(row)
}

/// All rows of a file count from the same: a mixture would be years apart.
fn at(text: &str, form: &mut Option<Form>) -> Result<u64> {
    let (found, ms) = match thousandths(text) {
        Ok(ms) => (Form::Seconds, ms),
        Err(_) => (
            Form::Time,
            time(text).with_context(|| {
                format!(
                    "{text:?} is neither seconds (12.5, at most 10 digits) nor a time \
                     (2026-05-01T12:03:04Z)"
                )
            })?,
        ),
    };
    match *form.get_or_insert(found) {
        form if form == found => Ok(ms),
        Form::Seconds => bail!("{text:?} is a time, and the lines before have seconds"),
        Form::Time => bail!("{text:?} are seconds, and the lines before have times"),
    }
}

/// Milliseconds since 1970 of a time by RFC 3339.
fn time(text: &str) -> Option<u64> {
    u64::try_from(point(text)?.as_ms()).ok()
}

//! Looks at the tables, and what is shown of them.

use std::time::Duration;

use crate::report::{table, thousands};

/// A table that never had so many dead rows and is not larger is summed up with its like.
const DEAD_SHOWN: i64 = 1_000;
const BYTES_SHOWN: i64 = 1_000_000;

/// One look.
pub(super) struct Sample {
    /// Since the load began.
    pub(super) at: Duration,
    /// Jobs lived by then.
    pub(super) lived: u64,
    pub(super) tables: Vec<Table>,
}

/// A table as PostgreSQL counts it.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) live: i64,
    pub(super) dead: i64,
    /// With indexes and long values.
    pub(super) bytes: i64,
    pub(super) index_bytes: i64,
    pub(super) vacuums: i64,
}

impl Sample {
    /// Lives per second between two looks.
    pub(super) fn rate_since(&self, earlier: &Self) -> f64 {
        let seconds = (self.at - earlier.at).as_secs_f64();
        (self.lived - earlier.lived) as f64 / seconds
    }

    /// Dead rows of all tables.
    pub(super) fn dead(&self) -> i64 {
        self.sum(|table| table.dead)
    }

    fn sum(&self, figure: impl Fn(&Table) -> i64) -> i64 {
        self.tables.iter().map(figure).sum()
    }

    fn of(&self, name: &str) -> Table {
        let found = self.tables.iter().find(|table| table.name == name);
        found.cloned().unwrap_or_default()
    }
}

/// The looks of one minute, behind the last one before it.
struct Minute<'a> {
    number: usize,
    before: &'a Sample,
    looks: &'a [Sample],
}

impl Minute<'_> {
    fn last(&self) -> &Sample {
        self.looks.last().unwrap_or(self.before)
    }

    fn rate(&self) -> f64 {
        self.last().rate_since(self.before)
    }

    fn most_dead(&self, name: &str) -> i64 {
        let dead = self.looks.iter().map(|look| look.of(name).dead);
        dead.max().unwrap_or(0)
    }

    /// One row: what is at its end, but of the dead rows the most.
    fn row(&self, names: &[&str]) -> Vec<String> {
        let last = self.last();
        let mut row = vec![self.number.to_string(), thousands(self.rate())];
        for name in names {
            let table = last.of(name);
            row.push(format!(
                "{} / {}, {}",
                thousands(table.live as f64),
                thousands(self.most_dead(name) as f64),
                whole_megabytes(table.bytes)
            ));
        }
        row.push(format!(
            "{} ({})",
            whole_megabytes(last.sum(|table| table.bytes)),
            whole_megabytes(last.sum(|table| table.index_bytes))
        ));
        row.push(last.sum(|table| table.vacuums).to_string());
        row
    }
}

/// Whole minutes; a look belongs to the minute that it ends or stands in.
fn minutes(samples: &[Sample]) -> Vec<Minute<'_>> {
    let minute = |sample: &Sample| sample.at.as_secs().div_ceil(60);
    let mut minutes: Vec<Minute<'_>> = Vec::new();
    let mut start = 1;
    for looks in samples
        .get(1..)
        .unwrap_or_default()
        .chunk_by(|a, b| minute(a) == minute(b))
    {
        minutes.push(Minute {
            number: minutes.len() + 1,
            before: &samples[start - 1],
            looks,
        });
        start += looks.len();
    }
    minutes
}

/// The minutes, then all tables at the end, then the rates of the first and the last minute.
pub(super) fn tables(title: &str, samples: &[Sample]) -> String {
    let minutes = minutes(samples);
    let Some((first, last)) = minutes.first().zip(minutes.last()) else {
        return "no look at the tables\n".to_owned();
    };
    let names: Vec<&str> = last
        .last()
        .tables
        .iter()
        .filter(|table| {
            let dead = minutes
                .iter()
                .map(|minute| minute.most_dead(&table.name))
                .max();
            table.bytes > BYTES_SHOWN || dead > Some(DEAD_SHOWN)
        })
        .map(|table| table.name.as_str())
        .collect();
    let mut header = vec![title.to_owned(), "lives/s".to_owned()];
    header.extend(
        names
            .iter()
            .map(|name| format!("{name}: rows / most dead, MB")),
    );
    header.push("all tables, MB (indexes)".to_owned());
    header.push("autovacuums so far".to_owned());
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = minutes.iter().map(|minute| minute.row(&names)).collect();
    format!(
        "{}{}\nLives per second in the first minute {}, in the last {}: {:.2}.\n",
        table(&header, &rows),
        at_the_end(last.last()),
        thousands(first.rate()),
        thousands(last.rate()),
        last.rate() / first.rate()
    )
}

fn at_the_end(sample: &Sample) -> String {
    let used = sample
        .tables
        .iter()
        .filter(|table| table.live + table.dead > 0);
    let rows: Vec<Vec<String>> = used
        .map(|table| {
            vec![
                table.name.clone(),
                thousands(table.live as f64),
                thousands(table.dead as f64),
                format!("{:.1}", table.bytes as f64 / 1e6),
                format!("{:.1}", table.index_bytes as f64 / 1e6),
                table.vacuums.to_string(),
            ]
        })
        .collect();
    let header = [
        "table at the end",
        "rows",
        "dead rows",
        "MB",
        "of it indexes",
        "autovacuums",
    ];
    table(&header, &rows)
}

fn whole_megabytes(bytes: i64) -> String {
    thousands(bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, lived: u64, dead: i64) -> Sample {
        Sample {
            at: Duration::from_secs(seconds),
            lived,
            tables: vec![Table {
                name: "jobs".to_owned(),
                live: 5,
                dead,
                bytes: 3_000_000,
                index_bytes: 1_000_000,
                vacuums: 2,
            }],
        }
    }

    #[test]
    fn minutes_have_their_own_rate_and_their_most_dead_rows() {
        let samples = [
            sample(0, 0, 0),
            sample(30, 1000, 9),
            sample(60, 6000, 4),
            sample(90, 7000, 1),
            sample(120, 9000, 2),
        ];
        let minutes = minutes(&samples);
        let rows: Vec<_> = minutes.iter().map(|minute| minute.row(&["jobs"])).collect();
        assert_eq!(rows[0], ["1", "100", "5 / 9, 3", "3 (1)", "2"]);
        assert_eq!(rows[1], ["2", "50", "5 / 2, 3", "3 (1)", "2"]);
        assert_eq!(rows.len(), 2);
        let text = tables("minute", &samples);
        assert!(text.contains("minute 100, in the last 50: 0.50."), "{text}");
    }

    #[test]
    fn small_tables_are_not_shown_by_the_minute() {
        let mut samples = [sample(0, 0, 0), sample(60, 60, 0)];
        assert!(tables("m", &samples).contains("jobs: rows"));
        samples[1].tables[0].bytes = 10;
        assert!(!tables("m", &samples).contains("jobs: rows"));
        samples[1].tables[0].dead = 2000;
        assert!(tables("m", &samples).contains("jobs: rows"));
        assert!(tables("m", &samples[..1]).contains("no look"));
    }
}

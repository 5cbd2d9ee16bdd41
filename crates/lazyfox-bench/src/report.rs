//! Medians, percentiles and Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Times of one kind of call.
#[derive(Clone, Default)]
pub(crate) struct Times(Vec<u64>);

impl Times {
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0
            .push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The median and the 99th percentile.
    pub(crate) fn summary(mut self) -> Summary {
        self.0.sort_unstable();
        let at = |share: f64| {
            let last = self.0.len().saturating_sub(1);
            let nanoseconds = self.0.get((last as f64 * share).round() as usize);
            nanoseconds.map_or(f64::NAN, |&ns| ns as f64 / 1000.0)
        };
        Summary {
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} / {:.0}", self.p50_us, self.p99_us)
    }
}

/// The middle of some figures, or the mean of the two middle ones.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

/// The figure below which this share of all lie, one of them.
pub(crate) fn percentile(figures: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let last = figures.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    figures.get(at).copied().unwrap_or(f64::NAN)
}

/// The median and the 95th percentile: `12 / 34`.
pub(crate) fn p50_p95(figures: impl Iterator<Item = f64> + Clone) -> String {
    let p95 = percentile(figures.clone(), 0.95);
    format!("{:.0} / {p95:.0}", median(figures))
}

/// The median of each part, over rounds.
pub(crate) fn median_summary(summaries: impl Iterator<Item = Summary> + Clone) -> Summary {
    Summary {
        p50_us: median(summaries.clone().map(|summary| summary.p50_us)),
        p99_us: median(summaries.map(|summary| summary.p99_us)),
    }
}

/// The median of some figures of one kind, with the lowest and the highest of them.
pub(crate) fn spread(figures: impl Iterator<Item = f64> + Clone) -> String {
    format!(
        "{} ({}–{})",
        thousands(median(figures.clone())),
        thousands(figures.clone().fold(f64::INFINITY, f64::min)),
        thousands(figures.fold(0.0, f64::max))
    )
}

/// The median of CPU times; nothing where they are not known.
pub(crate) fn cpu(figures: impl IntoIterator<Item = f64>) -> String {
    let figure = median(figures);
    if figure.is_nan() {
        return String::new();
    }
    format!("{figure:.1}")
}

/// A Markdown table.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!(
        "\n| {} |\n|{}\n",
        header.join(" | "),
        "---|".repeat(header.len())
    );
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).expect("writing to a string cannot fail");
    }
    text
}

/// A whole number with its thousands set apart: `1 234 567`.
pub(crate) fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Millions of bytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// What a reader needs to know to judge the figures.
pub(crate) fn machine(folder: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, name)| name);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let disk = file_system(&read("/proc/self/mounts"), folder);
    let mut text = format!(
        "{cores} cores ({cpu}), Linux {}, load before {}, data on {disk}.",
        kernel.trim(),
        load.join(" ")
    );
    if disk == "tmpfs" {
        text.push_str(" **That is no disk: nothing here is durable. Choose another with --dir.**");
    }
    text
}

/// The type of the file system that holds the folder: the one mounted nearest to it.
fn file_system(mounts: &str, folder: &Path) -> String {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            folder.starts_with(place).then_some((place.len(), kind))
        })
        // The later one where two are mounted on the same place.
        .max_by_key(|(depth, _)| *depth)
        .map_or("an unknown file system", |(_, kind)| kind)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median([]).is_nan());
        assert_eq!(p50_p95((1..=101).rev().map(f64::from)), "51 / 96");
        assert!(percentile([], 0.5).is_nan());
        assert_eq!(cpu([2.0, f64::NAN, 1.0]), "2.0");
        assert_eq!(cpu([f64::NAN]), "");
        let mut times = Times::default();
        for us in (1..=101).rev() {
            times.add(Duration::from_micros(us));
        }
        assert_eq!(times.summary().to_string(), "51 / 100");
        assert_eq!(Times::default().summary().to_string(), "NaN / NaN");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (figure, text) in [(7.4, "7"), (1234.0, "1 234"), (1_000_000.0, "1 000 000")] {
            assert_eq!(thousands(figure), text);
        }
    }

    #[test]
    fn the_nearest_mount_decides() {
        let mounts = "a / overlay rw 0 0\nb /data ext4 rw 0 0\nc /data2 xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data/x")), "ext4");
        assert_eq!(file_system(mounts, Path::new("/tmp")), "overlay");
    }
}

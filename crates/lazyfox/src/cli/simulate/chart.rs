//! Workers over time, drawn with letters.

use lazyfox_core::simulate::Outcome;

use crate::client::duration;

/// Columns of the drawing; with the axis it fits a terminal of 80.
const WIDTH: usize = 70;
/// Rows of it, at most.
const HEIGHT: u32 = 10;

/// A column is as high as the most workers that there were in its time.
pub(super) fn chart(outcome: &Outcome) -> String {
    let columns = columns(outcome);
    let rows = outcome.workers_most.clamp(1, HEIGHT);
    let mut text = String::new();
    for row in (1..=rows).rev() {
        // With more workers than rows, a row stands for several.
        let level = (u64::from(outcome.workers_most) * u64::from(row)).div_ceil(u64::from(rows));
        let bar = columns.iter().map(|&workers| {
            let is_reached = u64::from(workers) >= level.max(1);
            if is_reached { '#' } else { ' ' }
        });
        let bar: String = bar.collect();
        let line = format!("{level:>6} |{bar}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let first_ms = outcome.steps.first().map_or(0, |step| step.at_ms);
    let end = duration(outcome.ends_at_ms.saturating_sub(first_ms));
    text.push_str(&format!("{:>6} +{}\n", 0, "-".repeat(WIDTH)));
    text.push_str(&format!("{:>8}0{end:>width$}\n", "", width = WIDTH - 1));
    text
}

fn columns(outcome: &Outcome) -> Vec<u32> {
    let mut columns = vec![0; WIDTH];
    let first_ms = outcome.steps.first().map_or(0, |step| step.at_ms);
    let span_ms = outcome.ends_at_ms.saturating_sub(first_ms).max(1);
    let column = |at_ms: u64| {
        let place = u128::from(at_ms - first_ms) * WIDTH as u128 / u128::from(span_ms);
        usize::try_from(place).unwrap_or(WIDTH).min(WIDTH)
    };
    let ends = outcome.steps.iter().skip(1).map(|step| step.at_ms);
    let spans = outcome.steps.iter().zip(ends.chain([outcome.ends_at_ms]));
    for (step, end_ms) in spans.filter(|(step, end_ms)| step.at_ms < *end_ms) {
        // The last moment that belongs to it.
        let last = column(end_ms - 1).min(WIDTH - 1);
        for most in &mut columns[column(step.at_ms).min(last)..=last] {
            *most = step.workers.max(*most);
        }
    }
    columns
}

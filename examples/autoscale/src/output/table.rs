//! A table, the changes, and what is worth knowing.

use std::io::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::{Rehearsed, instant};
use crate::day::Stage;
use crate::finding::Finding;
use crate::rehearse::{Outcome, Sums};

/// So many changes are printed; JSON and the page have all of them.
const SHOWN: usize = 20;

/// Prints what came out.
pub(crate) fn table(
    result: &Rehearsed,
    stage: &Stage,
    findings: &[Finding],
    out: &mut impl Write,
) -> std::io::Result<()> {
    let outcomes = &result.outcomes;
    writeln!(out, "{} to {}", instant(stage.plant.from), instant(stage.plant.until))?;
    writeln!(out, "{}", sums(outcomes, result.price))?;
    for pool in &result.pools {
        writeln!(out, "{}", pool.line())?;
    }
    for outcome in outcomes {
        changes(outcome, out)?;
    }
    writeln!(out)?;
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    for outcome in outcomes {
        for finding in &outcome.findings {
            let of = if outcomes.len() > 1 { format!(" ({})", outcome.name) } else { String::new() };
            writeln!(out, "{finding}{of}")?;
        }
    }
    if !stage.defaults.is_empty() {
        writeln!(out, "defaults: {}", stage.defaults.join(", "))?;
    }
    Ok(())
}

/// One row for each autoscaler, and under it what other fleets come to.
fn sums(outcomes: &[Outcome], price: Option<f64>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut header = vec!["", "time short", "not served", "pod-hours", "changes", "flaps", "starts", "peak"];
    header.extend(price.map(|_| "cost"));
    table.set_header(header.clone());
    for outcome in outcomes {
        let sums = &outcome.sums;
        let mut row = vec![
            outcome.title.clone(),
            short(sums.short_seconds, sums.seconds),
            share(sums),
            hours(sums.pod_seconds),
            sums.changes.to_string(),
            sums.flaps.to_string(),
            sums.starts.to_string(),
            sums.peak.to_string(),
        ];
        row.extend(price.map(|price| cost(sums.pod_seconds, price)));
        table.add_row(row);
        for (name, held) in [("fixed fleet", &sums.fixed), ("the replicas of then", &sums.recorded)] {
            let Some(held) = held else { continue };
            let name =
                if name == "fixed fleet" { format!("  a fixed fleet of {}", held.peak) } else { format!("  {name}") };
            let blank = String::new;
            let mut row = vec![
                name,
                short(Some(held.short_seconds), sums.seconds),
                blank(),
                hours(held.pod_seconds),
                blank(),
                blank(),
                blank(),
                held.peak.to_string(),
            ];
            row.extend(price.map(|price| cost(held.pod_seconds, price)));
            table.add_row(row);
        }
    }
    for column in 1..header.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Seconds, and their share of the time.
pub(super) fn short(seconds: Option<f64>, of: f64) -> String {
    match seconds {
        None => "unknown".into(),
        Some(seconds) => format!("{} ({:.2} %)", span(seconds), percent(seconds, of)),
    }
}

/// The share of the demand that was not served.
pub(super) fn share(sums: &Sums) -> String {
    match (sums.unserved, sums.demanded) {
        (Some(unserved), Some(demanded)) => format!("{:.3} %", percent(unserved, demanded)),
        _ => "unknown".into(),
    }
}

pub(crate) fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 0.0 }
}

pub(super) fn hours(seconds: f64) -> String {
    format!("{:.1}", seconds / 3_600.0)
}

fn cost(pod_seconds: f64, price: f64) -> String {
    format!("{:.2}", pod_seconds / 3_600.0 * price)
}

/// Seconds in words.
pub(super) fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a span of time for people")]
    let ms = (seconds.max(0.0).round() as u64).saturating_mul(1_000);
    crate::quantity::words(ms)
}

fn changes(outcome: &Outcome, out: &mut impl Write) -> std::io::Result<()> {
    let count = outcome.changes.len();
    writeln!(out, "\n{}: {} at first, {} at last, {count} changes", outcome.title, outcome.initial, outcome.last)?;
    for change in outcome.changes.iter().take(SHOWN) {
        let (at, by) = (instant(change.at), change.by.word());
        writeln!(out, "  {at}  {:>4} → {:<4} {by}: {}", change.before, change.after, change.reason)?;
    }
    if count > SHOWN {
        writeln!(out, "  … and {} more; --report and --output json have all of them", count - SHOWN)?;
    }
    Ok(())
}

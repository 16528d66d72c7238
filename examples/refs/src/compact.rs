//! `refs compact`: ask what to fold, do it, make it durable, tell; until nothing is left to do.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use tenon_refslog::{Absorbed, Log, LogConfig, Plan, Stretch, Taken};

use crate::progress;
use crate::store::{Access, Store};

pub(crate) fn rule(keep: u64) -> Result<LogConfig> {
    // Whoever runs this wants it done: two records are enough to fold.
    Ok(LogConfig::builder().retain_versions(keep).min_records(2).build()?)
}

/// What the next step would be.
pub(crate) fn plan(folder: &Path, rule: LogConfig, budget: u64, out: &mut impl Write) -> Result<()> {
    let log = Store::open(folder, Access::Read)?.log(rule)?;
    match log.plan(budget) {
        Plan::Nothing => writeln!(out, "nothing to do")?,
        Plan::Fold(stretch) => writeln!(out, "would fold {}", reason(&stretch))?,
        Plan::Absorb(stretch) => writeln!(out, "would merge into the snapshot {}", reason(&stretch))?,
        Plan::OverBudget(stretch) => writeln!(out, "over the budget: {}", reason(&stretch))?,
    }
    Ok(())
}

pub(crate) fn compact(folder: &Path, rule: LogConfig, budget: u64, out: &mut impl Write) -> Result<()> {
    let mut store = Store::open(folder, Access::Write)?;
    let mut log = store.log(rule)?;
    let before = store.bytes();
    let working = progress::spinner("compacting");
    let mut steps = 0;
    loop {
        match log.plan(budget) {
            Plan::Nothing => break,
            Plan::OverBudget(stretch) => {
                writeln!(out, "the next step is over the budget: {}", reason(&stretch))?;
                break;
            }
            Plan::Fold(stretch) => fold(&mut store, &mut log, &stretch, out)?,
            Plan::Absorb(stretch) => absorb(&mut store, &mut log, &stretch, out)?,
        }
        steps += 1;
    }
    working.finish_and_clear();
    writeln!(out, "{steps} steps; {before} bytes before, {} now", store.bytes())?;
    Ok(())
}

fn fold(store: &mut Store, log: &mut Log, stretch: &Stretch, out: &mut impl Write) -> Result<()> {
    let folded = log.fold(stretch)?;
    let bytes = folded.segment.encode();
    let (kept, gone) = (folded.segment.changes().len(), folded.superseded);
    let len = bytes.len();
    // Nobody else changes what the log must keep while this holds its lock, so what is planned is taken. Durable before
    // anything that it replaces goes.
    store.put_segment(stretch.base, stretch.end, bytes)?;
    ensure!(log.handle_folded(folded.segment) == Taken::Taken, "the log does not take its own fold");
    writeln!(out, "folded {}: {len} bytes, {kept} changes kept, {gone} superseded", reason(stretch))?;
    Ok(())
}

fn absorb(store: &mut Store, log: &mut Log, stretch: &Stretch, out: &mut impl Write) -> Result<()> {
    let Absorbed { snapshot, added, replaced, removed, .. } = log.absorb(stretch)?;
    store.put_snapshot(snapshot.point().version, snapshot.as_bytes().clone())?;
    let (refs, len) = (snapshot.len(), snapshot.as_bytes().len());
    ensure!(log.handle_absorbed(snapshot) == Taken::Taken, "the log does not take its own snapshot");
    writeln!(
        out,
        "merged into the snapshot {}: {refs} refs in {len} bytes, {added} added, {replaced} replaced, {removed} removed",
        reason(stretch)
    )?;
    Ok(())
}

/// The pieces of a step, and the numbers that are its reason.
fn reason(stretch: &Stretch) -> String {
    let Stretch { base, end, pieces, bytes, oldest, rest } = stretch;
    format!("{base}..{end} ({pieces} pieces, {bytes} bytes; {oldest} < 2 × {rest})")
}

//! Worker processes for a spool folder, as many as its queue asks for: one thread, no runtime. Kill it and start it again.
#![allow(clippy::print_stdout, clippy::wildcard_imports, reason = "it says what it decides, and why")]
mod crew;

use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{env, fs, thread};

use anyhow::Result;
use crew::Crew;
use tenon_scaler::strategy::{QueueLength, Strategy};
use tenon_scaler::*;

const GROUP: GroupId = GroupId(1);
const POOL: PoolId = PoolId(1);
const JOBS: MetricId = MetricId(1);

fn main() -> Result<()> {
    match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => control(Path::new("spool")),
        [folder] if !folder.starts_with('-') => control(Path::new(folder)),
        [word, leave] if word == "worker" => crew::work(Path::new(leave)),
        _ => anyhow::bail!("usage: fleet [DIR]; a job is a shell script that is moved to DIR/new, and DIR is ./spool"),
    }
}

/// One worker for two jobs, between one and eight; three calm seconds before any goes.
fn engine(now: Timestamp) -> Result<Engine> {
    let mut engine =
        Engine::new(Config::builder().tick_ms(500).back_off_ms(1_000, 30_000).launch_deadline_ms(20_000).build()?);
    let (shape, tenant, release, watermark) = (ShapeId(1), TenantId(1), ReleaseId(1), Watermark::default());
    let (kind, idc, stock) = (PoolKind::Resident, IdcId(1), vec![(shape, 8)]);
    engine.put_pool(now, Pool { id: POOL, kind, idc, price: 1, watermark, stock })?;
    engine.put_release(now, release, VersionId(1));
    let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(2) });
    let policy = Policy {
        min: 1,
        max: 8,
        metrics: vec![Metric { id: JOBS, stale_after_ms: 5_000, when_stale: Staleness::ForbidIn }],
        rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(JOBS, queue) }],
        behavior: Behavior { inward: Pace { stabilize_ms: 3_000, ..Pace::default() }, ..Behavior::default() },
        ..Policy::default()
    };
    engine.put_group(now, Traffic { id: GROUP, idcs: vec![], tenant, release, shape }, policy)?;
    Ok(engine)
}

/// Measure, tell, tick, save, act: in this order, so that a crash between any two loses nothing.
fn control(folder: &Path) -> Result<()> {
    let mut crew = Crew::open(folder, env::current_exe()?)?;
    let mut engine = engine(Timestamp::ZERO)?;
    if let Ok(text) = fs::read_to_string(folder.join("state.json")) {
        engine = Engine::restore(engine.config().clone(), serde_json::from_str(&text)?)?;
        println!("restored: {} workers serve", crew.workers()?.iter().filter(|held| held.serves()).count());
    }
    loop {
        let now = Timestamp::from_millis(u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?);
        let workers = crew.workers()?;
        let jobs = i64::try_from(fs::read_dir(folder.join("new"))?.count())?;
        engine.handle_sample(now, GROUP, JOBS, now, Some(Milli::from_units(jobs)));
        engine.catch_up(now, |id, request| anyhow::Ok(Some(Crew::progress(&workers, id, request))))?;
        let serving = workers.iter().filter(|held| held.serves()).count();
        engine.handle_census(now, GROUP, POOL, now, u32::try_from(serving)?);
        engine.handle_timeout(now);
        for record in engine.moves().iter().filter_map(|moved| engine.record(moved.group)) {
            print!("{}", record.explain());
        }
        crew.save(&engine.snapshot())?;
        while let Some(effect) = engine.poll_effect() {
            crew.act(&effect)?;
        }
        thread::sleep(Duration::from_millis(engine.next_deadline().map_or(500, |at| at.millis_since(now))));
    }
}

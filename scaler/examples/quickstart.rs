//! A fleet of CI workers, sized by the jobs that wait: ask, do, tell, and the reason for each step.
#![allow(clippy::print_stdout, reason = "it shows what was decided, and why")]
use tenon_scaler::strategy::{Change, QueueLength, Strategy, Threshold, Trigger};
use tenon_scaler::{
    Behavior, Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Pace, Policy, Pool, PoolId, PoolKind,
    Progress, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, TenantId, Timestamp, Traffic, VersionId,
    Watermark,
};

const WORKERS: GroupId = GroupId(1);
const DEPTH: MetricId = MetricId(1);
const OLDEST: MetricId = MetricId(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut engine = Engine::new(Config::builder().build()?);
    let start = Timestamp::ZERO;
    let own = PoolKind::Resident;
    let cloud = PoolKind::Emergency { from: start, until: Timestamp::from_millis(86_400_000) };
    for (id, kind, machines, price) in [(1, own, 6, 100), (2, cloud, 50, 900)] {
        let stock = vec![(ShapeId(1), machines)];
        engine.put_pool(
            start,
            Pool { id: PoolId(id), kind, idc: IdcId(id), price, watermark: Watermark::default(), stock },
        )?;
    }
    engine.put_release(start, ReleaseId(1), VersionId(42));

    // One worker for four waiting jobs; a fifth more when the oldest has waited half a minute; in after two calm minutes.
    let metric = |id| Metric { id, stale_after_ms: 60_000, when_stale: Staleness::ForbidIn };
    let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(4) });
    let out = Some(Trigger { past: Milli::from_units(30), by: Change::Permille(200) });
    let waited = Strategy::Threshold(Threshold { out, inward: None, need: 1, of: 1 });
    let policy = Policy {
        min: 2,
        max: 20,
        metrics: vec![metric(DEPTH), metric(OLDEST)],
        rules: vec![
            Rule { id: RuleId(1), kind: RuleKind::Metric(DEPTH, queue) },
            Rule { id: RuleId(2), kind: RuleKind::Metric(OLDEST, waited) },
        ],
        behavior: Behavior { inward: Pace { stabilize_ms: 120_000, ..Pace::default() }, ..Behavior::default() },
        ..Policy::default()
    };
    let traffic = Traffic { id: WORKERS, idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) };
    engine.put_group(start, traffic, policy)?;

    for (second, depth, oldest) in [(0, 0, 0), (15, 30, 12), (30, 34, 45), (45, 9, 3), (60, 0, 0), (180, 0, 0)] {
        let now = Timestamp::from_millis(second * 1000);
        engine.handle_sample(now, WORKERS, DEPTH, now, Some(Milli::from_units(depth)));
        engine.handle_sample(now, WORKERS, OLDEST, now, Some(Milli::from_units(oldest)));
        print!("{second:>4} s, {depth:>2} jobs wait, the oldest for {oldest} s: ");
        print!("{}", engine.explain(now, WORKERS).ok_or("no group")?.explain());
        engine.handle_timeout(now);
        while let Some(effect) = engine.poll_effect() {
            println!("        {effect:?}");
            match effect {
                Effect::Launch { request, count, .. } => engine.handle_launch(now, request, Progress::done(count)),
                Effect::Cancel { request, keep, .. } => {
                    let cancelled = engine.request(request).map_or(0, |held| held.count - keep);
                    engine.handle_launch(now, request, Progress { cancelled, ..Progress::default() });
                }
                Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
            }
        }
    }
    Ok(())
}

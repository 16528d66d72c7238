//! Groups of a [`Fleet`] on their shared pools, by the crate's own engine and its own rehearsal.

use std::collections::BTreeSet;

use serde::Serialize;
use tenon_scaler::chain::{Call, Chain, ChainTask, ChainVerdict, Link};
use tenon_scaler::strategy::{QueueLength, Strategy};
use tenon_scaler::{
    Behavior, Config, Days, Engine, Grant, GroupId, IdcId, Metric, MetricId, Milli, Move, Pace, Policy, Pool, PoolId,
    PoolKind, Rate, Rehearsal, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, TaskId, TenantId, Timeline,
    Timestamp, Traffic, VersionId, Watermark, Window, World, ZoneId, Zones,
};

use super::binding::{Binding, Mode};
use super::controller::rules;
use super::sums::{Lives, Meter};
use super::{By, Change, Level, Outcome, Plant};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::fleet::{self, Fleet, TimedKind};
use crate::quantity::{milli_of, units};
use crate::trace::Reader;

/// What a pool lent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PoolUse {
    pub(crate) name: String,
    pub(crate) stock: u32,
    /// The most that was lent at one time.
    pub(crate) peak: u64,
    pub(crate) instance_seconds: f64,
    pub(crate) cost: f64,
}

const SHAPE: ShapeId = ShapeId(1);

/// Rehearses all groups of a fleet together; `bindings` and `initial` are by group.
pub(crate) fn rehearse_fleet(
    fleet: &Fleet,
    bindings: &[Binding],
    plant: &Plant,
    initial: &[u32],
) -> Result<(Vec<Outcome>, Vec<PoolUse>)> {
    for (group, binding) in fleet.groups.iter().zip(bindings) {
        for bound in binding.inputs.iter().flatten() {
            if !matches!(bound.mode, Mode::Load | Mode::OpenLoop) {
                let (name, option) = (&group.scaler.name, bound.mode.option());
                return Err(Error::new(format!(
                    "group {name}: {option} is not rehearsed for a Fleet; use --load or --open-loop"
                )));
            }
        }
    }
    let wrong = |what: String| Error::of_file(&fleet.file, format!("fleet {}: {what}", fleet.name));
    let mut engine = engine(fleet, plant).map_err(|what| wrong(what.clone()))?;
    let mut findings = vec![Vec::new(); fleet.groups.len()];
    tasks(fleet, &mut engine, plant, &mut findings).map_err(wrong)?;
    let capacities = bindings.iter().map(|binding| binding.capacity.unwrap_or(0.0));
    let readers =
        bindings.iter().map(|binding| binding.inputs.iter().flatten().next().map(|bound| Reader::new(&bound.series)));
    let mut world =
        Recorded { readers: readers.collect(), capacities: capacities.collect(), initial, moves: Vec::new() };
    let run = Rehearsal {
        from: Timestamp::from_millis(plant.from),
        until: Timestamp::from_millis(plant.until),
        sample_ms: plant.sync_ms,
        start_ms: plant.start_ms,
        stop_ms: plant.stop_ms,
        flap_ms: plant.flap_ms,
        timeline: Timeline::Rows,
        ..Rehearsal::default()
    };
    let report = engine.rehearse(run, &mut world);
    let mut outcomes = Vec::new();
    for (place, (group, binding)) in fleet.groups.iter().zip(bindings).enumerate() {
        let id = group_id(place);
        let levels: Vec<Level> = report
            .timeline
            .iter()
            .filter(|row| row.group == id)
            .map(|row| Level { at: row.at.as_millis(), ready: row.ready, starting: row.starting })
            .collect();
        let changes: Vec<Change> = world.moves.iter().filter(|held| held.0 == id).map(|held| held.1.clone()).collect();
        let lives = lives(&levels, initial[place], plant);
        let sums = {
            let mut meter = Meter::new(binding, plant);
            count(&mut meter, &levels, initial[place], plant);
            meter.finish(&changes, &lives, plant)
        };
        outcomes.push(Outcome {
            title: format!("group {}", group.scaler.name),
            name: group.scaler.name.clone(),
            initial: initial[place],
            last: changes.last().map_or(initial[place], |change| change.after),
            changes,
            levels,
            sums,
            demand: binding.demand_rows(plant),
            capacity: binding.capacity,
            demand_name: binding.demand_name(),
            cron_active: Vec::new(),
            findings: std::mem::take(&mut findings[place]),
        });
    }
    let pools = fleet.pools.iter().zip(&report.pools).map(|(pool, used)| PoolUse {
        name: pool.name.clone(),
        stock: pool.stock,
        peak: used.peak,
        instance_seconds: large(used.instance_ms) / 1_000.0,
        cost: large(used.cost()) / 1_000.0,
    });
    Ok((outcomes, pools.collect()))
}

#[expect(clippy::cast_precision_loss, reason = "sums for people")]
fn large(number: u128) -> f64 {
    number as f64
}

fn group_id(place: usize) -> GroupId {
    GroupId(u32::try_from(place).unwrap_or(u32::MAX))
}

fn engine(fleet: &Fleet, plant: &Plant) -> std::result::Result<Engine, String> {
    let mut zones = Zones::new();
    let mut ids = Vec::new();
    for timed in fleet.groups.iter().flat_map(|group| &group.timed) {
        ids.push(zones.add(timed.zone.clone()).map_err(|error| error.to_string())?);
    }
    let config = Config::builder().tick_ms(plant.sync_ms).zones(zones).build().map_err(|error| error.to_string())?;
    let mut engine = Engine::new(config);
    let now = Timestamp::ZERO;
    let centres: BTreeSet<&str> = fleet.pools.iter().map(|pool| pool.datacentre.as_str()).collect();
    for (place, pool) in (0_u16..).zip(&fleet.pools) {
        let centre = centres.iter().position(|name| *name == pool.datacentre).unwrap_or(0);
        let at =
            |instant: jiff::Timestamp| Timestamp::from_millis(u64::try_from(instant.as_millisecond()).unwrap_or(0));
        let kind = pool
            .lease
            .map_or(PoolKind::Resident, |(from, until)| PoolKind::Emergency { from: at(from), until: at(until) });
        let put = Pool {
            id: PoolId(place),
            kind,
            idc: IdcId(u16::try_from(centre).unwrap_or(u16::MAX)),
            price: pool.price,
            watermark: Watermark { high_permille: pool.marks.0, low_permille: pool.marks.1 },
            stock: vec![(SHAPE, pool.stock)],
        };
        engine.put_pool(now, put).map_err(|error| format!("pool {}: {error}", pool.name))?;
    }
    engine.put_release(now, ReleaseId(1), VersionId(1));
    let mut ids = ids.into_iter();
    for (place, group) in fleet.groups.iter().enumerate() {
        let (release, tenant) = (ReleaseId(1), TenantId(1));
        let traffic = Traffic { id: group_id(place), idcs: Vec::new(), tenant, release, shape: SHAPE };
        let mut rules = Vec::new();
        let mut metrics = Vec::new();
        if let Some(metric) = group.scaler.metrics.first() {
            // A sample counts in the pass in which it was measured.
            let stale_after_ms = plant.sync_ms.max(1);
            metrics.push(Metric { id: MetricId(0), stale_after_ms, when_stale: Staleness::ForbidIn });
            let per_instance = Milli::from_thousandths(metric.target.number());
            rules.push(RuleKind::Metric(MetricId(0), Strategy::QueueLength(QueueLength { per_instance })));
        }
        for timed in &group.timed {
            let zone = ids.next().unwrap_or(ZoneId(0));
            let days = match timed.days {
                fleet::Days::Every => Days::Every,
                fleet::Days::Week(bits) => Days::Week(bits),
                fleet::Days::MonthEnd => Days::MonthEnd,
            };
            let window = Window { zone, days, from: timed.from, until: timed.until, lead_ms: timed.lead_ms };
            rules.push(match timed.kind {
                TimedKind::Floor(count) => RuleKind::Floor(window, count),
                TimedKind::Cap(count) => RuleKind::Cap(window, count),
                TimedKind::Delta(by) => RuleKind::Delta(window, by),
            });
        }
        let policy = Policy {
            min: group.scaler.min,
            max: group.scaler.max,
            metrics,
            rules: (0_u16..).zip(rules).map(|(id, kind)| Rule { id: RuleId(id), kind }).collect(),
            behavior: behavior(group.scaler.behavior.as_ref(), plant),
            ..Policy::default()
        };
        engine.put_group(now, traffic, policy).map_err(|error| format!("group {}: {error}", group.scaler.name))?;
    }
    Ok(engine)
}

fn behavior(held: Option<&crate::policy::Behavior>, plant: &Plant) -> Behavior {
    let Some(held) = held else { return Behavior::kubernetes() };
    let pace = |of: &crate::policy::Rules| {
        let of = rules(of, plant);
        Pace {
            stabilize_ms: of.stabilization_ms,
            rate: Some(Rate { select: of.select, policies: of.policies }),
            ..Pace::default()
        }
    };
    Behavior { out: pace(&held.up), inward: pace(&held.down), ..Behavior::default() }
}

/// Starts the tasks of the chain; what is granted less than it wants is told.
fn tasks(
    fleet: &Fleet,
    engine: &mut Engine,
    plant: &Plant,
    findings: &mut [Vec<Finding>],
) -> std::result::Result<(), String> {
    if fleet.tasks.is_empty() {
        return Ok(());
    }
    let link = |link: &fleet::Link| Link {
        group: group_id(link.group),
        per_instance: Milli::from_thousandths(link.per_instance),
        limit: None,
    };
    let calls = fleet.links.iter().flat_map(|link| {
        let caller = group_id(link.group);
        link.calls.iter().map(move |(callee, permille)| Call { caller, callee: group_id(*callee), permille: *permille })
    });
    let chain =
        Chain::new(fleet.links.iter().map(link).collect(), calls.collect()).map_err(|error| error.to_string())?;
    let now = Timestamp::from_millis(plant.from);
    for (place, task) in (0_u32..).zip(&fleet.tasks) {
        let at =
            |instant: jiff::Timestamp| Timestamp::from_millis(u64::try_from(instant.as_millisecond()).unwrap_or(0));
        let asked = ChainTask {
            id: TaskId(place),
            wanted: task.wanted.iter().map(|(group, count)| (group_id(*group), *count)).collect(),
            from: at(task.from),
            until: at(task.until),
            grant: if task.partial { Grant::Partial } else { Grant::Atomic },
        };
        let verdict = engine.start_chain(now, &chain, &asked).map_err(|error| error.to_string())?;
        let (plan, refused) = match verdict {
            ChainVerdict::Started(plan) => (plan, false),
            ChainVerdict::Refused(plan) => (plan, true),
        };
        for step in plan.steps.iter().filter(|step| step.granted < step.wanted) {
            let found = findings.iter_mut().enumerate().find(|(place, _)| group_id(*place) == step.group);
            if let Some((_, list)) = found {
                let what = if refused { "and the whole task is refused" } else { "as much as there is" };
                list.push(Finding::warning(format!(
                    "chain task {place}: {} of {} instances are granted, {what}",
                    step.granted, step.wanted
                )));
            }
        }
    }
    Ok(())
}

/// The recorded day as the world of the engine's rehearsal.
struct Recorded<'a> {
    readers: Vec<Option<Reader<'a>>>,
    capacities: Vec<f64>,
    initial: &'a [u32],
    moves: Vec<(GroupId, Change)>,
}

impl Recorded<'_> {
    fn load(&mut self, at: Timestamp, group: GroupId) -> Option<f64> {
        let place = usize::try_from(group.0).ok()?;
        self.readers.get_mut(place)?.as_mut()?.value(at.as_millis())
    }
}

impl World for Recorded<'_> {
    fn measure(&mut self, at: Timestamp, group: GroupId, _: MetricId, _: u32) -> Option<Milli> {
        self.load(at, group).and_then(milli_of).map(Milli::from_thousandths)
    }

    fn start_size(&mut self, group: GroupId) -> Option<u32> {
        self.initial.get(usize::try_from(group.0).ok()?).copied()
    }

    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32 {
        let capacity =
            usize::try_from(group.0).ok().and_then(|place| self.capacities.get(place)).copied().unwrap_or(0.0);
        let load = self.load(at, group).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
        let needed = if capacity > 0.0 { (load / capacity - 1e-9).ceil() as u32 } else { 0 };
        needed
    }

    fn decided(&mut self, at: Timestamp, moves: &[Move]) {
        self.moves.extend(moves.iter().map(|moved| {
            let (before, after) = (moved.before, moved.after);
            let change = Change { at: at.as_millis(), before, after, by: By::Tenon, reason: moved.reason.to_string() };
            (moved.group, change)
        }));
    }
}

/// Pods that came and went, from how many there were.
fn lives(levels: &[Level], initial: u32, plant: &Plant) -> Lives {
    let mut lives = Lives { peak: initial, ..Lives::default() };
    let mut before = initial;
    for level in levels {
        let size = level.ready + level.starting;
        lives.started += u64::from(size.saturating_sub(before));
        for _ in size..before {
            lives.going.push(level.at.saturating_add(plant.stop_ms));
        }
        lives.peak = lives.peak.max(size);
        before = size;
    }
    lives
}

/// Counts the time between levels.
fn count(meter: &mut Meter<'_>, levels: &[Level], initial: u32, plant: &Plant) {
    let (mut now, mut place) = (plant.from, 0);
    let (mut size, mut ready) = (initial, initial);
    while now < plant.until {
        while let Some(level) = levels.get(place).filter(|level| level.at <= now) {
            (size, ready) = (level.ready + level.starting, level.ready);
            place += 1;
        }
        let next_level = levels.get(place).map_or(u64::MAX, |level| level.at);
        let next = plant.until.min(next_level).min(meter.next_change(now)).max(now + 1);
        meter.count(now, next, size, ready);
        now = next;
    }
}

/// What a pool's line says.
impl PoolUse {
    pub(crate) fn line(&self) -> String {
        format!(
            "pool {}: {} of {} at most, {:.1} instance-hours, {} in cost",
            self.name,
            self.peak,
            self.stock,
            self.instance_seconds / 3_600.0,
            units(milli_of(self.cost).unwrap_or(0))
        )
    }
}

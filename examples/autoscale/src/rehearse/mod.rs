//! Plays a recorded day through an autoscaler: the closed loop of pods, load and decisions.

mod binding;
mod controller;
mod fleet;
mod guess;
mod keda;
mod sums;
mod tenon;
mod world;

use serde::Serialize;

use crate::cron::Stretch;
use crate::error::Result;
use crate::finding::Finding;
use crate::policy::Autoscaler;

pub(crate) use binding::{Bind, Binding, Capacity, Mode, Recorded, Wish, bind};
use controller::Controller;
use fleet::Fleet;
use keda::Shell;
use sums::Meter;
pub(crate) use sums::Sums;
pub(crate) use tenon::{PoolUse, rehearse_fleet};
use world::World;

/// What a rehearsal needs besides a manifest and a trace; times in ms.
#[derive(Clone, Debug)]
pub(crate) struct Plant {
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) sync_ms: u64,
    pub(crate) start_ms: u64,
    pub(crate) stop_ms: u64,
    /// So many pods fit on the nodes that there are; a further one waits for a node for so long.
    pub(crate) nodes: Option<(u32, u64)>,
    pub(crate) metric_lag_ms: u64,
    pub(crate) metric_window_ms: u64,
    pub(crate) warm_up_ms: u64,
    pub(crate) flap_ms: u64,
    pub(crate) tolerance_millionths: u32,
    pub(crate) downscale_window_ms: u64,
    pub(crate) cpu_initialization_ms: u64,
    pub(crate) initial_readiness_ms: u64,
    pub(crate) partitions: Option<u32>,
}

/// Who changed the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    Hpa,
    Activated,
    Deactivated,
    Paused,
    /// An engine of `tenon-scaler`, by the rules of a group.
    Tenon,
}

impl By {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Hpa => "hpa",
            Self::Activated => "activated",
            Self::Deactivated => "deactivated",
            Self::Paused => "paused",
            Self::Tenon => "tenon",
        }
    }
}

/// A change of the size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: u64,
    pub(crate) before: u32,
    pub(crate) after: u32,
    pub(crate) by: By,
    pub(crate) reason: String,
}

/// How many pods there are from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) at: u64,
    pub(crate) ready: u32,
    pub(crate) starting: u32,
}

/// What a rehearsal came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) title: String,
    pub(crate) name: String,
    pub(crate) initial: u32,
    pub(crate) last: u32,
    pub(crate) changes: Vec<Change>,
    pub(crate) levels: Vec<Level>,
    pub(crate) sums: Sums,
    /// The demand over time where a trace tells one: instants, and what the load is from then on.
    pub(crate) demand: Vec<(u64, Option<f64>)>,
    /// What one ready pod carries of the demand.
    pub(crate) capacity: Option<f64>,
    /// What the demand is called.
    pub(crate) demand_name: String,
    /// When cron triggers were open.
    pub(crate) cron_active: Vec<Stretch>,
    pub(crate) findings: Vec<Finding>,
}

/// Rehearses one autoscaler.
pub(crate) fn rehearse(autoscaler: &Autoscaler, binding: &Binding, plant: &Plant, initial: u32) -> Result<Outcome> {
    let mut world = World::new(autoscaler, binding, plant);
    let mut controller = Controller::new(autoscaler, binding, plant)?;
    let mut shell = autoscaler.keda.as_ref().map(|keda| Shell::new(keda, plant));
    let mut fleet = Fleet::new(initial, controller.requests(), plant);
    let mut meter = Meter::new(binding, plant);
    world.note_ready(plant.from, fleet.ready());
    let mut stage = Stage { changes: Vec::new(), levels: vec![fleet.level(plant.from)] };
    let mut findings = Vec::new();
    let (mut now, mut next_pass, mut next_poll) = (plant.from, plant.from, plant.from);
    let paused = autoscaler.keda.as_ref().map(|keda| &keda.pauses).filter(|held| held.is_whole());
    if let Some(pauses) = paused {
        if let Some(count) = pauses.at_replicas {
            stage.set(&mut fleet, now, count, By::Paused, "the annotation paused-replicas asks for it".into());
        }
        findings.push(Finding::warning(
            "the ScaledObject is paused by an annotation: its HPA is deleted, and nothing scales it",
        ));
    }
    while now < plant.until {
        if paused.is_none() {
            if next_poll == now
                && let Some(shell) = &mut shell
            {
                if let Some((size, by, reason)) = shell.poll(now, &mut world, &fleet, autoscaler) {
                    stage.set(&mut fleet, now, size, by, reason);
                }
                next_poll += shell.polling_ms();
            }
            if next_pass == now {
                let pass = controller.pass(now, &mut world, &fleet, shell.as_mut());
                if let Some((size, reason)) = pass {
                    stage.set(&mut fleet, now, size, By::Hpa, reason);
                }
                next_pass += plant.sync_ms;
            }
        }
        let mut next = plant.until;
        if paused.is_none() {
            next = next.min(next_pass);
            if shell.is_some() {
                next = next.min(next_poll);
            }
        }
        now = play(&mut fleet, &mut world, &mut meter, &mut stage, now, next);
    }
    findings.extend(controller.findings());
    findings.extend(world.findings());
    findings.extend(shell.iter().flat_map(Shell::findings));
    let sums = meter.finish(&stage.changes, &fleet.lives, plant);
    let cron_active = shell.as_ref().map(Shell::open_stretches).unwrap_or_default();
    Ok(Outcome {
        title: autoscaler.title(),
        name: autoscaler.name.clone(),
        initial,
        last: fleet.size(),
        changes: stage.changes,
        levels: stage.levels,
        sums,
        demand: binding.demand_rows(plant),
        capacity: binding.capacity,
        demand_name: binding.demand_name(),
        cron_active,
        findings,
    })
}

/// Lets time pass up to `until`; whatever changes on the way is counted from its very instant.
fn play(
    fleet: &mut Fleet,
    world: &mut World<'_>,
    meter: &mut Meter<'_>,
    stage: &mut Stage,
    mut now: u64,
    until: u64,
) -> u64 {
    while now < until {
        if fleet.wake(now) {
            stage.levels.push(fleet.level(now));
        }
        world.note_ready(now, fleet.ready());
        let next = until.min(fleet.next_ready()).min(meter.next_change(now)).min(world.next_change(now)).max(now + 1);
        meter.count(now, next, fleet.size(), fleet.ready());
        world.drain(now, next, fleet.ready());
        now = next;
    }
    if fleet.wake(now) {
        stage.levels.push(fleet.level(now));
    }
    world.note_ready(now, fleet.ready());
    now
}

/// What is written down on the way.
struct Stage {
    changes: Vec<Change>,
    levels: Vec<Level>,
}

impl Stage {
    fn set(&mut self, fleet: &mut Fleet, now: u64, size: u32, by: By, reason: String) {
        let before = fleet.size();
        if before == size {
            return;
        }
        fleet.resize(now, size);
        self.changes.push(Change { at: now, before, after: size, by, reason });
        self.levels.push(fleet.level(now));
    }
}

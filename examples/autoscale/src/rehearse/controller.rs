//! The HPA's passes, by `tenon-scaler`'s `hpa::reconcile`: here the manifest's words become that function's, and nothing is
//! decided twice.

use tenon_scaler::Timestamp;
use tenon_scaler::hpa::{
    self, Bound, Kind, Measured, MetricError, Outcome, Phase, PodSample, Pods, Requests, Spec, State, Tolerance, View,
};

use super::Plant;
use super::binding::Binding;
use super::fleet::Fleet;
use super::keda::Shell;
use super::world::{Each, World};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::policy::{Autoscaler, Pace, PaceUnit, Rules, Select, Source, Subject, Target};
use crate::quantity::units;

/// An HPA, and what it remembers.
pub(super) struct Controller {
    spec: Spec,
    state: State,
    /// Of each metric of the spec: where its value comes from, and what it is called.
    sources: Vec<(Source, String)>,
    requests: Requests,
    window_ms: u64,
    /// Buffers that each pass fills anew: samples of pods, and single values, by metric.
    samples: Vec<Vec<PodSample>>,
    values: Vec<Option<i64>>,
    /// Passes that could not decide, by what failed.
    failed: Vec<(String, u64)>,
}

impl Controller {
    pub(super) fn new(autoscaler: &Autoscaler, binding: &Binding, plant: &Plant) -> Result<Self> {
        let mut places: Vec<(String, Option<String>)> = Vec::new();
        let (mut metrics, mut sources, mut requests) = (Vec::new(), Vec::new(), Requests::default());
        for metric in &autoscaler.metrics {
            if let Source::Input(input) = metric.source
                && binding.inputs[input].is_none()
            {
                continue;
            }
            let subject = match metric.source {
                Source::Input(input) => autoscaler.inputs[input].subject.clone(),
                Source::Trigger(_) | Source::Formula => Subject::Total,
            };
            let mut made = hpa::Metric::new(kind(&subject, metric.target), metric.target.number());
            if let (Subject::Resource { resource, container }, Source::Input(input)) = (&subject, metric.source) {
                let key = (resource.clone(), container.clone());
                let place = places.iter().position(|held| *held == key).unwrap_or_else(|| {
                    places.push(key);
                    places.len() - 1
                });
                let number = u8::try_from(place).ok().filter(|_| place < hpa::RESOURCES);
                let Some(number) = number else {
                    return Err(Error::new(format!(
                        "{}: more than {} resources of pods or containers are not rehearsed",
                        autoscaler.title(),
                        hpa::RESOURCES
                    )));
                };
                made = made.of_resource(number);
                requests = requests.with(number, binding.requests[input]);
            }
            metrics.push(made);
            sources.push((metric.source, metric.label.clone()));
        }
        if metrics.is_empty() {
            return Err(Error::new(format!(
                "{}: every metric is ignored, and nothing is left to decide by",
                autoscaler.title()
            )));
        }
        let spec = Spec {
            min: autoscaler.min,
            max: autoscaler.max,
            tolerance: tolerance(autoscaler, plant),
            behavior: autoscaler.behavior.as_ref().map(|held| (rules(&held.up, plant), rules(&held.down, plant))),
            downscale_window_ms: plant.downscale_window_ms,
            cpu_initialization_ms: plant.cpu_initialization_ms,
            initial_readiness_ms: plant.initial_readiness_ms,
            metrics,
            ..Spec::default()
        };
        let count = sources.len();
        Ok(Self {
            spec,
            state: State::default(),
            sources,
            requests,
            window_ms: plant.metric_window_ms,
            samples: vec![Vec::new(); count],
            values: vec![None; count],
            failed: Vec::new(),
        })
    }

    pub(super) const fn requests(&self) -> Requests {
        self.requests
    }

    /// One pass: the size that it asks for, if it is another, and why.
    pub(super) fn pass(
        &mut self,
        now: u64,
        world: &mut World<'_>,
        fleet: &Fleet,
        mut shell: Option<&mut Shell<'_>>,
    ) -> Option<(u32, String)> {
        let current = fleet.size();
        if current > 0 || self.spec.min == 0 {
            for at in 0..self.sources.len() {
                self.measure(at, now, world, fleet, shell.as_deref_mut());
            }
        }
        let measured: Vec<Measured<'_>> =
            self.values.iter().zip(&self.samples).zip(&self.spec.metrics).map(measured).collect();
        let view =
            View { spec_replicas: current, status_replicas: current, pods: Pods(fleet.pods()), measured: &measured };
        let at = Timestamp::from_millis(now);
        let (replicas, outcome, next) = hpa::reconcile(&self.spec, &self.state, &view, at);
        self.state = next;
        if let Outcome::Failed(error) = outcome {
            let cause = self.failure(&measured, &view, at, error);
            match self.failed.iter_mut().find(|held| held.0 == cause) {
                Some(held) => held.1 += 1,
                None => self.failed.push((cause, 1)),
            }
        }
        if replicas == current {
            return None;
        }
        Some((replicas, self.reason(replicas, outcome, &view, at)))
    }

    fn measure(&mut self, at: usize, now: u64, world: &mut World<'_>, fleet: &Fleet, shell: Option<&mut Shell<'_>>) {
        self.samples[at].clear();
        self.values[at] = None;
        match (self.sources[at].0, shell) {
            (Source::Input(input), _) if is_of_pods(self.spec.metrics[at].kind) => {
                if let Some(each) = world.each(input, now) {
                    // Something was measured, be it of no pod.
                    self.values[at] = Some(0);
                    self.sample(at, each, now, world, fleet);
                }
            }
            (Source::Input(input), _) => self.values[at] = world.total(input, now),
            (Source::Trigger(trigger), Some(shell)) => self.values[at] = shell.query(trigger, now, world, fleet),
            (Source::Formula, Some(shell)) => self.values[at] = shell.composite(now, world, fleet),
            (Source::Trigger(_) | Source::Formula, None) => {}
        }
    }

    /// What is measured of each pod: of those that were ready when it was.
    fn sample(&mut self, at: usize, each: Each, now: u64, world: &mut World<'_>, fleet: &Fleet) {
        let seen = world.seen_at(now);
        let when = Timestamp::from_millis(seen);
        let ready = i64::from(world.ready_at(seen)).max(1);
        let is_seen = |pod: &&hpa::Pod| match pod.ready {
            hpa::ReadyCondition::Ready(since) => pod.phase == Phase::Running && since <= when,
            hpa::ReadyCondition::Absent | hpa::ReadyCondition::NotReady(_) => false,
        };
        let window_ms = self.window_ms;
        let samples = &mut self.samples[at];
        match each {
            Each::Alike(value) => {
                samples.extend(fleet.pods().iter().filter(is_seen).map(|pod| PodSample {
                    pod: pod.id,
                    value,
                    at: when,
                    window_ms,
                }));
            }
            Each::Shared { total, limit } => {
                // Thousandths are shared out whole, so that their sum is the load itself.
                let (share, rest) = (total.div_euclid(ready), total.rem_euclid(ready));
                let most = limit.unwrap_or(i64::MAX);
                if share >= most {
                    world.note_censored();
                }
                for (place, pod) in (0..).zip(fleet.pods().iter().filter(is_seen)) {
                    let value = (share + i64::from(place < rest)).min(most);
                    samples.push(PodSample { pod: pod.id, value, at: when, window_ms });
                }
            }
        }
    }

    /// Which metric failed, in words.
    fn failure(&self, measured: &[Measured<'_>], view: &View<'_>, at: Timestamp, error: MetricError) -> String {
        let names: Vec<&str> = self
            .spec
            .metrics
            .iter()
            .zip(measured)
            .zip(&self.sources)
            .filter(|((metric, measured), _)| hpa::propose(&self.spec, metric, **measured, view, at).is_err())
            .map(|(_, (_, name))| name.as_str())
            .collect();
        format!("{} ({error})", names.join(", "))
    }

    /// The metric that decided, its reading, and what bounds the answer.
    fn reason(&self, replicas: u32, outcome: Outcome, view: &View<'_>, at: Timestamp) -> String {
        let current = view.spec_replicas;
        if current > self.spec.max {
            return format!("above the maximum of {}", self.spec.max);
        }
        if current < self.spec.min {
            return format!("below the minimum of {}", self.spec.min);
        }
        let mut best: Option<(u32, String)> = None;
        for (place, metric) in self.spec.metrics.iter().enumerate() {
            let Ok(proposal) = hpa::propose(&self.spec, metric, view.measured[place], view, at) else { continue };
            let name = &self.sources[place].1;
            let read = match (proposal.utilization_percent, metric.kind) {
                (Some(percent), _) => format!("{percent} % of the request against {} %", metric.target),
                (None, Kind::Value) => format!("{} against {}", units(proposal.usage), units(metric.target)),
                (None, _) => format!("{} for each replica against {}", units(proposal.usage), units(metric.target)),
            };
            if best.as_ref().is_none_or(|held| proposal.replicas > held.0) {
                best = Some((proposal.replicas, format!("{name}: {read} asks for {}", proposal.replicas)));
            }
        }
        let (wanted, mut text) = best.unwrap_or((replicas, "no metric has a say".into()));
        let limit = match outcome {
            Outcome::Sized(Bound::ScaleUpLimit) => Some("growth is limited by the behavior"),
            Outcome::Sized(Bound::ScaleDownLimit) => Some("shrinking is limited by the behavior"),
            Outcome::Sized(Bound::TooManyReplicas) => Some("the maximum"),
            Outcome::Sized(Bound::TooFewReplicas) => Some("the minimum"),
            Outcome::Sized(Bound::DesiredWithinRange) if wanted != replicas => {
                Some("an earlier recommendation of the window holds")
            }
            Outcome::Disabled | Outcome::Failed(_) | Outcome::Sized(_) | _ => None,
        };
        if let Some(limit) = limit {
            text.push_str("; ");
            text.push_str(limit);
        }
        text
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let of = |(word, passes): &(String, u64)| {
            Finding::warning(format!("in {passes} passes nothing was decided, because of {word}"))
        };
        self.failed.iter().map(of).collect()
    }
}

fn measured<'a>(((value, samples), metric): ((&'a Option<i64>, &'a Vec<PodSample>), &hpa::Metric)) -> Measured<'a> {
    match value {
        None => Measured::Failed,
        Some(_) if is_of_pods(metric.kind) => Measured::Pods(samples),
        Some(value) => Measured::Values(std::slice::from_ref(value)),
    }
}

const fn is_of_pods(kind: Kind) -> bool {
    !matches!(kind, Kind::Value | Kind::AverageValue)
}

fn kind(subject: &Subject, target: Target) -> Kind {
    match (subject, target) {
        (Subject::Resource { resource, .. }, Target::Utilization(_)) if resource == "cpu" => Kind::CpuUtilization,
        (Subject::Resource { .. }, Target::Utilization(_)) => Kind::Utilization,
        (Subject::Resource { resource, .. }, _) if resource == "cpu" => Kind::CpuAverage,
        (Subject::Resource { .. } | Subject::Pods, _) => Kind::PodsAverage,
        (Subject::Total, Target::Value(_)) => Kind::Value,
        (Subject::Total, _) => Kind::AverageValue,
    }
}

pub(super) fn rules(rules: &Rules, plant: &Plant) -> hpa::Rules {
    let policy = |pace: &Pace| hpa::Policy {
        kind: match pace.unit {
            PaceUnit::Pods => hpa::PolicyKind::Pods,
            PaceUnit::Percent => hpa::PolicyKind::Percent,
        },
        value: pace.value,
        period_ms: pace.period_ms,
    };
    hpa::Rules {
        select: match rules.select {
            Select::Max => hpa::Select::Max,
            Select::Min => hpa::Select::Min,
            Select::Disabled => hpa::Select::Disabled,
        },
        policies: rules.policies.iter().map(policy).collect(),
        stabilization_ms: rules.window_ms.unwrap_or(plant.downscale_window_ms),
    }
}

fn tolerance(autoscaler: &Autoscaler, plant: &Plant) -> Tolerance {
    let of = |rules: Option<&Rules>| {
        rules.and_then(|rules| rules.tolerance_millionths).unwrap_or(plant.tolerance_millionths)
    };
    let behavior = autoscaler.behavior.as_ref();
    Tolerance { up_millionths: of(behavior.map(|held| &held.up)), down_millionths: of(behavior.map(|held| &held.down)) }
}

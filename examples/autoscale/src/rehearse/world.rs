//! What is measured at an instant: of the load, of the pods, of a queue that fills and drains.

use super::Plant;
use super::binding::{Binding, Bound, Demand, Mode, milli};
use crate::finding::Finding;
use crate::policy::{Autoscaler, Gap};
use crate::quantity::{float, milli_of};
use crate::trace::Reader;

/// A value of a metric of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// Thousandths that ready pods share, each at most so much.
    Shared { total: i64, limit: Option<i64> },
    /// Thousandths of each pod.
    Alike(i64),
}

struct Source<'a> {
    bound: &'a Bound,
    now: Reader<'a>,
    /// Behind by the lag of metrics.
    behind: Demand2<'a>,
    gap: Gap,
    waiting: f64,
}

/// A reader of a load, whichever way it was recorded.
enum Demand2<'a> {
    Plain(Reader<'a>),
    Load(Box<Demand<'a>>),
}

impl Demand2<'_> {
    fn value(&mut self, at: u64) -> Option<f64> {
        match self {
            Self::Plain(reader) => reader.value(at),
            Self::Load(demand) => demand.value(at),
        }
    }
}

/// The world of one rehearsal.
pub(super) struct World<'a> {
    sources: Vec<Option<Source<'a>>>,
    lag_ms: u64,
    from: u64,
    /// Ready pods from instants on, as far back as the lag reaches.
    history: Vec<(u64, u32)>,
    /// Measurements at which pods were at their limit.
    censored: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(autoscaler: &Autoscaler, binding: &'a Binding, plant: &Plant) -> Self {
        let sources = autoscaler.inputs.iter().enumerate().map(|(place, input)| {
            let bound = binding.inputs[place].as_ref()?;
            let behind = match bound.mode {
                Mode::Utilisation => {
                    let request = crate::quantity::units(binding.requests[place].unwrap_or(1_000));
                    let recorded = binding.recorded.as_ref().map(super::binding::RecordedSeries::reader);
                    Demand2::Load(Box::new(Demand::new(&bound.series, recorded, request)))
                }
                Mode::Load | Mode::PerPod | Mode::Backlog | Mode::OpenLoop => {
                    Demand2::Plain(Reader::new(&bound.series))
                }
            };
            Some(Source { bound, now: Reader::new(&bound.series), behind, gap: input.gap, waiting: 0.0 })
        });
        Self {
            sources: sources.collect(),
            lag_ms: plant.metric_lag_ms,
            from: plant.from,
            history: Vec::new(),
            censored: 0,
        }
    }

    /// Remembers how many pods are ready from now on.
    pub(super) fn note_ready(&mut self, now: u64, ready: u32) {
        if self.history.last().is_none_or(|last| last.1 != ready) {
            self.history.push((now, ready));
            // What is older than the lag is of no use, but for the last that is.
            let old = self.history.iter().rposition(|(at, _)| *at + self.lag_ms <= now).unwrap_or(0);
            self.history.drain(..old);
        }
    }

    /// The instant of which metrics of pods tell at `now`; before the first one, it was as it was then.
    pub(super) fn seen_at(&self, now: u64) -> u64 {
        now.saturating_sub(self.lag_ms).max(self.from)
    }

    /// How many pods were ready then.
    pub(super) fn ready_at(&self, at: u64) -> u32 {
        self.history.iter().rev().find(|held| held.0 <= at).or(self.history.first()).map_or(0, |held| held.1)
    }

    /// Whether an input is left out.
    pub(super) fn is_ignored(&self, input: usize) -> bool {
        self.sources[input].is_none()
    }

    /// What a metric of pods reads; `None` where it is missing.
    pub(super) fn each(&mut self, input: usize, now: u64) -> Option<Each> {
        let seen = self.seen_at(now);
        let source = self.sources[input].as_mut()?;
        let value = source.behind.value(seen)?;
        Some(match source.bound.mode {
            Mode::Load | Mode::Utilisation => Each::Shared { total: milli(value), limit: source.bound.limit },
            Mode::Backlog => Each::Shared { total: milli(source.waiting), limit: None },
            Mode::PerPod | Mode::OpenLoop => Each::Alike(milli(value)),
        })
    }

    /// What a total reads, in thousandths; `None` where it is missing.
    pub(super) fn total(&mut self, input: usize, now: u64) -> Option<i64> {
        let source = self.sources[input].as_mut()?;
        let value = source.now.value(now);
        match source.bound.mode {
            Mode::Backlog => value.and(milli_of(source.waiting)),
            Mode::Load | Mode::Utilisation | Mode::PerPod | Mode::OpenLoop => value.and_then(milli_of),
        }
    }

    /// What a trigger of KEDA reads: below 0 is 0, and a gap is what its field says.
    pub(super) fn trigger(&mut self, input: usize, now: u64) -> Option<i64> {
        let gap = self.sources[input].as_ref().map(|source| source.gap);
        match (self.total(input, now), gap) {
            (Some(value), _) => Some(value.max(0)),
            (None, Some(Gap::Zero)) => Some(0),
            (None, Some(Gap::Fails) | None) => None,
        }
    }

    pub(super) fn note_censored(&mut self) {
        self.censored += 1;
    }

    /// When the arrivals of a queue change next.
    pub(super) fn next_change(&mut self, now: u64) -> u64 {
        let queues = self.sources.iter_mut().flatten().filter(|source| source.bound.mode == Mode::Backlog);
        queues.map(|source| source.now.next_change(now)).min().unwrap_or(u64::MAX)
    }

    /// Queues fill and drain from `from` to `until`, in which nothing else changes.
    pub(super) fn drain(&mut self, from: u64, until: u64, ready: u32) {
        for source in self.sources.iter_mut().flatten().filter(|source| source.bound.mode == Mode::Backlog) {
            // Of arrivals that are not known, nothing is known to wait.
            let Some(arrivals) = source.now.value(from) else { continue };
            let served = float(ready) * source.bound.service_rate;
            source.waiting = (source.waiting + (arrivals - served) * seconds(until - from)).max(0.0);
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.censored > 0 {
            findings.push(Finding::warning(format!(
                "at {} measurements the pods were at their limit: what was asked for beyond it, nobody knows",
                self.censored
            )));
        }
        findings
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few minutes")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

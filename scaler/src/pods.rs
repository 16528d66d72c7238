//! Facts about instances one by one, for rules that look at each of them, and for averages without those that warm up.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Timestamp;
use crate::engine::Engine;
use crate::group::{Fleet, Policy};
use crate::hpa::{Phase, Pod, PodSample, Pods, ReadyCondition};
use crate::id::{GroupId, MetricId};
use crate::num::Milli;

impl Engine {
    /// Tells all instances of a group, as they were at `at`.
    ///
    /// A list that is older than the last one, or longer than the configuration's largest maximum, changes nothing.
    pub fn handle_pods(&mut self, now: Timestamp, group: GroupId, at: Timestamp, pods: &[Pod]) {
        let now = self.lift(now);
        let (most, early) = (self.most_pods(), self.is_early(at, now));
        let Ok(place) = self.place(group) else {
            self.counters.unknown += 1;
            return;
        };
        let slot = &mut self.slots[place];
        let seen = slot.fleet.as_ref().map(|fleet| fleet.at);
        if early {
            self.counters.early += 1;
        } else if seen.is_some_and(|seen| at <= seen) {
            self.counters.late += 1;
        } else if pods.len() > most {
            self.counters.impossible += 1;
        } else {
            let fleet = slot.fleet.get_or_insert_default();
            fleet.at = at;
            fleet.pods.clear();
            fleet.pods.extend_from_slice(pods);
            in_order(&mut fleet.pods, |pod| pod.id);
            self.due[place] = Timestamp::ZERO;
        }
    }

    /// Tells samples of a metric for each instance, measured at `at`.
    ///
    /// Rules that read an average read that of the instances that serve and are past the policy's
    /// [`warm_up_ms`](Policy::warm_up_ms); if there is none, the sample is missing.
    pub fn handle_pod_samples(
        &mut self,
        now: Timestamp,
        group: GroupId,
        metric: MetricId,
        at: Timestamp,
        samples: &[PodSample],
    ) {
        let now = self.lift(now);
        let (most, early) = (self.most_pods(), self.is_early(at, now));
        let Ok(place) = self.place(group) else {
            self.counters.unknown += 1;
            return;
        };
        let slot = &mut self.slots[place];
        let Some(index) = slot.group.metric_index(metric) else {
            self.counters.unknown += 1;
            return;
        };
        if slot.group.is_computed(metric) {
            self.counters.impossible += 1;
        } else if early {
            self.counters.early += 1;
        } else if slot.samples[index].is_some_and(|held| at <= held.at) {
            self.counters.late += 1;
        } else if samples.len() > most {
            self.counters.impossible += 1;
        } else {
            let fleet = slot.fleet.get_or_insert_with(|| Box::new(Fleet::default()));
            if fleet.samples.len() <= index {
                fleet.samples.resize(index + 1, Vec::new());
            }
            let held = &mut fleet.samples[index];
            held.clear();
            held.extend_from_slice(samples);
            in_order(held, |sample| sample.pod);
            let warm = average(fleet, index, slot.group.policy(), at);
            // A rule that looks at each instance finds its own way round those that are not ready.
            let (value, over) = if warm.1 == 0 && slot.group.reads_ready { mean(&fleet.samples[index]) } else { warm };
            self.take_average(place, index, at, value, over);
        }
    }

    fn most_pods(&self) -> usize {
        usize::try_from(self.config.limits.instances).unwrap_or(usize::MAX)
    }
}

fn in_order<T>(of: &mut Vec<T>, id: impl Fn(&T) -> u32) {
    if !of.windows(2).all(|two| id(&two[0]) < id(&two[1])) {
        of.sort_by_key(&id);
        of.dedup_by_key(|one| id(one));
    }
}

/// The average over the instances that serve and are warm, and how many these are.
fn average(fleet: &Fleet, index: usize, policy: &Policy, at: Timestamp) -> (Option<Milli>, u32) {
    let counts = |id: u32| {
        // Of an instance that the host has not told of, nothing speaks against it.
        Pods(&fleet.pods).get(id).is_none_or(|pod| {
            let serves = pod.phase == Phase::Running && matches!(pod.ready, ReadyCondition::Ready(_));
            serves && pod.started.is_none_or(|started| started.after_millis(policy.warm_up_ms) <= at)
        })
    };
    mean(fleet.samples[index].iter().filter(|sample| counts(sample.pod)))
}

fn mean<'a>(samples: impl IntoIterator<Item = &'a PodSample>) -> (Option<Milli>, u32) {
    let (mut sum, mut over) = (0_i128, 0_u32);
    for sample in samples {
        sum += i128::from(sample.value);
        over += 1;
    }
    let mean = (over > 0).then(|| Milli::from_thousandths(i64::try_from(sum / i128::from(over)).unwrap_or(i64::MAX)));
    (mean, over)
}

impl Fleet {
    /// Whether the instances and their samples are in order.
    pub(crate) fn is_sound(&self, metrics: usize) -> bool {
        self.pods.windows(2).all(|two| two[0].id < two[1].id)
            && self.samples.len() <= metrics
            && self.samples.iter().all(|samples| samples.windows(2).all(|two| two[0].pod < two[1].pod))
    }
}

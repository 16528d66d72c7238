//! One wrong reading of the host's clock: what it set is taken back.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Engine;
use super::call::Work;
use crate::id::CallId;
use crate::store::{JobSlot, NONE};
use crate::time::Timestamp;
use crate::timer::Timers;

/// The time of an engine's clock. It is part of a snapshot and of no comparison: the host's next reading replaces it.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(super) struct Clock(pub(super) Timestamp);

impl PartialEq for Clock {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Clock {}

impl core::hash::Hash for Clock {
    fn hash<H: core::hash::Hasher>(&self, _state: &mut H) {}
}

impl Engine {
    /// The reading is so far behind the last one that the last one was wrong, or this one is: whatever was set by a time
    /// that has not come counts from now on as if it had been set now.
    #[cold]
    pub(super) fn step_back(&mut self, now: Timestamp) {
        self.now = now;
        self.timers = Timers::default();
        let jobs: Vec<u32> = self.store.jobs.places().map(|(at, _)| at).collect();
        for at in jobs {
            let rest = self.store.jobs.get(at).map_or(NONE, JobSlot::rest);
            if self.store.take_alarm(rest).is_some() {
                self.place(at);
            }
        }
        self.queues.step_back(now);
        self.step_shares_back(now);
        self.sleepers = self.sleepers.iter().map(|(at, sleeper)| ((*at).min(now), *sleeper)).collect();
        let parked: Vec<CallId> = self.patience.iter().map(|(_, call)| *call).collect();
        let mut patience = BTreeSet::new();
        for id in parked {
            let Some(call) = self.calls.get_mut(id) else { continue };
            let Work::Pull(pull) = &mut call.work else { continue };
            if pull.since > now {
                pull.until = now.after_millis(pull.until.millis_since(pull.since));
                pull.since = now;
            }
            patience.insert((pull.until, id));
        }
        self.patience = patience;
        if self.sweep.due != Timestamp::MAX {
            self.sweep.due = self.sweep.due.min(now.after_millis(u64::from(self.config.recheck_ms)));
        }
    }
}

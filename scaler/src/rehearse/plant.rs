//! The instances of a rehearsed group one by one, for rules that look at each: created, ready, gone.

use alloc::vec::Vec;

use crate::Timestamp;
use crate::hpa::{Deletion, Phase, Pod, ReadyCondition, Requests};
use crate::id::{PoolId, RequestId};

/// One rehearsed instance.
#[derive(Clone, Copy, Debug)]
struct Instance {
    id: u32,
    pool: PoolId,
    launch: Option<RequestId>,
    created: Timestamp,
    ready_at: Timestamp,
}

/// The instances of one group, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Plant {
    instances: Vec<Instance>,
    next_id: u32,
}

impl Plant {
    pub(super) fn launch(
        &mut self,
        (pool, launch): (PoolId, Option<RequestId>),
        count: u32,
        created: Timestamp,
        ready_at: Timestamp,
    ) {
        for _ in 0..count {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            self.instances.push(Instance { id, pool, launch, created, ready_at });
        }
    }

    /// The youngest `count` of a launch are gone before they serve.
    pub(super) fn cancel(&mut self, launch: RequestId, count: u32) {
        self.remove(count, |one| one.launch == Some(launch));
    }

    /// The youngest `count` of those that serve from a pool are gone.
    pub(super) fn release(&mut self, pool: PoolId, count: u32, now: Timestamp) {
        self.remove(count, |one| one.pool == pool && one.ready_at <= now);
    }

    fn remove(&mut self, mut count: u32, is: impl Fn(&Instance) -> bool) {
        let mut at = self.instances.len();
        while count > 0 && at > 0 {
            at -= 1;
            if is(&self.instances[at]) {
                self.instances.remove(at);
                count -= 1;
            }
        }
    }

    /// The pods, as an autoscaler sees them.
    pub(super) fn pods(&self, now: Timestamp, requests: Requests, into: &mut Vec<Pod>) {
        into.clear();
        into.extend(self.instances.iter().map(|one| {
            let serves = one.ready_at <= now;
            Pod {
                id: one.id,
                phase: if serves { Phase::Running } else { Phase::Pending },
                ready: if serves { ReadyCondition::Ready(one.ready_at) } else { ReadyCondition::NotReady(one.created) },
                started: Some(one.created),
                deletion: Deletion::None,
                requests,
            }
        }));
    }
}

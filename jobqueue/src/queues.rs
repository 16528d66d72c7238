//! The multi-queue: a queue for each tag, made on demand, and pools that each serve some tags.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::config::{PoolSpec, Service};
use crate::hash::Map;
use crate::id::{CallId, PoolId, Tag};
use crate::lane::Lane;
use crate::rng::Rng;
use crate::store::Jobs;

/// A pool and what it is up to.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) spec: PoolSpec,
    /// Its lanes that a pull could take something from.
    pub(crate) active: Vec<u32>,
    /// Pulls that wait for work, oldest first.
    pub(crate) parked: VecDeque<CallId>,
    /// Jobs that its workers hold.
    pub(crate) leased: u32,
    /// Deliveries proposed and not yet settled.
    pub(crate) flying: u32,
}

impl Pool {
    /// How many more jobs its workers may be given.
    pub(crate) const fn room(&self) -> u32 {
        match self.spec.service {
            Service::Open => self.spec.max_leases.saturating_sub(self.leased).saturating_sub(self.flying),
            Service::Closed => 0,
        }
    }
}

/// All lanes and pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queues {
    pub(crate) lanes: Vec<Lane>,
    tags: Map<Tag, u32>,
    pub(crate) pools: Vec<Pool>,
    by_id: Map<PoolId, u32>,
    /// Pools that serve each tag, whether it has a lane or not.
    served: BTreeMap<Tag, Vec<u32>>,
    /// Pools with parked pulls into whose lanes something has come.
    pub(crate) woken: BTreeSet<u32>,
}

impl Queues {
    /// The tag's lane, made if it is not there; `tags` are those of all lanes.
    pub(crate) fn lane(&mut self, tag: Tag, tags: &mut Vec<Tag>) -> u32 {
        if let Some(lane) = self.find(tag) {
            return lane;
        }
        let at = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let mut lane = Lane::new(tag);
        lane.pools = self.served.get(&tag).into_iter().flatten().map(|pool| (*pool, None)).collect();
        self.lanes.push(lane);
        tags.push(tag);
        self.tags.insert(tag, at);
        at
    }

    pub(crate) fn find(&self, tag: Tag) -> Option<u32> {
        self.tags.get(&tag).copied()
    }

    pub(crate) fn pool(&self, id: PoolId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Declares a pool, anew or again; what its workers hold, and who waits, stays.
    pub(crate) fn put_pool(&mut self, mut spec: PoolSpec) {
        spec.tags.sort_unstable();
        spec.tags.dedup();
        let at = self.by_id.get(&spec.id).copied().unwrap_or_else(|| {
            let at = u32::try_from(self.pools.len()).unwrap_or(u32::MAX);
            let spec = PoolSpec { tags: Vec::new(), ..spec.clone() };
            self.pools.push(Pool { spec, active: Vec::new(), parked: VecDeque::new(), leased: 0, flying: 0 });
            at
        });
        self.by_id.insert(spec.id, at);
        let old = core::mem::take(&mut self.pools[at as usize].spec.tags);
        for tag in old.iter().filter(|tag| spec.tags.binary_search(tag).is_err()) {
            self.unserve(*tag, at);
        }
        for tag in spec.tags.iter().filter(|tag| old.binary_search(tag).is_err()) {
            self.served.entry(*tag).or_default().push(at);
            if let Some(lane) = self.find(*tag) {
                self.lanes[lane as usize].pools.push((at, None));
                self.refresh(lane);
            }
        }
        self.pools[at as usize].spec = spec;
        self.woken.insert(at);
    }

    fn unserve(&mut self, tag: Tag, pool: u32) {
        if let Some(pools) = self.served.get_mut(&tag) {
            pools.retain(|other| *other != pool);
        }
        if let Some(lane) = self.find(tag) {
            self.deactivate(lane, pool);
            self.lanes[lane as usize].pools.retain(|(other, _)| *other != pool);
        }
    }

    /// Puts the lane among its pools' active ones, or takes it out, as it now is.
    pub(crate) fn refresh(&mut self, lane: u32) {
        let active = self.lanes[lane as usize].is_active();
        for at in 0..self.lanes[lane as usize].pools.len() {
            let (pool, place) = self.lanes[lane as usize].pools[at];
            match (active, place) {
                (true, None) => {
                    let list = &mut self.pools[pool as usize].active;
                    let place = u32::try_from(list.len()).unwrap_or(u32::MAX);
                    list.push(lane);
                    self.lanes[lane as usize].pools[at].1 = Some(place);
                    self.stir(pool);
                }
                (false, Some(_)) => self.deactivate(lane, pool),
                (true, Some(_)) => self.stir(pool),
                (false, None) => {}
            }
        }
    }

    /// A pool has room again: who is parked there is looked at.
    pub(crate) fn stir(&mut self, pool: u32) {
        if !self.pools[pool as usize].parked.is_empty() {
            self.woken.insert(pool);
        }
    }

    fn deactivate(&mut self, lane: u32, pool: u32) {
        let mine = self.lanes[lane as usize].pools.iter_mut().find(|(other, _)| *other == pool);
        let Some(place) = mine.and_then(|(_, place)| place.take()) else { return };
        let list = &mut self.pools[pool as usize].active;
        list.swap_remove(place as usize);
        if let Some(moved) = list.get(place as usize).copied() {
            let pools = &mut self.lanes[moved as usize].pools;
            if let Some((_, at)) = pools.iter_mut().find(|(other, _)| *other == pool) {
                *at = Some(place);
            }
        }
    }

    /// Puts a pool's active lanes, which these are, into this order.
    pub(crate) fn set_rotation(&mut self, pool: usize, lanes: &[u32]) {
        self.pools[pool].active = lanes.to_vec();
        for (place, lane) in (0..).zip(lanes) {
            let pools = &mut self.lanes[*lane as usize].pools;
            if let Some((_, at)) = pools.iter_mut().find(|(other, _)| *other as usize == pool) {
                *at = Some(place);
            }
        }
    }

    pub(crate) fn push(&mut self, lane: u32, jobs: &mut Jobs, at: u32) {
        self.lanes[lane as usize].push(jobs, at);
        self.refresh(lane);
    }

    /// Takes a job out of its lane.
    pub(crate) fn unqueue(&mut self, lane: u32, jobs: &mut Jobs, at: u32) {
        self.lanes[lane as usize].remove(jobs, at);
        if !self.lanes[lane as usize].is_active() {
            self.refresh(lane);
        }
    }

    /// The next job for a pool, taken out of its lane.
    ///
    /// A pull starts its turn at random and goes round, one job from each lane, so that no lane waits for another.
    pub(crate) fn take(&mut self, pool: u32, turn: &mut u32, jobs: &mut Jobs, ageing_ms: Option<u32>) -> Option<u32> {
        loop {
            let active = &self.pools[pool as usize].active;
            if active.is_empty() {
                return None;
            }
            let at = if (*turn as usize) < active.len() { *turn } else { 0 };
            let lane = active[at as usize];
            let job = self.lanes[lane as usize].pop(jobs, ageing_ms);
            // A lane that is now empty gives its place to another, which is then next.
            let emptied = !self.lanes[lane as usize].is_active();
            if emptied {
                self.refresh(lane);
            }
            *turn = if emptied { at } else { at + 1 };
            if job.is_some() || !emptied {
                return job;
            }
        }
    }

    /// Where a pull's rotation starts.
    pub(crate) fn turn(&self, pool: u32, rng: &mut Rng) -> u32 {
        let lanes = self.pools[pool as usize].active.len();
        u32::try_from(rng.below(lanes as u64)).unwrap_or(0)
    }

    /// The parked pull that waits longest among the woken pools that could serve one.
    pub(crate) fn next_parked(&mut self) -> Option<CallId> {
        if self.woken.is_empty() {
            return None;
        }
        let pools = &self.pools;
        self.woken.retain(|pool| {
            let pool = &pools[*pool as usize];
            !pool.parked.is_empty() && !pool.active.is_empty() && pool.room() > 0
        });
        let fronts = self.woken.iter().filter_map(|pool| self.pools[*pool as usize].parked.front());
        fronts.min().copied()
    }
}

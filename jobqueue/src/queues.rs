//! The multi-queue: a queue for each tag, made on demand, and pools that each serve some tags.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::config::{PoolSpec, Service, Turns};
use crate::fair::Flow;
use crate::hash::Map;
use crate::id::{CallId, PoolId, Tag};
use crate::lane::{Lane, Rank};
use crate::rate::Bucket;
use crate::rng::Rng;
use crate::share::Share;
use crate::store::Jobs;
use crate::time::Timestamp;

/// Where a lane stands among those that a pool takes from in an order: smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// By the job that is first in it.
    Job(Rank),
    /// By the share that its tag had.
    Share(u128),
}

/// How a lane hangs in a pool that serves it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) pool: u32,
    /// Its place in the pool's rotation.
    place: Option<u32>,
    /// Its standing in the pool's order.
    standing: Option<Standing>,
    pub(crate) flow: Flow,
}

impl Link {
    fn new(pool: u32, clock: u128) -> Self {
        Self { pool, place: None, standing: None, flow: Flow::new(clock) }
    }
}

/// A pool and what it is up to.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) spec: PoolSpec,
    /// Its lanes that a pull could take something from, if it goes round.
    pub(crate) active: Vec<u32>,
    /// The same lanes in order, if the pool goes by an order.
    order: BTreeSet<(Standing, u32)>,
    /// The virtual time of its fair order.
    pub(crate) clock: u128,
    /// Pulls that wait for work, oldest first.
    pub(crate) parked: VecDeque<CallId>,
    /// Jobs that its workers hold.
    pub(crate) leased: u32,
    /// Deliveries proposed and not yet settled.
    pub(crate) flying: u32,
    /// Jobs that its workers hold and that this engine gave out.
    pub(crate) charged: u32,
    pub(crate) bucket: Bucket,
    /// The engine's share of the limits, if they are shared with other engines.
    pub(crate) share: Option<Box<Share>>,
}

impl Pool {
    fn new(spec: PoolSpec) -> Self {
        Self {
            spec,
            active: Vec::new(),
            order: BTreeSet::new(),
            clock: 0,
            parked: VecDeque::new(),
            leased: 0,
            flying: 0,
            charged: 0,
            bucket: Bucket::default(),
            share: None,
        }
    }

    /// How many more jobs its workers may be given, but for its rate.
    pub(crate) fn leases_left(&self) -> u32 {
        let (limit, used) = match &self.share {
            Some(share) => (share.leases.min(share.keep).min(self.spec.max_leases), self.charged),
            None => (self.spec.max_leases, self.leased),
        };
        match self.spec.service {
            Service::Open => limit.saturating_sub(used).saturating_sub(self.flying),
            Service::Closed => 0,
        }
    }

    /// How many more jobs its workers may be given now.
    pub(crate) fn room(&self, now: Timestamp) -> u32 {
        let by_rate = match (self.spec.rate, &self.share) {
            (None, _) => u32::MAX,
            (Some(_), Some(share)) => share.tokens,
            (Some(rate), None) => self.bucket.room(now, rate),
        };
        self.leases_left().min(by_rate)
    }

    /// When its rate lets the next job go, if that is all that keeps it.
    pub(crate) fn throttled_until(&self, now: Timestamp) -> Option<Timestamp> {
        let rate = self.spec.rate.filter(|_| self.leases_left() > 0 && self.room(now) == 0)?;
        match &self.share {
            Some(share) => share.ready.filter(|ready| *ready > now),
            None => Some(self.bucket.ready_at(now, rate)),
        }
    }

    /// A delivery is under way, and the rate has one job less to give.
    pub(crate) fn spend(&mut self, now: Timestamp) {
        self.flying += 1;
        match (self.spec.rate, &mut self.share) {
            (None, _) => {}
            (Some(_), Some(share)) => share.tokens -= 1,
            (Some(rate), None) => self.bucket.take(now, rate),
        }
    }

    /// Whether limits are all that keeps its workers from a job, and whether they may be another's to give.
    pub(crate) fn is_starved(&self, now: Timestamp) -> bool {
        self.share.is_some() && self.spec.service == Service::Open && self.has_work() && self.room(now) == 0
    }

    /// The share that this engine has, if it is smaller than the limit and used up.
    pub(crate) fn lacks_share(&self) -> Option<u32> {
        let share = self.share.as_ref().map(|share| share.leases.min(share.keep))?;
        (self.leases_left() == 0 && share < self.spec.max_leases).then_some(share)
    }

    /// Whether there is something to take.
    pub(crate) fn has_work(&self) -> bool {
        !self.active.is_empty() || !self.order.is_empty()
    }
}

/// All lanes and pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queues {
    pub(crate) lanes: Vec<Lane>,
    /// How lanes wait: see [`Rank`].
    pub(crate) ageing_ms: Option<u32>,
    tags: Map<Tag, u32>,
    pub(crate) pools: Vec<Pool>,
    by_id: Map<PoolId, u32>,
    /// Pools that serve each tag, whether it has a lane or not.
    served: BTreeMap<Tag, Vec<u32>>,
    /// Pools with parked pulls into whose lanes something has come.
    pub(crate) woken: BTreeSet<u32>,
    /// How much came for each pool, or became free there, if a face over many engines wants to know.
    #[cfg(feature = "shared")]
    pub(crate) news: Option<Vec<(u32, u32)>>,
}

impl Queues {
    pub(crate) fn new(ageing_ms: Option<u32>) -> Self {
        Self { ageing_ms, ..Self::default() }
    }

    /// The tag's lane, made if it is not there; `tags` are those of all lanes.
    pub(crate) fn lane(&mut self, tag: Tag, tags: &mut Vec<Tag>) -> u32 {
        if let Some(lane) = self.find(tag) {
            return lane;
        }
        let at = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let mut lane = Lane::new(tag);
        let serving = self.served.get(&tag).into_iter().flatten();
        lane.pools = serving.map(|pool| Link::new(*pool, self.pools[*pool as usize].clock)).collect();
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
    pub(crate) fn put_pool(&mut self, mut spec: PoolSpec, jobs: &Jobs) {
        spec.tags.sort_unstable();
        spec.tags.dedup();
        let at = self.by_id.get(&spec.id).copied().unwrap_or_else(|| {
            let at = u32::try_from(self.pools.len()).unwrap_or(u32::MAX);
            self.pools.push(Pool::new(PoolSpec { tags: Vec::new(), ..spec.clone() }));
            at
        });
        self.by_id.insert(spec.id, at);
        let turns = self.pools[at as usize].spec.turns;
        let old = core::mem::replace(&mut self.pools[at as usize].spec, spec.clone()).tags;
        for tag in &old {
            if turns != spec.turns || spec.tags.binary_search(tag).is_err() {
                self.unserve(*tag, at, turns);
            }
        }
        for tag in &spec.tags {
            if turns != spec.turns || old.binary_search(tag).is_err() {
                self.served.entry(*tag).or_default().push(at);
                if let Some(lane) = self.find(*tag) {
                    let clock = self.pools[at as usize].clock;
                    self.lanes[lane as usize].pools.push(Link::new(at, clock));
                    self.refresh(lane, jobs);
                }
            }
        }
        self.woken.insert(at);
        self.note_all(at);
    }

    /// Notes that much may have changed for a pool.
    pub(crate) fn note_all(&mut self, pool: u32) {
        self.note(pool, u32::MAX);
    }

    /// Notes that so much came for a pool.
    fn note(&mut self, pool: u32, jobs: u32) {
        #[cfg(feature = "shared")]
        if let Some(news) = &mut self.news {
            match news.iter_mut().find(|(of, _)| *of == pool) {
                Some((_, count)) => *count = count.saturating_add(jobs),
                None => news.push((pool, jobs)),
            }
        }
        #[cfg(not(feature = "shared"))]
        let _ = (self, pool, jobs);
    }

    fn unserve(&mut self, tag: Tag, pool: u32, turns: Turns) {
        if let Some(pools) = self.served.get_mut(&tag) {
            pools.retain(|other| *other != pool);
        }
        let Some(lane) = self.find(tag) else { return };
        let links = &self.lanes[lane as usize].pools;
        if let Some(link) = links.iter().position(|link| link.pool == pool) {
            match turns {
                Turns::Rotation => self.leave_rotation(lane, link),
                Turns::Priority | Turns::Fair => self.stand(lane, link, None),
            }
            self.lanes[lane as usize].pools.remove(link);
        }
    }

    /// Puts the lane among its pools' active ones, or takes it out, as it now is.
    pub(crate) fn refresh(&mut self, lane: u32, jobs: &Jobs) {
        let is_active = self.lanes[lane as usize].is_active();
        for at in 0..self.lanes[lane as usize].pools.len() {
            let link = &self.lanes[lane as usize].pools[at];
            let (pool, is_in) = (link.pool, link.place.is_some());
            match self.pools[pool as usize].spec.turns {
                Turns::Rotation if is_active == is_in => {}
                Turns::Rotation if is_active => self.join_rotation(lane, at),
                Turns::Rotation => self.leave_rotation(lane, at),
                Turns::Priority | Turns::Fair => self.reorder(lane, at, jobs),
            }
            if is_active {
                self.wake(pool);
            }
        }
    }

    /// Gives the lane the standing in a pool's order that it now has.
    fn reorder(&mut self, lane: u32, at: usize, jobs: &Jobs) {
        let (this, ageing_ms) = (&mut self.lanes[lane as usize], self.ageing_ms);
        let (is_active, weight) = (this.is_active(), this.weight);
        let pool = &self.pools[this.pools[at].pool as usize];
        let standing = if pool.spec.turns == Turns::Fair {
            let link = &mut this.pools[at];
            if is_active && link.standing.is_none() {
                link.flow.arrive(pool.clock, weight);
            }
            is_active.then_some(Standing::Share(link.flow.start(weight)))
        } else {
            this.front(jobs, ageing_ms).filter(|_| is_active).map(|(rank, _)| Standing::Job(rank))
        };
        self.stand(lane, at, standing);
    }

    /// A delivery for a pool is no longer under way.
    pub(crate) fn unfly(&mut self, pool: u32) {
        let was_full = self.pools[pool as usize].leases_left() == 0;
        self.pools[pool as usize].flying -= 1;
        if was_full {
            self.stir(pool);
        }
    }

    /// A job is no longer held by a worker of a pool; `is_own` says whether this engine gave it out.
    pub(crate) fn release(&mut self, pool: u32, is_own: bool) {
        let was_full = self.pools[pool as usize].leases_left() == 0;
        self.pools[pool as usize].leased -= 1;
        self.pools[pool as usize].charged -= u32::from(is_own);
        if was_full {
            self.stir(pool);
        }
    }

    /// A pool has room again: who is parked there is looked at.
    pub(crate) fn stir(&mut self, pool: u32) {
        self.note(pool, 1);
        self.wake(pool);
    }

    fn wake(&mut self, pool: u32) {
        if !self.pools[pool as usize].parked.is_empty() {
            self.woken.insert(pool);
        }
    }

    /// How many jobs wait for a pool in tags that are open, counted up to `most`.
    pub(crate) fn depth_of(&self, pool: u32, most: u32) -> u32 {
        let mut depth = 0_u32;
        for tag in &self.pools[pool as usize].spec.tags {
            let lane = self.find(*tag).map(|lane| &self.lanes[lane as usize]);
            depth = depth.saturating_add(lane.filter(|lane| lane.is_active()).map_or(0, |lane| lane.live));
            if depth >= most {
                break;
            }
        }
        depth
    }

    /// Gives the lane this standing in its pool's order, or none.
    fn stand(&mut self, lane: u32, link: usize, standing: Option<Standing>) {
        let link = &mut self.lanes[lane as usize].pools[link];
        if link.standing == standing {
            return;
        }
        let order = &mut self.pools[link.pool as usize].order;
        if let Some(old) = core::mem::replace(&mut link.standing, standing) {
            order.remove(&(old, lane));
        }
        order.extend(standing.map(|new| (new, lane)));
    }

    fn join_rotation(&mut self, lane: u32, link: usize) {
        let link = &mut self.lanes[lane as usize].pools[link];
        let list = &mut self.pools[link.pool as usize].active;
        link.place = Some(u32::try_from(list.len()).unwrap_or(u32::MAX));
        list.push(lane);
    }

    fn leave_rotation(&mut self, lane: u32, link: usize) {
        let link = &mut self.lanes[lane as usize].pools[link];
        let (pool, Some(place)) = (link.pool, link.place.take()) else { return };
        let list = &mut self.pools[pool as usize].active;
        list.swap_remove(place as usize);
        if let Some(moved) = list.get(place as usize).copied() {
            self.set_place(moved, pool, place);
        }
    }

    fn set_place(&mut self, lane: u32, pool: u32, place: u32) {
        let links = &mut self.lanes[lane as usize].pools;
        if let Some(link) = links.iter_mut().find(|link| link.pool == pool) {
            link.place = Some(place);
        }
    }

    /// Puts a pool's active lanes, which these are, into this order.
    pub(crate) fn set_rotation(&mut self, pool: usize, lanes: &[u32]) {
        self.pools[pool].active = lanes.to_vec();
        for (place, lane) in (0..).zip(lanes) {
            self.set_place(*lane, u32::try_from(pool).unwrap_or(u32::MAX), place);
        }
    }

    pub(crate) fn push(&mut self, lane: u32, jobs: &mut Jobs, at: u32) {
        self.lanes[lane as usize].push(jobs, at);
        for link in 0..self.lanes[lane as usize].pools.len() {
            self.note(self.lanes[lane as usize].pools[link].pool, 1);
        }
        self.refresh(lane, jobs);
    }

    /// Takes a job out of its lane.
    pub(crate) fn unqueue(&mut self, lane: u32, jobs: &mut Jobs, at: u32) {
        self.lanes[lane as usize].remove(jobs, at);
        self.refresh(lane, jobs);
    }

    /// The next job for a pool, taken out of its lane.
    ///
    /// A pull that goes round starts its turn at random and takes one job from each lane, so that no lane waits for
    /// another.
    pub(crate) fn take(&mut self, pool: u32, turn: &mut u32, jobs: &mut Jobs) -> Option<u32> {
        match self.pools[pool as usize].spec.turns {
            Turns::Rotation => self.take_round(pool, turn, jobs),
            Turns::Priority | Turns::Fair => self.take_first(pool, jobs),
        }
    }

    fn take_round(&mut self, pool: u32, turn: &mut u32, jobs: &mut Jobs) -> Option<u32> {
        loop {
            let active = &self.pools[pool as usize].active;
            if active.is_empty() {
                return None;
            }
            let at = if (*turn as usize) < active.len() { *turn } else { 0 };
            let lane = active[at as usize];
            let job = self.lanes[lane as usize].pop(jobs, self.ageing_ms);
            self.refresh(lane, jobs);
            // A lane that is now empty gives its place to another, which is then next.
            let is_gone = !self.lanes[lane as usize].is_active();
            *turn = if is_gone { at } else { at + 1 };
            if job.is_some() || !is_gone {
                return job;
            }
        }
    }

    fn take_first(&mut self, pool: u32, jobs: &mut Jobs) -> Option<u32> {
        let (standing, lane) = self.pools[pool as usize].order.first().copied()?;
        let job = self.lanes[lane as usize].pop(jobs, self.ageing_ms);
        if let Standing::Share(start) = standing {
            let clock = &mut self.pools[pool as usize].clock;
            *clock = (*clock).max(start);
            let links = &mut self.lanes[lane as usize].pools;
            if let Some(link) = links.iter_mut().find(|link| link.pool == pool) {
                link.flow.serve(start);
            }
        }
        self.refresh(lane, jobs);
        job
    }

    /// Where a pull's rotation starts.
    pub(crate) fn turn(&self, pool: u32, rng: &mut Rng) -> u32 {
        let lanes = self.pools[pool as usize].active.len();
        u32::try_from(rng.below(lanes as u64)).unwrap_or(0)
    }

    /// Moves rates that were used at a time that has not come to now.
    pub(crate) fn step_back(&mut self, now: Timestamp) {
        for pool in &mut self.pools {
            pool.bucket.step_back(now);
        }
    }

    /// The parked pull that waits longest among the woken pools that could serve one.
    pub(crate) fn next_parked(&mut self, now: Timestamp) -> Option<CallId> {
        if self.woken.is_empty() {
            return None;
        }
        let pools = &self.pools;
        self.woken.retain(|pool| {
            let pool = &pools[*pool as usize];
            !pool.parked.is_empty() && pool.has_work() && pool.room(now) > 0
        });
        let fronts = self.woken.iter().filter_map(|pool| self.pools[*pool as usize].parked.front());
        fronts.min().copied()
    }
}

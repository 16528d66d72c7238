//! One tag's queue: largest priority first, then the oldest, then the smallest sequence number and id.
//!
//! Jobs of one priority mostly come in the order in which they shall go: they stand in a line, where coming and going
//! cost a constant. What comes later than its time (a row read again, a rebuild) is kept in a tree beside the line.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::num::NonZeroU16;

use crate::config::Service;
use crate::id::{JobId, Tag};
use crate::queues::Link;
use crate::store::{Hangs, JobSlot, Jobs, NONE};
use crate::time::Timestamp;
use crate::wait::Waits;

/// A place among jobs of one priority: a total order, smallest first.
pub(crate) type Turn = (Timestamp, u64, JobId);

/// A place in a queue: a total order, smallest first, that time does not change.
///
/// With ageing, what is compared is the time of arrival plus the handicap of a low priority: as all jobs age alike,
/// that order stays right for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    major: u64,
    turn: Turn,
}

impl Rank {
    pub(crate) fn of(slot: &JobSlot, ageing_ms: Option<u32>) -> Self {
        let steps = u64::from(u8::MAX - slot.priority);
        let major = ageing_ms.map_or(steps, |ms| slot.since.as_millis().saturating_add(steps * u64::from(ms)));
        Self { major, turn: turn(slot) }
    }
}

const fn turn(slot: &JobSlot) -> Turn {
    (slot.since, slot.sequence, slot.id())
}

/// The waiting jobs of one priority.
#[derive(Clone, Debug)]
struct Level {
    priority: u8,
    /// Places of jobs in the order of their turns; a job that left is a gap. The first is no gap.
    line: VecDeque<u32>,
    /// The position of the line's first; positions count on and wrap.
    first: u32,
    gaps: usize,
    /// No turn in the line is later.
    last: Turn,
    /// Jobs that came when somebody with a later turn was in the line.
    strays: BTreeSet<(Turn, u32)>,
}

impl Level {
    const fn new(priority: u8) -> Self {
        let last = (Timestamp::ZERO, 0, JobId::new(0));
        Self { priority, line: VecDeque::new(), first: 0, gaps: 0, last, strays: BTreeSet::new() }
    }

    fn front(&self, jobs: &Jobs) -> Option<(Turn, u32)> {
        let line = self.line.front().and_then(|at| Some((turn(jobs.get(*at)?), *at)));
        match self.strays.first() {
            Some(stray) => Some(line.map_or(*stray, |line| line.min(*stray))),
            None => line,
        }
    }

    fn push(&mut self, jobs: &mut Jobs, at: u32) {
        let length = u32::try_from(self.line.len()).unwrap_or(NONE);
        let Some(slot) = jobs.get_mut(at) else { return };
        let mine = turn(slot);
        slot.hangs = Hangs::InLine;
        if length == 0 || mine >= self.last {
            self.last = mine;
            slot.position = self.first.wrapping_add(length);
            self.line.push_back(at);
            return;
        }
        let front = self.line.front().and_then(|at| jobs.get(*at)).map(turn);
        let is_first = front.is_some_and(|front| mine < front);
        let Some(slot) = jobs.get_mut(at) else { return };
        if is_first {
            self.first = self.first.wrapping_sub(1);
            slot.position = self.first;
            self.line.push_front(at);
        } else {
            slot.hangs = Hangs::Stray;
            self.strays.insert((mine, at));
        }
    }

    /// Takes out the first of the line.
    fn pop(&mut self, jobs: &mut Jobs) -> Option<u32> {
        let at = self.line.pop_front()?;
        self.first = self.first.wrapping_add(1);
        if let Some(slot) = jobs.get_mut(at) {
            slot.hangs = Hangs::No;
        }
        self.close_up(jobs);
        Some(at)
    }

    /// Takes a job out that stands here.
    fn remove(&mut self, jobs: &mut Jobs, at: u32) {
        let Some(slot) = jobs.get_mut(at) else { return };
        if slot.hangs == Hangs::Stray {
            self.strays.remove(&(turn(slot), at));
        } else if let Some(place) = self.line.get_mut(slot.position.wrapping_sub(self.first) as usize) {
            *place = NONE;
            self.gaps += 1;
        }
        slot.hangs = Hangs::No;
        self.close_up(jobs);
    }

    /// Keeps the first no gap, and the gaps fewer than the jobs.
    fn close_up(&mut self, jobs: &mut Jobs) {
        while self.line.front() == Some(&NONE) {
            self.line.pop_front();
            self.first = self.first.wrapping_add(1);
            self.gaps -= 1;
        }
        if self.gaps > self.line.len() / 2 + 32 {
            self.close_gaps(jobs);
        }
        if self.line.capacity() > 4 * self.line.len() + 256 {
            self.line.shrink_to(2 * self.line.len());
        }
    }

    #[cold]
    fn close_gaps(&mut self, jobs: &mut Jobs) {
        self.line.retain(|at| *at != NONE);
        self.gaps = 0;
        let mut position = self.first;
        for at in &self.line {
            if let Some(slot) = jobs.get_mut(*at) {
                slot.position = position;
            }
            position = position.wrapping_add(1);
        }
    }

    fn entries(&self) -> impl Iterator<Item = u32> {
        let line = self.line.iter().copied().filter(|at| *at != NONE);
        line.chain(self.strays.iter().map(|(_, at)| *at))
    }
}

/// One tag's queue.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) tag: Tag,
    pub(crate) service: Service,
    /// Jobs of this tag that have not ended.
    pub(crate) jobs: u32,
    /// Jobs of this tag that workers hold.
    pub(crate) held: u32,
    /// Jobs that wait.
    pub(crate) live: u32,
    /// The weight of its jobs against those of other tags.
    pub(crate) weight: NonZeroU16,
    /// How long its jobs waited.
    pub(crate) waits: Waits,
    /// Jobs that came, and jobs that were given out, in this engine's life.
    pub(crate) passed: (u64, u64),
    /// The pools that serve it, and how it hangs in each.
    pub(crate) pools: Vec<Link>,
    /// Largest priority first.
    levels: Vec<Level>,
}

impl Lane {
    pub(crate) fn new(tag: Tag) -> Self {
        Self {
            tag,
            service: Service::Open,
            jobs: 0,
            held: 0,
            live: 0,
            weight: NonZeroU16::MIN,
            waits: Waits::default(),
            passed: (0, 0),
            pools: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// Whether a pull could take something.
    pub(crate) fn is_active(&self) -> bool {
        self.live > 0 && self.service == Service::Open
    }

    fn find(&self, priority: u8) -> Result<usize, usize> {
        self.levels.binary_search_by(|level| priority.cmp(&level.priority))
    }

    /// Puts a job in.
    pub(crate) fn push(&mut self, jobs: &mut Jobs, at: u32) {
        let Some(priority) = jobs.get(at).map(|slot| slot.priority) else { return };
        let level = self.find(priority).unwrap_or_else(|place| {
            self.levels.insert(place, Level::new(priority));
            place
        });
        self.levels[level].push(jobs, at);
        self.live += 1;
    }

    /// Takes a job out that waits here.
    pub(crate) fn remove(&mut self, jobs: &mut Jobs, at: u32) {
        let Some(slot) = jobs.get(at).filter(|slot| slot.is_queued()) else { return };
        if let Ok(level) = self.find(slot.priority) {
            self.levels[level].remove(jobs, at);
            self.live -= 1;
        }
    }

    /// The job that is next, and its rank.
    pub(crate) fn front(&self, jobs: &Jobs, ageing_ms: Option<u32>) -> Option<(Rank, u32)> {
        let fronts = self.levels.iter().filter_map(|level| level.front(jobs));
        let mut ranked = fronts.filter_map(|(_, at)| Some((Rank::of(jobs.get(at)?, ageing_ms), at)));
        // Without ageing the largest priority is first, whatever the others are.
        if ageing_ms.is_none() { ranked.next() } else { ranked.min() }
    }

    /// The first job, taken out.
    pub(crate) fn pop(&mut self, jobs: &mut Jobs, ageing_ms: Option<u32>) -> Option<u32> {
        if let [level] = self.levels.as_mut_slice()
            && level.strays.is_empty()
        {
            // Most tags have jobs of one priority only, in order.
            let at = level.pop(jobs)?;
            self.live -= 1;
            return Some(at);
        }
        let (_, at) = self.front(jobs, ageing_ms)?;
        self.remove(jobs, at);
        Some(at)
    }

    /// Since when the oldest job waits.
    pub(crate) fn oldest(&self, jobs: &Jobs) -> Option<Timestamp> {
        self.levels.iter().filter_map(|level| level.front(jobs)).map(|((since, ..), _)| since).min()
    }

    /// The places of the jobs that wait, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = u32> {
        self.levels.iter().flat_map(Level::entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobKey, PipelineId, Version, WriteId};
    use crate::job::{Job, JobSpec, State};
    use crate::reason::Reason;
    use crate::rng::Rng;
    use crate::store::Store;

    fn job(number: u64, since: u64, priority: u8) -> Job {
        Job {
            key: JobKey { job: JobId::new(number), attempt: crate::id::Attempt::FIRST },
            pipeline: PipelineId::new(1),
            version: Version::FIRST,
            write: WriteId::default(),
            spec: JobSpec::default(),
            tag: Tag::OTHER,
            priority,
            state: State::Pending,
            reason: Reason::Batch { order: 0 },
            since: Timestamp::from_millis(since),
            until: Timestamp::MAX,
            timeout_at: Timestamp::MAX,
            sequence: number,
            delivery: None,
            entry: crate::job::Entry::Run,
            tally: crate::job::Tally::default(),
            outcome: None,
            start_by: Timestamp::MAX,
            finish_by: Timestamp::MAX,
        }
    }

    /// Random comings and goings against a tree of ranks.
    fn against_a_tree(ageing_ms: Option<u32>, spread: u64) {
        let (mut store, mut lane, mut tree) = (Store::default(), Lane::new(Tag::OTHER), BTreeSet::new());
        store.tags.push(Tag::OTHER);
        let mut rng = Rng::new(spread);
        for number in 0..4_000_u64 {
            let since = 1_000_000 + number - rng.below(spread);
            let at = store.insert_job(&job(number, since, u8::try_from(rng.below(3)).unwrap()), 0).unwrap();
            lane.push(&mut store.jobs, at);
            tree.insert((Rank::of(store.jobs.get(at).unwrap(), ageing_ms), at));
            match rng.below(5) {
                0 | 1 => {
                    let first = tree.pop_first().map(|(_, at)| at);
                    assert_eq!(lane.pop(&mut store.jobs, ageing_ms), first);
                    if let Some(at) = first {
                        store.remove_job(at);
                    }
                }
                2 => {
                    let some = tree.iter().nth(usize::try_from(rng.below(tree.len() as u64)).unwrap()).copied();
                    let Some((rank, at)) = some else { continue };
                    tree.remove(&(rank, at));
                    lane.remove(&mut store.jobs, at);
                    lane.remove(&mut store.jobs, at);
                    store.remove_job(at);
                }
                _ => {}
            }
            assert_eq!(lane.live as usize, tree.len());
        }
        assert_eq!(lane.entries().count(), tree.len());
        let mut rest = Vec::new();
        while let Some(at) = lane.pop(&mut store.jobs, ageing_ms) {
            rest.push(at);
        }
        assert!(rest.iter().eq(tree.iter().map(|(_, at)| at)));
    }

    #[test]
    fn it_goes_as_a_tree_of_ranks_would() {
        for spread in [1, 3, 2_000] {
            against_a_tree(None, spread);
            against_a_tree(Some(7), spread);
        }
    }

    #[test]
    fn a_line_whose_middle_leaves_does_not_grow() {
        let (mut store, mut lane) = (Store::default(), Lane::new(Tag::OTHER));
        store.tags.push(Tag::OTHER);
        for number in 0..100_000 {
            let at = store.insert_job(&job(number, 1, 0), 0).unwrap();
            lane.push(&mut store.jobs, at);
            if number > 0 {
                lane.remove(&mut store.jobs, at);
                store.remove_job(at);
            }
        }
        assert_eq!(lane.live, 1);
        assert!(lane.levels[0].line.len() < 100, "{}", lane.levels[0].line.len());
    }
}

//! The router's state. Every collection has a limit in the configuration.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::balance::Nodes;
use crate::effect::Effect;
use crate::id::{Ask, ChangeId, Generation, NodeId, RepoId, TaskId, Ticket};
use crate::node::{Standing, Verdict};
use crate::reason::Reason;
use crate::rest::Rest;
use crate::rng::Rng;
use crate::row::{Member, Purpose, Row, RowState};
use crate::time::Timestamp;
use crate::work::{Owner, Swap, Swaps, Work, Writes};

/// The router's knowledge of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Cell {
    pub(crate) row: Row,
    /// The store held `row`, or a later one, at some time after this point.
    pub(crate) fetched: Ask,
    /// When that was told.
    pub(crate) told: Timestamp,
    /// Where the router learned of `row.newest`: what a node said before proves no lag.
    pub(crate) since: Ask,
    /// A read's fetch that is out, and until when others wait for it.
    pub(crate) fetching: (Ask, Timestamp),
    /// One per member, in the row's order.
    pub(crate) standings: Vec<Standing>,
    /// Voters of the configuration before that are no members any more: heard until they know of this one.
    pub(crate) leavers: Vec<Standing>,
    /// When the row's fence was first seen here: a lease of another router counts from then.
    pub(crate) fence_seen: Timestamp,
    /// Another router goes first until then.
    pub(crate) yields: Timestamp,
}

impl Cell {
    pub(crate) fn new(row: Row, fetched: Ask, told: Timestamp, since: Ask, now: Timestamp) -> Self {
        let standings = row.members.iter().map(|member| Standing::new(*member)).collect();
        let leavers = row.leavers().map(|member| Standing::new(*member)).collect();
        let (fetching, yields) = ((Ask(0), Timestamp::ZERO), Timestamp::ZERO);
        Self { row, fetched, told, since, fetching, standings, leavers, fence_seen: now, yields }
    }

    /// A repository that was at rest: every member had applied the newest state, and that is all that is known.
    pub(crate) fn woken(row: Row, told: Timestamp, point: Ask, now: Timestamp) -> Self {
        let mut cell = Self::new(row, Ask(0), told, Ask(0), now);
        for standing in &mut cell.standings {
            standing.rested = Some((cell.row.newest, point));
        }
        cell
    }

    /// Whether nothing would be forgotten if the repository were put to rest.
    pub(crate) fn is_well(&self, now: Timestamp) -> bool {
        let well = |standing: &Standing| match standing.report() {
            Some(report) => {
                report.applied == self.row.newest && report.staged.is_none() && !report.is_beyond(&self.row)
            }
            // It was at rest before, and nothing was heard since.
            None => standing.applied() == Some(self.row.newest),
        };
        self.row.state == RowState::Live && self.yields <= now && self.standings.iter().all(well)
    }

    /// Everybody whose word counts for the row: its members, then those that leave.
    pub(crate) fn heard(&self) -> impl Iterator<Item = &Standing> {
        self.standings.iter().chain(&self.leavers)
    }

    pub(crate) fn heard_mut(&mut self) -> impl Iterator<Item = &mut Standing> {
        self.standings.iter_mut().chain(&mut self.leavers)
    }

    /// Whether a row that the store held after `fetched` says anything new.
    pub(crate) fn is_news(&self, row: &Row, fetched: Ask) -> bool {
        fetched > self.fetched || row.order() > self.row.order()
    }

    /// Takes in a row that the store held after `fetched`. Rows of one repository are totally ordered, so an older
    /// row says only that the newer one is still good.
    pub(crate) fn learn(&mut self, row: &Row, fetched: Ask, (told, now): (Timestamp, Timestamp), point: Ask) {
        if fetched > self.fetched {
            (self.fetched, self.told) = (fetched, told);
        }
        if row.order() > self.row.order() {
            self.follow(row, now, point);
        }
        let fence = self.row.fence;
        for rewind in self.heard_mut().filter_map(|standing| standing.rewound.as_mut()) {
            if rewind.floor.is_none() && fetched > rewind.found {
                rewind.floor = Some(fence);
            }
        }
    }

    fn follow(&mut self, row: &Row, now: Timestamp, point: Ask) {
        if row.newest != self.row.newest {
            self.since = point;
        }
        if row.fence != self.row.fence {
            self.fence_seen = now;
        }
        if row.members != self.row.members || row.previous != self.row.previous {
            let (old, gone) = (core::mem::take(&mut self.standings), core::mem::take(&mut self.leavers));
            let keep = |member: &Member| {
                let known = old.iter().chain(&gone).find(|standing| standing.member.is_same(member)).cloned();
                Standing { member: *member, ..known.unwrap_or(Standing::new(*member)) }
            };
            self.standings = row.members.iter().map(keep).collect();
            self.leavers = row.leavers().map(keep).collect();
        }
        self.row.clone_from(row);
    }

    /// A swap was done that was asked for after these disks were found to have gone back: whatever fence it raised is
    /// later than that.
    pub(crate) fn note_raise(&mut self, ticket: Ticket) {
        let fence = self.row.fence;
        for rewind in self.heard_mut().filter_map(|standing| standing.rewound.as_mut()) {
            if rewind.floor.is_none() && ticket.ask() > rewind.found {
                rewind.floor = Some(fence);
            }
        }
    }

    pub(crate) fn verdict(&self, standing: &Standing) -> Verdict {
        standing.judge(&self.row, self.fetched)
    }

    /// The point after which the row must be fetched before it is decided on: a member spoke of what lies beyond it.
    pub(crate) fn doubted_since(&self) -> Option<Ask> {
        let beyond = self.standings.iter().filter(|standing| self.verdict(standing) == Verdict::RowOld);
        beyond.filter_map(|standing| standing.known.map(|known| known.seen)).max()
    }
}

/// Which points were drawn when: how old a fetch is, at least. Bounded; what is forgotten counts as ages old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct History(VecDeque<(u64, Timestamp)>);

impl History {
    const MOST: usize = 64;

    /// The point is drawn now.
    fn note(&mut self, point: u64, now: Timestamp) {
        if self.0.back().is_some_and(|(_, at)| *at >= now) {
            return;
        }
        if self.0.len() >= Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back((point, now));
    }

    /// A time not later than when `ask` was drawn.
    pub(crate) fn time_of(&self, ask: Ask) -> Timestamp {
        let upto = self.0.partition_point(|(point, _)| *point <= ask.0);
        upto.checked_sub(1).and_then(|i| self.0.get(i)).map_or(Timestamp::ZERO, |(_, at)| *at)
    }
}

/// A value derived from the rest, or one that decides nothing: it is not compared, hashed or stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aside<T>(pub(crate) T);

impl<T> PartialEq for Aside<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Aside<T> {}

impl<T> core::hash::Hash for Aside<T> {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}

/// Everything that decides; counters and the clock stand beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct State {
    /// The last point of the router's order.
    pub(crate) point: u64,
    /// The last id given to a write, a change or a task.
    pub(crate) last_id: u64,
    pub(crate) rng: Rng,
    /// Whose turn it is.
    pub(crate) turn: u64,
    /// The life of the store that the router was configured for.
    pub(crate) life: Generation,
    /// The highest life of the store that was heard of: beyond `life`, this router decides nothing.
    pub(crate) store: Generation,
    /// The last question that a store in another life answered, and which life that is.
    pub(crate) foreign: (Ask, Generation),
    #[cfg_attr(feature = "serde", serde(skip))]
    /// The latest `now`.
    pub(crate) clock: Aside<Timestamp>,
    pub(crate) history: History,
    pub(crate) nodes: Nodes,
    pub(crate) cells: BTreeMap<RepoId, Cell>,
    /// The repositories in `cells`, those that woke first in front.
    pub(crate) awake: VecDeque<RepoId>,
    /// All other repositories: nothing is known of them but that all is well.
    pub(crate) rest: Rest,
    /// Repositories that were looked for and could not be taken in, and as of when.
    pub(crate) absent: BTreeMap<RepoId, (Ask, Reason)>,
    pub(crate) swaps: Swaps,
    pub(crate) writes: Writes,
    pub(crate) changes: BTreeMap<ChangeId, crate::change::Change>,
    pub(crate) tasks: BTreeMap<TaskId, crate::repair::Task>,
    /// The task of each replica that has one.
    pub(crate) targets: BTreeSet<(RepoId, NodeId, TaskId)>,
    /// Copies that wait for room.
    pub(crate) queue: BTreeSet<TaskId>,
    /// Copies under way per node.
    pub(crate) copying: BTreeMap<NodeId, u32>,
    pub(crate) work: Work,
    pub(crate) timers: BTreeSet<(Timestamp, Owner)>,
    pub(crate) effects: VecDeque<Effect>,
}

impl State {
    pub(crate) const fn new(seed: u64, life: Generation) -> Self {
        Self {
            point: 0,
            last_id: 0,
            rng: Rng::new(seed),
            turn: 0,
            life,
            store: life,
            foreign: (Ask(0), life),
            clock: Aside(Timestamp::ZERO),
            history: History(VecDeque::new()),
            nodes: Nodes::new(),
            cells: BTreeMap::new(),
            awake: VecDeque::new(),
            rest: Rest::new(),
            absent: BTreeMap::new(),
            swaps: Swaps::new(),
            writes: Writes::new(),
            changes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            targets: BTreeSet::new(),
            queue: BTreeSet::new(),
            copying: BTreeMap::new(),
            work: Work::new(),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
        }
    }

    /// A new point, later than all before.
    pub(crate) fn draw(&mut self) -> Ask {
        self.point = self.point.saturating_add(1);
        self.history.note(self.point, self.clock.0);
        Ask(self.point)
    }

    pub(crate) const fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    /// How many repositories are known.
    pub(crate) fn known(&self) -> usize {
        self.cells.len().saturating_add(self.rest.len())
    }

    /// Takes a repository out of its rest, if it is at rest.
    pub(crate) fn wake(&mut self, repo: RepoId) {
        if self.cells.contains_key(&repo) {
            return;
        }
        if let Some((row, told)) = self.rest.take(repo) {
            let point = self.draw();
            self.admit(Cell::woken(row, told, point, self.clock.0));
        }
    }

    /// Forgets again that the repository that was taken in last is awake.
    pub(crate) fn lay_down(&mut self, repo: RepoId) {
        if self.cells.remove(&repo).is_some() {
            self.awake.pop_back();
        }
    }

    /// Takes in a repository that was not known.
    pub(crate) fn admit(&mut self, cell: Cell) {
        self.awake.push_back(cell.row.repo);
        self.cells.insert(cell.row.repo, cell);
    }

    /// Puts repositories of which nothing is going on to rest, a few at a time, until few enough are awake.
    pub(crate) fn calm(&mut self, most_awake: u32) {
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            if self.cells.len() <= most_awake as usize {
                return;
            }
            let Some(repo) = self.awake.pop_front() else { return };
            let tasks = (repo, NodeId(0), TaskId(0))..=(repo, NodeId(u32::MAX), TaskId(u64::MAX));
            let busy = self.work.is_any(repo) || self.targets.range(tasks).next().is_some();
            let well = |cell: &&Cell| !busy && cell.is_well(self.clock.0) && cell.fetching.1 <= self.clock.0;
            let at_rest = match self.cells.get(&repo).filter(well) {
                Some(cell) => self.rest.insert(&cell.row, cell.told),
                None => false,
            };
            if at_rest {
                self.cells.remove(&repo);
            } else {
                self.awake.push_back(repo);
            }
        }
    }

    /// A repository as it is known, awake or at rest.
    pub(crate) fn cell(&self, repo: RepoId) -> Option<Cow<'_, Cell>> {
        if let Some(cell) = self.cells.get(&repo) {
            return Some(Cow::Borrowed(cell));
        }
        let (row, told) = self.rest.row(repo)?;
        Some(Cow::Owned(Cell::woken(row, told, Ask(self.point), self.clock.0)))
    }

    /// Whether a task brings that replica up to date.
    pub(crate) fn is_target(&self, repo: RepoId, node: NodeId) -> bool {
        self.targets.range((repo, node, TaskId(0))..=(repo, node, TaskId(u64::MAX))).next().is_some()
    }

    /// Moves the one timer of `owner` from `old` to `new`.
    pub(crate) fn set_timer(&mut self, owner: Owner, old: &mut Timestamp, new: Timestamp) {
        if *old == new {
            return;
        }
        if *old != Timestamp::MAX {
            self.timers.remove(&(*old, owner));
        }
        *old = new;
        if new != Timestamp::MAX {
            self.timers.insert((new, owner));
        }
    }

    /// Sees to it that the one timer of `owner`, set to `old`, fires at `new` at the latest. One that fires too early
    /// is set again, which costs less than to move it at each step of a write.
    pub(crate) fn set_timer_before(&mut self, owner: Owner, old: &mut Timestamp, new: Timestamp) {
        if new < *old {
            self.set_timer(owner, old, new);
        }
    }

    /// Emits a swap of `expect` (absent if `None`) to `next`.
    pub(crate) fn swap(
        &mut self,
        owner: Owner,
        expect: Option<Row>,
        next: Row,
        feed: Option<crate::row::FeedEntry>,
    ) -> Ticket {
        let ticket = Ticket(self.draw().0);
        self.swaps.insert(ticket, Swap { owner, next: next.clone() });
        let (store, clears_note) = (self.life, next.lease.is_some_and(|lease| lease.purpose == Purpose::Write));
        self.effects.push_back(Effect::SwapRow { ticket, store, expect, next, feed, clears_note });
        ticket
    }

    /// Emits a fetch of a row.
    pub(crate) fn fetch(&mut self, repo: RepoId) -> Ask {
        let ask = self.draw();
        self.effects.push_back(Effect::FetchRow { ask, repo });
        ask
    }
}

//! Balancing: which of several qualified nodes is chosen. A preference, never a reason to serve stale data.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::config::Config;
use crate::id::{DomainId, Incarnation, NodeId, RepoId, RequestId};
use crate::node::{Health, NodeState, Served, Standing, Tally, Verdict};
use crate::rng::{Rng, mix};
use crate::router::Router;
use crate::row::{Member, RowState};
use crate::state::{Aside, Cell, State};
use crate::time::Timestamp;

/// The policy that chooses one of several qualified nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Balance {
    /// Random: each qualified node has the same chance.
    #[default]
    Random,
    /// Round robin: the qualified nodes take turns.
    RoundRobin,
    /// Least loaded: the node with the least reported load; ties are drawn at random.
    LeastLoaded,
    /// Power of two choices: the less loaded of two nodes drawn at random.
    ///
    /// Nearly as even as least loaded, without the herd (Mitzenmacher, "The power of two choices in randomized load
    /// balancing", 2001).
    TwoChoices,
}

/// A caller's preferences for the node that is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) near: Option<DomainId>,
    pub(crate) via: Option<RequestId>,
}

/// A node, and how it has been doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Entry {
    pub(crate) state: NodeState,
    /// The time when the node came up.
    up_since: Timestamp,
    /// Consecutive failures.
    failures: u32,
    /// Ejections so far; each lasts longer.
    ejections: u32,
    ejected_until: Timestamp,
}

/// The nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Nodes {
    all: Vec<(NodeId, Entry)>,
    /// Lost disks: per node, every life up to and including this one is declared lost.
    lost: BTreeMap<NodeId, Incarnation>,
    /// A counter that grows whenever the health of any node changes.
    #[cfg_attr(feature = "serde", serde(skip))]
    news: Aside<u64>,
    /// The next time at which a node's health changes without a new fact (an ejection ends).
    #[cfg_attr(feature = "serde", serde(skip))]
    steady_until: Aside<Timestamp>,
}

/// How news of a node changes what the router knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// No change: the news is old or repeated, or the table is full.
    None,
    /// Only the load changed.
    Load,
    /// The node came up, went down, or came back on another disk.
    Life,
}

impl Nodes {
    pub(crate) const fn new() -> Self {
        Self { all: Vec::new(), lost: BTreeMap::new(), news: Aside(0), steady_until: Aside(Timestamp::ZERO) }
    }

    /// Where the node is, or would be. Numbers are dense more often than not: then the first guess is right.
    fn place(&self, node: NodeId) -> Result<usize, usize> {
        let first = self.all.first().map_or(0, |(first, _)| first.0);
        let guess = usize::try_from(node.0.wrapping_sub(first)).unwrap_or(usize::MAX);
        if self.all.get(guess).is_some_and(|(found, _)| *found == node) {
            return Ok(guess);
        }
        self.all.binary_search_by_key(&node, |(node, _)| *node)
    }

    fn get_mut(&mut self, node: NodeId) -> Option<&mut Entry> {
        let at = self.place(node).ok()?;
        self.all.get_mut(at).map(|(_, entry)| entry)
    }

    /// The health counter: no node's health has changed while it stays the same. Never 0 once a time was told.
    pub(crate) const fn news(&self) -> u64 {
        self.news.0
    }

    /// The next time at which a node's health changes without a new fact.
    pub(crate) const fn steady_until(&self) -> Timestamp {
        self.steady_until.0
    }

    /// Ends ejections that are over at `now`.
    pub(crate) fn lift(&mut self, now: Timestamp) {
        if now >= self.steady_until.0 {
            self.changed(now);
        }
    }

    /// Forgets [`Self::steady_until`]: after a restore, time may go back.
    pub(crate) const fn unsettle(&mut self) {
        self.steady_until.0 = Timestamp::ZERO;
    }

    fn changed(&mut self, now: Timestamp) {
        let ends = self.all.iter().map(|(_, entry)| entry.ejected_until).filter(|until| *until > now);
        self.steady_until.0 = ends.min().unwrap_or(Timestamp::MAX);
        self.news.0 += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Entry> {
        let at = self.place(node).ok()?;
        self.all.get(at).map(|(_, entry)| entry)
    }

    /// The state of a node in that life of its disk.
    pub(crate) fn alive(&self, node: NodeId, incarnation: Incarnation) -> Option<&NodeState> {
        self.get(node).map(|entry| &entry.state).filter(|state| state.incarnation == incarnation)
    }

    /// Takes in how a node is.
    pub(crate) fn hear(&mut self, node: NodeId, state: NodeState, now: Timestamp, most: u32) -> News {
        let new = Entry { state, up_since: now, failures: 0, ejections: 0, ejected_until: Timestamp::ZERO };
        if self.lost.get(&node).is_some_and(|lost| *lost >= state.incarnation) {
            return News::None;
        }
        let at = match self.place(node) {
            Ok(at) => at,
            Err(_) if self.all.len() >= most as usize => return News::None,
            Err(at) => {
                self.changed(now);
                // A node known from the start is warm.
                self.all.insert(at, (node, Entry { up_since: Timestamp::ZERO, ..new }));
                return News::Life;
            }
        };
        let Some((_, old)) = self.all.get_mut(at) else { return News::None };
        if old.state.incarnation > state.incarnation || old.state == state {
            return News::None;
        }
        let same = old.state.incarnation == state.incarnation && old.state.health == state.health;
        if old.state.incarnation < state.incarnation || (old.state.health == Health::Down && state.health == Health::Up)
        {
            *old = new;
        } else {
            old.state = state;
        }
        if same {
            return News::Load;
        }
        self.changed(now);
        News::Life
    }

    /// Whether that life of a disk can never speak again: a newer one is registered, or an operator said so.
    pub(crate) fn is_lost(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let newer = self.get(node).is_some_and(|entry| entry.state.incarnation > incarnation);
        newer || self.lost.get(&node).is_some_and(|lost| *lost >= incarnation)
    }

    /// An operator says that a life of a disk, and all before it, are lost; `false` if that is no news.
    pub(crate) fn lose(&mut self, node: NodeId, incarnation: Incarnation, now: Timestamp, most: u32) -> bool {
        let room = self.lost.len() < most as usize || self.lost.contains_key(&node);
        if !room || self.lost.get(&node).is_some_and(|lost| *lost >= incarnation) {
            return false;
        }
        self.lost.insert(node, incarnation);
        if let Ok(at) = self.place(node)
            && self.all.get(at).is_some_and(|(_, entry)| entry.state.incarnation <= incarnation)
        {
            self.all.remove(at);
            self.changed(now);
        }
        true
    }

    /// Counts failures in a row (outlier ejection, as in Envoy's documentation of the same name); `false` if there is
    /// no such node.
    pub(crate) fn served(&mut self, node: NodeId, served: Served, now: Timestamp, config: &Config) -> bool {
        let ejected = self.all.iter().filter(|(_, entry)| entry.ejected_until > now).count();
        let may_eject = (ejected + 1) * 100 <= self.all.len() * usize::from(config.eject_percent);
        let Some(entry) = self.get_mut(node) else { return false };
        if served == Served::Well {
            entry.failures = 0;
            return true;
        }
        entry.failures = entry.failures.saturating_add(1);
        if entry.failures >= config.eject_after && may_eject && entry.ejected_until <= now {
            entry.failures = 0;
            entry.ejections = entry.ejections.saturating_add(1);
            let pause = config.eject_ms.saturating_mul(entry.ejections.min(10).into());
            entry.ejected_until = now.after_millis(pause);
            self.changed(now);
        }
        true
    }

    /// How `standing` counts: a machine in another life of its disk, or never told of, is unknown.
    pub(crate) fn verdict(&self, cell: &Cell, standing: &Standing, now: Timestamp) -> (Verdict, Health) {
        match self.health(&standing.member, now) {
            Some(health) => (cell.verdict(standing), health),
            None => (Verdict::Unknown, Health::Down),
        }
    }

    /// How well the machine does, if it is in the member's life of its disk.
    pub(crate) fn health(&self, member: &Member, now: Timestamp) -> Option<Health> {
        let entry = self.get(member.node).filter(|entry| entry.state.incarnation == member.incarnation)?;
        let ejected = entry.state.health == Health::Up && entry.ejected_until > now;
        Some(if ejected { Health::Ailing } else { entry.state.health })
    }

    fn load(&self, node: NodeId) -> u32 {
        self.get(node).map_or(u32::MAX, |entry| entry.state.load)
    }

    /// Whether a node that came up lately should still be spared: its share grows evenly over the slow start.
    fn is_spared(&self, node: NodeId, now: Timestamp, slow_start_ms: u64, draw: u64) -> bool {
        let since = self.get(node).map_or(Timestamp::ZERO, |entry| entry.up_since);
        since != Timestamp::ZERO && draw > now.millis_since(since) && now.millis_since(since) < slow_start_ms
    }
}

/// Chooses one of several nodes that qualify, once.
pub(crate) struct Chooser<'a> {
    pub(crate) config: &'a Config,
    pub(crate) nodes: &'a Nodes,
    pub(crate) now: Timestamp,
    pub(crate) rng: &'a mut Rng,
    /// The round-robin counter.
    pub(crate) turn: &'a mut u64,
}

impl Chooser<'_> {
    /// The place of the one that is chosen.
    pub(crate) fn choose(mut self, able: &[Member], wish: Wish) -> Option<usize> {
        if able.is_empty() {
            return None;
        }
        if let Some(name) = wish.via {
            return self.heaviest(able, name);
        }
        let first = self.draw(able)?;
        if able.len() == 1 { Some(first) } else { self.weigh(able, first, wish.near) }
    }

    /// Any, by chance or in its turn.
    fn draw(&mut self, able: &[Member]) -> Option<usize> {
        let count = u64::try_from(able.len()).unwrap_or(u64::MAX);
        let nth = if self.config.balance == Balance::RoundRobin {
            *self.turn = self.turn.wrapping_add(1);
            self.turn.checked_rem(count)?
        } else {
            self.rng.below(count)
        };
        usize::try_from(nth).ok()
    }

    /// The qualified node with the highest rendezvous weight: the same for every read of one request.
    fn heaviest(self, able: &[Member], RequestId(name): RequestId) -> Option<usize> {
        let weight = |member: &Member| mix(mix(self.config.seed ^ mix(name)) ^ u64::from(member.node.0));
        (0..able.len()).max_by_key(|nth| able.get(*nth).map(weight))
    }

    /// By domain, by load, and by how long each is up; `first` was drawn.
    fn weigh(mut self, able: &[Member], first: usize, near: Option<DomainId>) -> Option<usize> {
        if let Some(member) = near.and_then(|domain| self.nearest(able, domain)) {
            return Some(member);
        }
        let nodes = self.nodes;
        let load = |nth: usize| able.get(nth).map(|member| nodes.load(member.node));
        let chosen = match self.config.balance {
            Balance::Random | Balance::RoundRobin => first,
            Balance::LeastLoaded => {
                let least = (0..able.len()).min_by_key(|nth| load(*nth))?;
                if load(first) <= load(least) { first } else { least }
            }
            Balance::TwoChoices => {
                // Two different ones: drawn twice, the most loaded of three would still get a ninth.
                let count = able.len();
                let step = self.rng.below(u64::try_from(count.checked_sub(1)?).ok()?);
                let other = (first + 1 + usize::try_from(step).ok()?) % count;
                if load(other) < load(first) { other } else { first }
            }
        };
        if self.config.slow_start_ms > 0 {
            let draw = self.rng.below(self.config.slow_start_ms);
            let node = able.get(chosen)?.node;
            if nodes.is_spared(node, self.now, self.config.slow_start_ms, draw) {
                return self.draw(able);
            }
        }
        Some(chosen)
    }

    /// The least loaded one of the caller's own domain, unless it has more than its bounded share to do
    /// (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2018, for the bound).
    fn nearest(&self, able: &[Member], domain: DomainId) -> Option<usize> {
        let load = |member: &Member| u64::from(self.nodes.load(member.node));
        let total: u64 = able.iter().map(load).sum();
        let here = |member: &Member| self.nodes.get(member.node).is_some_and(|e| e.state.domain == domain);
        let all_here = able.iter().enumerate().filter(|(_, member)| here(member));
        let (near, least) = all_here.map(|(nth, member)| (nth, load(member))).min_by_key(|(_, load)| *load)?;
        let bound = total.saturating_add(1).saturating_mul(self.config.near_percent.into());
        let count = u64::try_from(able.len()).unwrap_or(u64::MAX);
        (least.saturating_mul(count).saturating_mul(100) <= bound).then_some(near)
    }
}

impl Router {
    /// One voter at the newest state: a healthy one, or where there is none, an ailing one.
    pub(crate) fn choose(&mut self, repo: RepoId, tally: &Tally, wish: Wish) -> Option<Member> {
        let cell = self.state.cells.get(&repo)?;
        let healthy = tally.usable > 0;
        let fits = |standing: &&Standing| {
            let (verdict, health) = self.verdict(cell, standing);
            let well = if healthy { health == Health::Up } else { health != Health::Down };
            standing.is_voter() && verdict == Verdict::Current && well
        };
        let able: SmallVec<[Member; 8]> = cell.standings.iter().filter(fits).map(|s| s.member).collect();
        let State { nodes, rng, turn, .. } = &mut self.state;
        let chosen = Chooser { config: &self.config, nodes, now: self.now, rng, turn }.choose(&able, wish)?;
        able.get(chosen).copied()
    }

    /// The node that a pinned repository is pinned to.
    pub(crate) fn pinned_to(cell: &Cell) -> Option<NodeId> {
        if let RowState::Pinned { node } = cell.row.state { Some(node) } else { None }
    }
}

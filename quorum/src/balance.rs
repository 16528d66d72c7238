//! Which of several qualified nodes: preference only, never a reason to serve what is stale.

use alloc::vec::Vec;

use crate::config::Config;
use crate::id::{DomainId, Incarnation, NodeId, RepoId, RequestId};
use crate::node::{Health, NodeState, Served, Standing, Tally, Verdict};
use crate::rng::mix;
use crate::router::Router;
use crate::row::{Member, Role, RowState};
use crate::state::Cell;
use crate::time::Timestamp;

/// How a node is chosen among those that qualify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Balance {
    /// Any, with equal chance.
    #[default]
    Random,
    /// Each in its turn.
    RoundRobin,
    /// The one with the least load; of equals, any.
    LeastLoaded,
    /// The less loaded of two drawn by chance (Mitzenmacher, "The power of two choices in randomized load
    /// balancing", 2001): nearly as even as the least loaded, without the herd.
    TwoChoices,
}

/// What a caller would like of the node that is chosen.
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
    /// Since when it is up.
    up_since: Timestamp,
    /// Failures in a row.
    failures: u32,
    /// Ejections so far; each lasts longer.
    ejections: u32,
    ejected_until: Timestamp,
}

/// The nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Nodes(Vec<(NodeId, Entry)>);

/// What news of a node amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Old, or no news, or there is no room.
    None,
    /// It does its work as before, with more or less of it to do.
    Load,
    /// It came up, went down, or came back on another disk.
    Life,
}

impl Nodes {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Where the node is, or would be. Numbers are dense more often than not: then the first guess is right.
    fn place(&self, node: NodeId) -> Result<usize, usize> {
        let first = self.0.first().map_or(0, |(first, _)| first.0);
        let guess = usize::try_from(node.0.wrapping_sub(first)).unwrap_or(usize::MAX);
        if self.0.get(guess).is_some_and(|(found, _)| *found == node) {
            return Ok(guess);
        }
        self.0.binary_search_by_key(&node, |(node, _)| *node)
    }

    fn get_mut(&mut self, node: NodeId) -> Option<&mut Entry> {
        let at = self.place(node).ok()?;
        self.0.get_mut(at).map(|(_, entry)| entry)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Entry> {
        let at = self.place(node).ok()?;
        self.0.get(at).map(|(_, entry)| entry)
    }

    /// The state of a node in that life of its disk.
    pub(crate) fn alive(&self, node: NodeId, incarnation: Incarnation) -> Option<&NodeState> {
        self.get(node).map(|entry| &entry.state).filter(|state| state.incarnation == incarnation)
    }

    /// Takes in how a node is.
    pub(crate) fn hear(&mut self, node: NodeId, state: NodeState, now: Timestamp, most: u32) -> News {
        let new = Entry { state, up_since: now, failures: 0, ejections: 0, ejected_until: Timestamp::ZERO };
        let at = match self.place(node) {
            Ok(at) => at,
            Err(_) if self.0.len() >= most as usize => return News::None,
            Err(at) => {
                // A node known from the start is warm.
                self.0.insert(at, (node, Entry { up_since: Timestamp::ZERO, ..new }));
                return News::Life;
            }
        };
        let Some((_, old)) = self.0.get_mut(at) else { return News::None };
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
        if same { News::Load } else { News::Life }
    }

    /// Counts failures in a row (outlier ejection, as in Envoy's documentation of the same name); `false` if there is
    /// no such node.
    pub(crate) fn served(&mut self, node: NodeId, served: Served, now: Timestamp, config: &Config) -> bool {
        let ejected = self.0.iter().filter(|(_, entry)| entry.ejected_until > now).count();
        let may_eject = (ejected + 1) * 100 <= self.0.len() * usize::from(config.eject_percent);
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

impl Router {
    /// One voter at the newest state: a healthy one, or where there is none, an ailing one.
    pub(crate) fn choose(&mut self, repo: RepoId, tally: &Tally, wish: Wish) -> Option<Member> {
        let (count, healthy) = if tally.usable > 0 { (tally.usable, true) } else { (tally.ailing, false) };
        if count == 0 {
            return None;
        }
        if let Some(RequestId(name)) = wish.via {
            let weight = |member: &Member| mix(mix(self.config.seed ^ mix(name)) ^ u64::from(member.node.0));
            return (0..count).filter_map(|nth| self.candidate(repo, nth, healthy)).max_by_key(weight);
        }
        let first = self.draw_candidate(repo, count, healthy)?;
        if count == 1 {
            return Some(first);
        }
        if let Some(member) = wish.near.and_then(|domain| self.nearest(repo, count, healthy, domain)) {
            return Some(member);
        }
        let chosen = match self.config.balance {
            Balance::Random | Balance::RoundRobin => first,
            Balance::LeastLoaded => self.least_loaded(repo, count, healthy, first)?,
            Balance::TwoChoices => {
                let other = self.draw_candidate(repo, count, healthy)?;
                if self.state.nodes.load(other.node) < self.state.nodes.load(first.node) { other } else { first }
            }
        };
        if self.config.slow_start_ms > 0 {
            let draw = self.state.rng.below(self.config.slow_start_ms);
            if self.state.nodes.is_spared(chosen.node, self.now, self.config.slow_start_ms, draw) {
                return self.draw_candidate(repo, count, healthy);
            }
        }
        Some(chosen)
    }

    /// The `nth` voter that qualifies.
    fn candidate(&self, repo: RepoId, nth: u32, healthy: bool) -> Option<Member> {
        let nth = usize::try_from(nth).ok()?;
        let Some(cell) = self.state.cells.get(&repo) else {
            let members = self.state.rest.get(repo)?.members;
            let well = |member: &&Member| {
                let health = self.state.nodes.health(member, self.now);
                let well = if healthy { health == Some(Health::Up) } else { health.is_some_and(|h| h != Health::Down) };
                member.role == Role::Voter && well
            };
            return members.iter().filter(well).nth(nth).copied();
        };
        let fits = |standing: &&Standing| {
            let (verdict, health) = self.verdict(cell, standing);
            let well = if healthy { health == Health::Up } else { health != Health::Down };
            standing.is_voter() && verdict == Verdict::Current && well
        };
        cell.standings.iter().filter(fits).nth(nth).map(|standing| standing.member)
    }

    fn draw_candidate(&mut self, repo: RepoId, count: u32, healthy: bool) -> Option<Member> {
        let nth = if self.config.balance == Balance::RoundRobin {
            self.state.turn = self.state.turn.wrapping_add(1);
            self.state.turn % u64::from(count)
        } else {
            self.state.rng.below(count.into())
        };
        self.candidate(repo, u32::try_from(nth).ok()?, healthy)
    }

    fn least_loaded(&self, repo: RepoId, count: u32, healthy: bool, first: Member) -> Option<Member> {
        let all = (0..count).filter_map(|nth| self.candidate(repo, nth, healthy));
        let least = all.min_by_key(|member| self.state.nodes.load(member.node))?;
        let tied = self.state.nodes.load(first.node) <= self.state.nodes.load(least.node);
        Some(if tied { first } else { least })
    }

    /// The least loaded candidate of the caller's own domain, unless it has more than its bounded share to do
    /// (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2018, for the bound).
    fn nearest(&self, repo: RepoId, count: u32, healthy: bool, domain: DomainId) -> Option<Member> {
        let all = || (0..count).filter_map(|nth| self.candidate(repo, nth, healthy));
        let load = |member: &Member| u64::from(self.state.nodes.load(member.node));
        let total: u64 = all().map(|member| load(&member)).sum();
        let here = |member: &Member| self.state.nodes.get(member.node).is_some_and(|e| e.state.domain == domain);
        let near = all().filter(here).min_by_key(load)?;
        let bound = total.saturating_add(1).saturating_mul(self.config.near_percent.into());
        (load(&near).saturating_mul(u64::from(count)).saturating_mul(100) <= bound).then_some(near)
    }

    /// The node that a pinned repository is pinned to.
    pub(crate) fn pinned_to(cell: &Cell) -> Option<NodeId> {
        if let RowState::Pinned { node } = cell.row.state { Some(node) } else { None }
    }
}

//! Recovery after the store came back from a backup: the gates know what it has forgotten.
//!
//! Every gate keeps the newest row it was shown, and promises to refuse what is of an earlier life of the store. W
//! promises of the newest configuration are enough: they meet every W votes that can have committed, and every N − W +
//! 1 gates that were shown a later configuration before it was written under. (For a majority, W and N − W + 1 are the
//! same number.)
//!
//! The decision is one swap, which also settles who decided if several tried: from then on the row names the newest
//! state, and is closed to reads and writes until W voters hold that state ([`RowState::Recovering`]). A second swap
//! opens it. Where the newest state is a vote that may or may not have been committed, one swap more comes
//! first ([`RowState::Decided`]): nodes act on the decision only once W gates know of it, so that a store restored
//! again, in the midst of it, cannot lead to another one.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::effect::Effect;
use crate::fence::FenceGate;
use crate::goal::{Goal, Plan};
use crate::id::{ChangeId, Digest, Epoch, Fence, Generation, NodeId, RepoId, Revision, Stamp, Version};
use crate::node::{Health, Standing, Verdict};
use crate::quorum::Quorum;
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{FeedEntry, Member, Row, RowState};
use crate::work::Owner;

/// A request to recover a repository in a new generation of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RecoverRequest {
    /// The repository to recover.
    pub repo: RepoId,
    /// Nodes to ask besides the members that are known.
    pub holders: Vec<Member>,
}

impl RecoverRequest {
    /// A request that asks the members that the row, and then the gates, name.
    #[must_use]
    pub const fn new(repo: RepoId) -> Self {
        Self { repo, holders: Vec::new() }
    }

    /// Adds nodes to ask: those that hold a repository of which the restored store has no row, or a tombstone.
    #[must_use]
    pub fn held_by(self, holders: impl IntoIterator<Item = Member>) -> Self {
        Self { holders: holders.into_iter().collect(), ..self }
    }
}

/// The maximum number of promises kept: two whole configurations of the largest size.
const MOST_PROMISES: usize = 64;

/// A recovery under way: what was promised so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Recovery {
    pub(crate) request: RecoverRequest,
    promises: BTreeMap<NodeId, FenceGate>,
    /// The nodes asked since the last pause.
    asked: Vec<Member>,
    /// Pauses so far: those who have not spoken are not waited for longer than one.
    pauses: u32,
}

/// The result of the promises so far.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ruling {
    /// More must speak, or else this is why it cannot be decided.
    Open(Reason),
    /// A vote that may have been committed; a voter that has not spoken may know better.
    Likely(Row),
    /// Committed, and nothing beyond it can have been.
    Sure(Row),
}

/// A claim to be the newest state: a vote, or what an earlier recovery decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    fence: Fence,
    stamp: Stamp,
}

impl Recovery {
    pub(crate) const fn new(request: RecoverRequest) -> Self {
        Self { request, promises: BTreeMap::new(), asked: Vec::new(), pauses: 0 }
    }

    /// The newest configuration that anybody named.
    fn home<'a>(&'a self, row: Option<&'a Row>) -> Option<&'a Row> {
        self.known_rows(row).max_by_key(|row| row.order())
    }

    fn known_rows<'a>(&'a self, row: Option<&'a Row>) -> impl Iterator<Item = &'a Row> {
        row.into_iter().chain(self.promises.values().filter_map(FenceGate::row))
    }

    fn has_promised(&self, member: &Member) -> bool {
        self.promises.get(&member.node).is_some_and(|gate| gate.report().incarnation == member.incarnation)
    }

    /// Whom to ask: the voters of the newest configuration, those of the row, and whom the operator named.
    fn electorate(&self, row: Option<&Row>) -> Vec<Member> {
        let voters = self.home(row).into_iter().chain(row).flat_map(Row::voters);
        let mut all: Vec<Member> = Vec::new();
        for member in voters.chain(&self.request.holders) {
            let same = |other: &Member| other.node == member.node && other.incarnation == member.incarnation;
            if !all.iter().any(same) {
                all.push(*member);
            }
        }
        all
    }

    /// How many voters of the newest configuration that is known have promised.
    pub(crate) fn promised(&self, row: Option<&Row>) -> u32 {
        self.home(row).map_or(0, |home| count(home.voters().filter(|voter| self.has_promised(voter)).count()))
    }

    /// The next step from the row that the store holds.
    pub(crate) fn plan(&self, row: Option<&Row>, router: &Router) -> Plan {
        let (quorum, generation) = (router.config.quorum, router.config.generation);
        if let Some(row) = row.filter(|row| row.fence.generation >= generation) {
            return carry_on(row, router);
        }
        if row.is_none() && self.electorate(row).is_empty() {
            return Plan::Fail(Reason::NoSuchRepository { repo: self.request.repo });
        }
        let rewound = |member: &Member| {
            let cell = router.state.cells.get(&self.request.repo);
            let of = |standing: &&Standing| standing.member.is_same(member);
            cell.and_then(|cell| cell.heard().find(of)).is_some_and(|standing| standing.rewound.is_some())
        };
        let waits = |member: &Member| {
            let node = router.state.nodes.alive(member.node, member.incarnation);
            let up = node.is_some_and(|node| node.health != Health::Down);
            up && !self.has_promised(member) && !rewound(member)
        };
        let silent = self.electorate(row).iter().any(waits);
        match self.rule(row, quorum, generation) {
            // Whoever is up and has not spoken may know more: a disk may have gone back in time without being found out.
            Ruling::Sure(_) | Ruling::Likely(_) if silent && self.pauses == 0 => Plan::Wait,
            Ruling::Sure(next) => {
                let new = row.is_none_or(|row| row.newest.version < next.newest.version);
                let feed = new.then(|| next.feed_entry());
                Plan::SwapWith(next, feed)
            }
            // The feed hears of it once it holds.
            Ruling::Likely(next) => Plan::SwapWith(next, None),
            Ruling::Open(reason) if !silent => Plan::Fail(reason),
            Ruling::Open(_) => Plan::Wait,
        }
    }

    /// Judges the promises so far. Pure.
    fn rule(&self, row: Option<&Row>, quorum: Quorum, generation: Generation) -> Ruling {
        let needed = quorum.write();
        let Some(home) = self.home(row) else {
            return Ruling::Open(Reason::TooFewPromises { promised: 0, needed });
        };
        let spoke: Vec<&FenceGate> =
            home.voters().filter(|voter| self.has_promised(voter)).filter_map(|v| self.promises.get(&v.node)).collect();
        let promised = count(spoke.len());
        if promised < needed {
            return Ruling::Open(Reason::TooFewPromises { promised, needed });
        }
        // A row says what was committed, whoever was shown it; so does what a node has applied.
        let rows = self.known_rows(row).filter(|row| row.state != RowState::Decided).map(|row| row.newest);
        let applied = self.promises.values().map(FenceGate::applied).filter(|applied| *applied != Stamp::BLANK);
        let committed: Vec<Stamp> = rows.chain(applied).collect();
        let Some(top) = committed.iter().copied().max_by_key(place) else {
            return Ruling::Open(Reason::TooFewPromises { promised, needed });
        };
        if let Some(other) = committed.iter().find(|other| place(other) == place(&top) && **other != top) {
            return Ruling::Open(Reason::Undecided { one: top, other: *other });
        }
        let mut claims = claims(&spoke);
        // One vote is enough: the others may be forgotten.
        claims.retain(|claim| place(&claim.stamp) > place(&top) && !self.is_dead(row, claim));
        let best = claims.iter().max_by_key(|claim| (place(&claim.stamp), claim.fence)).copied();
        if let Some(best) = best {
            let equal = |claim: &&Claim| (place(&claim.stamp), claim.fence) == (place(&best.stamp), best.fence);
            if let Some(other) = claims.iter().filter(equal).find(|claim| claim.stamp != best.stamp) {
                return Ruling::Open(Reason::Undecided { one: best.stamp, other: other.stamp });
            }
        }
        let newest = best.map_or(top, |best| best.stamp);
        let from_nothing = newest.digest == Digest::TOMBSTONE || newest.version == home.born;
        if !from_nothing && !self.promises.values().any(|gate| holds(gate, newest)) {
            return Ruling::Open(Reason::NobodyHolds { known: newest });
        }
        let state = if newest.digest == Digest::TOMBSTONE { RowState::Deleted } else { RowState::Recovering };
        match best {
            Some(_) => Ruling::Likely(self.decision(row, home, newest, generation, RowState::Decided)),
            None => Ruling::Sure(self.decision(row, home, newest, generation, state)),
        }
    }

    /// Whether the row is known to have passed the claim by: a higher fence was in force while its version was not
    /// taken.
    fn is_dead(&self, row: Option<&Row>, claim: &Claim) -> bool {
        let gates = self.promises.values().map(|gate| (gate.report().fence, gate.report().base));
        let mut seen = gates.chain(self.known_rows(row).map(Row::order));
        seen.any(|(fence, version)| fence > claim.fence && version < claim.stamp.version)
    }

    /// The row that names the decision.
    fn decision(&self, row: Option<&Row>, home: &Row, newest: Stamp, generation: Generation, state: RowState) -> Row {
        let revision = self.known_rows(row).map(|row| row.revision).max().unwrap_or_default();
        Row {
            revision: Revision(revision.0.saturating_add(1)),
            // Who was still learning learns anew: whatever was under way is void.
            members: home.voters().copied().collect(),
            previous: home.voters().copied().collect(),
            newest,
            fence: Fence { generation, counter: 1 },
            lease: None,
            state,
            ..home.clone()
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

const fn place(stamp: &Stamp) -> (Epoch, Version) {
    (stamp.epoch, stamp.version)
}

fn holds(gate: &FenceGate, stamp: Stamp) -> bool {
    gate.report().held().any(|held| held == stamp)
}

/// The claims to the newest state of the voters that spoke.
fn claims(spoke: &[&FenceGate]) -> Vec<Claim> {
    let vote = |gate: &FenceGate| gate.staged().map(|staged| (staged.fence, staged.stamp));
    let decided =
        |gate: &FenceGate| gate.row().filter(|row| row.state == RowState::Decided).map(|row| (row.fence, row.newest));
    let mut found: Vec<Claim> = Vec::new();
    for gate in spoke {
        found.extend(vote(gate).into_iter().chain(decided(gate)).map(|(fence, stamp)| Claim { fence, stamp }));
    }
    found
}

/// The next step once the row is of the present life: let W gates know of the decision, then let W voters hold the
/// state, then open.
fn carry_on(row: &Row, router: &Router) -> Plan {
    let decided = row.state == RowState::Decided;
    if !decided && row.state != RowState::Recovering {
        return Plan::Done;
    }
    let Some(cell) = router.state.cells.get(&row.repo).filter(|cell| cell.row.order() == row.order()) else {
        return Plan::Wait;
    };
    let voters = || cell.standings.iter().filter(|standing| standing.is_voter());
    let ready = |standing: &&Standing| {
        let knows = standing.report().is_some_and(|report| report.knows(row));
        if decided { knows } else { cell.verdict(standing) == Verdict::Current }
    };
    if count(voters().filter(ready).count()) < router.config.quorum.write() {
        return Plan::Wait;
    }
    if !decided {
        return Plan::Swap(Row { state: RowState::Live, ..row.raised() });
    }
    let staged = voters().filter_map(|standing| standing.report()?.staged);
    let vote = staged.filter(|staged| staged.stamp == row.newest).map(|staged| staged.fence).max();
    let feed = FeedEntry { stamp: row.newest, fence: vote.unwrap_or(row.fence) };
    Plan::SwapWith(Row { state: RowState::Recovering, ..row.raised() }, Some(feed))
}

impl Router {
    /// Asks whoever has not promised yet, each once between two pauses.
    pub(crate) fn ask_promises(&mut self, recovery: &mut Recovery, row: Option<&Row>) {
        let (repo, generation) = (recovery.request.repo, self.config.generation);
        if row.is_some_and(|row| row.fence.generation >= generation) {
            return;
        }
        for member in recovery.electorate(row) {
            if recovery.has_promised(&member) || recovery.asked.contains(&member) {
                continue;
            }
            recovery.asked.push(member);
            let Member { node, incarnation, .. } = member;
            self.state.effects.push_back(Effect::Promise { node, incarnation, repo, generation });
        }
    }

    /// Takes a promise in: the recoveries that it is news for.
    pub(crate) fn promised(&mut self, gate: &FenceGate) -> Vec<ChangeId> {
        let report = gate.report();
        let under_way = self.state.work.of(report.repo).into_iter();
        let mut changes: Vec<ChangeId> =
            under_way.filter_map(|owner| if let Owner::Change(id) = owner { Some(id) } else { None }).collect();
        changes.retain(|id| {
            let Some(Goal::Recover(recovery)) = self.state.changes.get_mut(id).map(|change| &mut change.goal) else {
                return false;
            };
            let newer = |old: &FenceGate| {
                let old = old.report();
                (old.incarnation, old.serial) < (report.incarnation, report.serial)
            };
            let known = recovery.promises.get(&report.node);
            let taken = known.is_some_and(newer) || (known.is_none() && recovery.promises.len() < MOST_PROMISES);
            if taken {
                recovery.promises.insert(report.node, gate.clone());
            }
            taken
        });
        changes
    }
}

impl Recovery {
    /// A pause is over: who has not promised is asked once more.
    pub(crate) fn paused(&mut self) {
        self.asked.clear();
        self.pauses = self.pauses.saturating_add(1);
    }
}

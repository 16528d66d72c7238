//! Inspection: which replicas to probe next, within a budget, so that damage which reads never touch is found too.

use alloc::vec::Vec;

use crate::advice::Obstacle;
use crate::cancel::ChangeView;
use crate::effect::Effect;
use crate::fence::Report;
use crate::id::{Incarnation, NodeId, RepoId, Stamp, WriteId};
use crate::node::{Health, Standing, Tally, Verdict};
use crate::rng::mix;
use crate::router::Router;
use crate::row::{Member, Proof, Role, RowState};
use crate::state::Cell;
use crate::time::Timestamp;

/// The repositories that an inspection covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Inspection {
    /// Spot check: repositories drawn at random.
    Spot,
    /// Full scan in turn, starting after this repository; begin with `None`.
    Full(Option<RepoId>),
}

/// The result of one round of an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a full inspection goes on from `last`"]
pub struct Round {
    /// The number of repositories inspected.
    pub looked_at: u32,
    /// The last repository inspected; `None` once a full scan is complete.
    pub last: Option<RepoId>,
}

/// A fault of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Finding {
    /// Behind: the replica lags; a copy is under way or queued.
    Behind {
        /// The number of versions it lags.
        versions: u64,
    },
    /// Divergent: the replica holds another state than was committed.
    ///
    /// It serves nothing. An operator decides: [`Router::replace`] it by itself after wiping it, or
    /// [`Router::accept_loss`] in favour of it.
    Divergent {
        /// The state that the replica has applied.
        applied: Stamp,
    },
    /// Ahead: the replica is beyond what the store knows, so the store may have been set back. It serves nothing.
    Ahead {
        /// The state that the replica has applied.
        applied: Stamp,
    },
    /// Disk lost: the node is in another life of its disk than the row says. [`Router::replace`] it by itself.
    DiskLost {
        /// The life of the disk that the row names.
        member: Incarnation,
    },
    /// Rewound: the replica's disk went back in time, because an older copy of it was put back.
    ///
    /// It does not count. The router brings it to the newest state from a member that holds that, and cures it. Where
    /// no member does, an operator decides: [`Router::accept_loss`].
    Rewound {
        /// The state that the replica has applied.
        applied: Stamp,
    },
    /// Silent: the replica has not reported.
    Silent,
}

impl Router {
    /// Probes the members of up to `budget` repositories ([`Effect::Probe`]), so that their reports lead to repairs.
    ///
    /// [`Router::findings`] tells what remains. User requests are not disturbed: no more probes than `budget` × members
    /// go out, and copies keep to their own budget.
    ///
    /// ```
    /// use tenon_quorum::{Config, Inspection, Router, Timestamp};
    ///
    /// let mut router = Router::new(Config::builder().build()?);
    /// let round = router.inspect(Timestamp::from_millis(1), Inspection::Full(None), 100);
    /// assert_eq!((round.looked_at, round.last), (0, None)); // no repository yet: the scan is complete
    /// # Ok::<(), tenon_quorum::ConfigError>(())
    /// ```
    pub fn inspect(&mut self, now: Timestamp, inspection: Inspection, budget: u32) -> Round {
        self.lift(now);
        let count = usize::try_from(budget).unwrap_or(usize::MAX);
        let chosen: Vec<RepoId> = match inspection {
            Inspection::Full(after) => self.following(after.map(|repo| mix(repo.0)), count),
            Inspection::Spot => {
                let draws: Vec<u64> = (0..budget.min(4096)).map(|_| self.state.rng.next_u64()).collect();
                let first = |draw: u64| self.following(Some(draw), 1).into_iter().next();
                let mut chosen: Vec<RepoId> = draws.into_iter().filter_map(first).collect();
                if chosen.is_empty() {
                    chosen = self.following(None, 1);
                }
                chosen.sort_unstable();
                chosen.dedup();
                chosen
            }
        };
        let through = chosen.len() < count;
        let point = self.state.draw();
        for &repo in &chosen {
            self.state.wake(repo);
            self.probe_all(repo, point);
        }
        let last = chosen.last().copied().filter(|_| !through);
        Round { looked_at: u32::try_from(chosen.len()).unwrap_or(u32::MAX), last }
    }

    /// Up to `count` repositories whose hash is above `after`, in the order of their hashes: an order that waking and
    /// resting does not change.
    fn following(&self, after: Option<u64>, count: usize) -> Vec<RepoId> {
        let above = |repo: &RepoId| after.is_none_or(|hash| mix(repo.0) > hash);
        let awake = self.state.cells.keys().copied().filter(above);
        let mut all: Vec<RepoId> = self.state.rest.above(after).take(count).chain(awake).collect();
        all.sort_unstable_by_key(|repo| mix(repo.0));
        all.truncate(count);
        all
    }

    /// Lists the known faults of the replicas of `repo`.
    pub fn findings(&self, repo: RepoId) -> impl Iterator<Item = (NodeId, Finding)> {
        let found = |cell: &Cell| -> Vec<_> {
            let of = |standing: &Standing| self.finding(cell, standing).map(|what| (standing.member.node, what));
            cell.standings.iter().filter_map(of).collect()
        };
        self.state.cell(repo).map(|cell| found(&cell)).unwrap_or_default().into_iter()
    }

    fn finding(&self, cell: &Cell, standing: &Standing) -> Option<Finding> {
        let member = standing.member;
        let newest = cell.row.newest.version.0;
        Some(match self.verdict(cell, standing).0 {
            Verdict::Current | Verdict::RowOld => return None,
            Verdict::Lagging { applied } => Finding::Behind { versions: newest.saturating_sub(applied.version.0) },
            Verdict::Divergent { applied } => Finding::Divergent { applied },
            Verdict::Ahead { applied } => Finding::Ahead { applied },
            Verdict::Rewound { applied } => Finding::Rewound { applied },
            Verdict::Unknown => match self.state.nodes.get(member.node) {
                Some(entry) if entry.state.incarnation > member.incarnation => {
                    Finding::DiskLost { member: member.incarnation }
                }
                Some(_) | None => Finding::Silent,
            },
        })
    }

    /// Explains where a read of `repo` would go: the row, and each member's verdict with its report.
    #[must_use]
    pub fn explain(&self, repo: RepoId) -> Option<Explanation> {
        let cell = self.state.cell(repo)?;
        let explained = |standing: &Standing| {
            let (verdict, health) = self.verdict(&cell, standing);
            let Member { node, incarnation, role, .. } = standing.member;
            MemberExplained { node, incarnation, role, verdict, health, report: standing.word().copied() }
        };
        Some(Explanation {
            row: cell.row.proof(),
            state: cell.row.state,
            tally: self.tally_of(&cell),
            members: cell.standings.iter().map(explained).collect(),
            leavers: cell.leavers.iter().map(explained).collect(),
            obstacles: self.obstacles(&cell),
            writes: self.state.work.writes(repo).collect(),
            changes: self.changes_of(repo).collect(),
            left_behind: self.left_behind(&cell.row),
        })
    }

    /// Runs `event` on a copy: returns the copy and the effects that it would give. This router is unchanged.
    ///
    /// ```
    /// use tenon_quorum::{Config, Health, Incarnation, NodeId, NodeState, Router, Timestamp};
    ///
    /// let now = Timestamp::from_millis(1);
    /// let mut router = Router::new(Config::builder().build()?);
    /// router.handle_node(now, NodeId(1), NodeState::up(Incarnation(1)));
    /// let down = NodeState::up(Incarnation(1)).health(Health::Down);
    /// let (after, _) = router.what_if(|copy| copy.handle_node(now, NodeId(1), down));
    /// assert_eq!(after.node(NodeId(1)).map(|node| node.health), Some(Health::Down));
    /// assert_eq!(router.node(NodeId(1)).map(|node| node.health), Some(Health::Up));
    /// # Ok::<(), tenon_quorum::ConfigError>(())
    /// ```
    #[must_use]
    pub fn what_if(&self, event: impl FnOnce(&mut Self)) -> (Self, Vec<Effect>) {
        let mut copy = self.clone();
        copy.state.effects.clear();
        event(&mut copy);
        let effects = core::iter::from_fn(|| copy.poll_effect()).collect();
        (copy, effects)
    }

    /// A hash of the router's state: two routers with equal digests decide alike.
    ///
    /// Used to compare a replay with the recording.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Mixer(0);
        core::hash::Hash::hash(self, &mut hasher);
        core::hash::Hasher::finish(&hasher)
    }
}

/// An explanation of the router's decisions about one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The newest row, as a proof.
    pub row: Proof,
    /// The operations that the row allows.
    pub state: RowState,
    /// The voters by their state.
    pub tally: Tally,
    /// The members, each with its verdict.
    pub members: Vec<MemberExplained>,
    /// Leaving voters: voters of the previous configuration that are no longer members, until enough of them know of
    /// this one.
    pub leavers: Vec<MemberExplained>,
    /// The writes under way. [`Router::write`] says what each waits for.
    pub writes: Vec<WriteId>,
    /// The changes under way, with what each waits for. [`Router::cancel`] ends one.
    pub changes: Vec<ChangeView>,
    /// Learners that no change under way in this router brings in. [`Router::remove_learner`] removes one.
    pub left_behind: Vec<NodeId>,
    /// The obstacles to a write, each with the command that removes it, the first to remove in front.
    pub obstacles: Vec<Obstacle>,
}

/// One member's part in an [`Explanation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberExplained {
    /// The node.
    pub node: NodeId,
    /// The life of the node's disk that the row names.
    pub incarnation: Incarnation,
    /// The member's role.
    pub role: Role,
    /// The member's replica state, which says which rule excludes it, if one does.
    pub verdict: Verdict,
    /// The health of the node.
    pub health: Health,
    /// The member's last report.
    pub report: Option<Report>,
}

/// A small fixed hash: the same in every run.
struct Mixer(u64);

impl core::hash::Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            self.0 = mix(self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }
}

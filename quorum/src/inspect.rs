//! Inspection: which replicas to ask next, within a budget, so that what reads never touch is found too.

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

/// Which repositories an inspection looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Inspection {
    /// Some, drawn by chance.
    Spot,
    /// All in turn, from after this one; start with `None`.
    Full(Option<RepoId>),
}

/// What one round of an inspection asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a full inspection goes on from `last`"]
pub struct Round {
    /// Repositories looked at.
    pub looked_at: u32,
    /// The last of them; `None` once a full inspection is through.
    pub last: Option<RepoId>,
}

/// What is wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Finding {
    /// Behind; a copy is under way or comes.
    Behind {
        /// How many versions.
        versions: u64,
    },
    /// It holds another state than was committed. It serves nothing; an operator decides: [`Router::replace`] it by
    /// itself after wiping it, or [`Router::accept_loss`] in favour of it.
    Divergent {
        /// What it holds.
        applied: Stamp,
    },
    /// It is beyond what the store knows: the store may have been set back. It serves nothing.
    Ahead {
        /// What it holds.
        applied: Stamp,
    },
    /// The machine is in another life of its disk than the row says: [`Router::replace`] it by itself.
    DiskLost {
        /// The life that the row means.
        member: Incarnation,
    },
    /// Its disk went back in time: an older copy of it was put back. It counts in nothing, and is brought to the newest
    /// state and cured by itself, from a member that holds that. Where none does, an operator decides:
    /// [`Router::accept_loss`].
    Rewound {
        /// What it holds.
        applied: Stamp,
    },
    /// Nothing is known of it.
    Silent,
}

impl Router {
    /// Asks the members of up to `budget` repositories for their reports ([`Effect::Probe`]), so that what they say
    /// leads to repairs; [`Router::findings`] tells what remains. User requests are not disturbed: no more probes
    /// than `budget` × members go out, and copies keep to their own budget.
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

    /// What is wrong with the replicas of `repo`, as far as is known.
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

    /// Why a read of `repo` would go where it would go: the row, and the verdict on each member with what it said.
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

    /// What the router would be after `event`, and the orders it would give; this one is as it was.
    #[must_use]
    pub fn what_if(&self, event: impl FnOnce(&mut Self)) -> (Self, Vec<Effect>) {
        let mut copy = self.clone();
        copy.state.effects.clear();
        event(&mut copy);
        let effects = core::iter::from_fn(|| copy.poll_effect()).collect();
        (copy, effects)
    }

    /// A number that two routers share if they decide alike: to compare a replay with the recording.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Mixer(0);
        core::hash::Hash::hash(self, &mut hasher);
        core::hash::Hasher::finish(&hasher)
    }
}

/// The whole story of a repository's decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// What the row proves.
    pub row: Proof,
    /// What may be done.
    pub state: RowState,
    /// How many voters stand how.
    pub tally: Tally,
    /// Each member.
    pub members: Vec<MemberExplained>,
    /// Voters of the configuration before that are no members any more, until enough of them know of this one.
    pub leavers: Vec<MemberExplained>,
    /// Writes under way; [`Router::write`] says what each waits for.
    pub writes: Vec<WriteId>,
    /// Changes under way, and what each waits for: [`Router::cancel`] ends one.
    pub changes: Vec<ChangeView>,
    /// Learners that no change under way in this router brings in: [`Router::remove_learner`] lets one go.
    pub left_behind: Vec<NodeId>,
    /// What is in the way of a write, and the command that removes it: the first to be removed in front.
    pub obstacles: Vec<Obstacle>,
}

/// One member's part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberExplained {
    /// The node.
    pub node: NodeId,
    /// The life of its disk that the row means.
    pub incarnation: Incarnation,
    /// What it does here.
    pub role: Role,
    /// How it stands, and so which rule excludes it, if one does.
    pub verdict: Verdict,
    /// How well it does.
    pub health: Health,
    /// What it said last.
    pub report: Option<Report>,
}

/// A small, fixed hash: the same in every run.
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

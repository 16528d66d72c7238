//! Waits: the condition that a write or a change waits for, in numbers.

use core::fmt;

use crate::change::{Change, Stage};
use crate::commit::{Phase, Write};
use crate::goal::Goal;
use crate::id::{Incarnation, NodeId, RepoId, Version};
use crate::migrate::{Family, Migration};
use crate::node::Verdict;
use crate::router::Router;
use crate::row::{Member, Role, RowState};
use crate::state::Cell;

/// The condition that a write or a change waits for, or waited for when it timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WaitsFor {
    /// The store's row of the repository ([`crate::Effect::FetchRow`]).
    Row,
    /// The store's answer to a swap ([`crate::Effect::SwapRow`]).
    Swap,
    /// An entry of the change feed ([`crate::Effect::FetchFeed`]).
    Feed,
    /// Enough reachable voters at the newest state.
    Voters {
        /// The number of voters that can take part.
        able: u32,
        /// The number of voters whose report or copy is still to come.
        pending: u32,
        /// The number of voters needed (W).
        needed: u32,
    },
    /// The node that must be the writer: it is not at the newest state, or cannot be reached.
    Writer {
        /// The node that must be the writer.
        node: NodeId,
    },
    /// Votes under the grant.
    Votes {
        /// The number of votes for the same state.
        votes: u32,
        /// The number of votes needed (W).
        needed: u32,
    },
    /// Gates that are raised past the grant.
    Gates {
        /// The number of raised gates.
        raised: u32,
        /// The number of gates needed (N − W + 1).
        needed: u32,
    },
    /// Gates of the previous configuration that know the present one.
    Settled {
        /// The number of gates that know it.
        known: u32,
        /// The number of gates needed (N − W + 1).
        needed: u32,
    },
    /// A copy on the node that joins.
    Copy {
        /// The node that joins.
        node: NodeId,
        /// The version that the node reported last, if it reported.
        at: Option<Version>,
        /// The version to reach.
        newest: Version,
    },
    /// Copies on several nodes.
    Copies {
        /// The number of nodes at the newest state.
        done: u32,
        /// The number of nodes needed.
        needed: u32,
    },
    /// A report of one node.
    Report {
        /// The node that must report.
        node: NodeId,
    },
    /// Promises of the newest configuration's voters.
    Promises {
        /// The number of voters that promised.
        promised: u32,
        /// The number of promises needed (W).
        needed: u32,
    },
    /// The list of a fork family ([`crate::Effect::FetchFamily`]).
    Family,
    /// The other repositories of the family, which must get as far first.
    Others {
        /// The number of them that are ready.
        ready: u32,
        /// The number of all of them.
        all: u32,
    },
    /// The root of the family, which decides for its forks.
    Root {
        /// The root of the family.
        root: RepoId,
    },
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Row => f.write_str("the row from the store"),
            Self::Swap => f.write_str("the store's answer to a swap"),
            Self::Feed => f.write_str("an entry of the feed"),
            Self::Voters { able, pending, needed } => {
                write!(f, "voters at the newest state: {able} of {needed}, {pending} pending")
            }
            Self::Writer { node } => write!(f, "{node} to be at the newest state"),
            Self::Votes { votes, needed } => write!(f, "votes: {votes} of {needed}"),
            Self::Gates { raised, needed } => write!(f, "raised gates: {raised} of {needed}"),
            Self::Settled { known, needed } => write!(f, "gates that know the configuration: {known} of {needed}"),
            Self::Copy { node, at: Some(at), newest } => write!(f, "a copy on {node}, which is at {at} of {newest}"),
            Self::Copy { node, at: None, newest } => write!(f, "a copy of {newest} on {node}, which is silent"),
            Self::Copies { done, needed } => write!(f, "copies: {done} of {needed}"),
            Self::Report { node } => write!(f, "a report of {node}"),
            Self::Promises { promised, needed } => write!(f, "promises: {promised} of {needed}"),
            Self::Family => f.write_str("the list of the family"),
            Self::Others { ready, all } => write!(f, "the family: {ready} of {all} ready"),
            Self::Root { root } => write!(f, "{root}, the root of the family"),
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Router {
    /// The condition that the write waits for.
    pub(crate) fn write_waits_for(&self, write: &Write) -> WaitsFor {
        let needed = self.config.quorum.write();
        let cell = self.state.cells.get(&write.repo);
        match (write.phase, cell) {
            (Phase::Raising(_) | Phase::Committing(..) | Phase::Closing(_), _) => WaitsFor::Swap,
            (Phase::ReadingFeed(..), _) => WaitsFor::Feed,
            (Phase::Locating(_) | Phase::Resolving(_), _)
            | (Phase::Gathering | Phase::Voting | Phase::Fencing(_), None) => WaitsFor::Row,
            (Phase::Gathering, Some(cell)) => self.gathering_waits_for(cell, write),
            (Phase::Voting, Some(cell)) => {
                let votes = write.grant.map_or(0, |base| self.ballot(cell, write, &base).votes);
                WaitsFor::Votes { votes, needed }
            }
            (Phase::Fencing(fence), Some(cell)) => {
                let voters = cell.standings.iter().filter(|standing| standing.is_voter());
                let raised = voters.filter(|standing| standing.report().is_some_and(|report| report.fence >= fence));
                WaitsFor::Gates { raised: count(raised.count()), needed: self.config.quorum.blocking() }
            }
        }
    }

    fn gathering_waits_for(&self, cell: &Cell, write: &Write) -> WaitsFor {
        let (tally, needed) = (self.tally_of(cell), self.config.quorum.write());
        if tally.able() < needed {
            return WaitsFor::Voters { able: tally.able(), pending: self.answers_pending(cell), needed };
        }
        match write.writer.filter(|node| !self.is_able(cell, *node)) {
            Some(node) => WaitsFor::Writer { node },
            None => self.settling_waits_for(cell),
        }
    }

    fn settling_waits_for(&self, cell: &Cell) -> WaitsFor {
        let (known, needed) = self.settling(cell);
        WaitsFor::Settled { known, needed }
    }

    /// The condition that the change waits for.
    pub(crate) fn change_waits_for(&self, change: &Change) -> WaitsFor {
        match change.stage {
            Stage::Fetching(_) => WaitsFor::Row,
            Stage::Swapping(_) => WaitsFor::Swap,
            Stage::Confirming(_) => {
                WaitsFor::Root { root: self.state.cells.get(&change.repo).map_or(change.repo, |cell| cell.row.family) }
            }
            Stage::Waiting => self.goal_waits_for(change),
        }
    }

    fn goal_waits_for(&self, change: &Change) -> WaitsFor {
        let cell = self.state.cells.get(&change.repo);
        if let Goal::Recover(recovery) = &change.goal
            && cell.is_none_or(|cell| !self.is_recovered(&cell.row))
        {
            let promised = recovery.promised(cell.map(|cell| &cell.row));
            return WaitsFor::Promises { promised, needed: self.config.quorum.write() };
        }
        let Some(cell) = cell else { return WaitsFor::Row };
        match &change.goal {
            Goal::Replace(request, _) => {
                let comes = &request.comes;
                let seat = cell.row.members.iter().find(|member| {
                    (member.node, member.incarnation, member.role) == (comes.node, comes.incarnation, Role::Learner)
                });
                match seat.filter(|seat| !self.has_applied(&cell.row, seat)) {
                    Some(seat) => WaitsFor::Copy {
                        node: seat.node,
                        at: Self::reported(cell, seat.node, seat.incarnation),
                        newest: cell.row.newest.version,
                    },
                    None => self.settling_waits_for(cell),
                }
            }
            Goal::AcceptLoss(_, node, _) => WaitsFor::Report { node: *node },
            Goal::Recover(_) => self.copies_wait_for(cell, Role::Voter, self.config.quorum.write()),
            Goal::Migrate(migration) => self.migration_waits_for(cell, migration),
            Goal::Hold(hold) => WaitsFor::Copy {
                node: hold.node,
                at: Self::reported(cell, hold.node, hold.incarnation),
                newest: cell.row.newest.version,
            },
            Goal::Create(_) | Goal::Delete(_) | Goal::Undo(..) | Goal::Lock(_) | Goal::Cure(_) | Goal::Leave(_) => {
                self.settling_waits_for(cell)
            }
        }
    }

    fn reported(cell: &Cell, node: NodeId, incarnation: Incarnation) -> Option<Version> {
        let of = |member: &Member| (member.node, member.incarnation) == (node, incarnation);
        let standing = cell.standings.iter().find(|standing| of(&standing.member))?;
        standing.report().map(|report| report.applied.version)
    }

    fn copies_wait_for(&self, cell: &Cell, role: Role, needed: u32) -> WaitsFor {
        let theirs = cell.standings.iter().filter(|standing| standing.member.role == role);
        let done = theirs.filter(|standing| self.verdict(cell, standing).0 == Verdict::Current);
        WaitsFor::Copies { done: count(done.count()), needed }
    }

    fn migration_waits_for(&self, cell: &Cell, migration: &Migration) -> WaitsFor {
        let row = &cell.row;
        let moving = matches!(row.state, RowState::Moving { .. });
        let learners = row.members.iter().filter(|member| member.role == Role::Learner);
        if moving && row.shard != migration.request.to && !self.newcomers_hold(row) {
            return self.copies_wait_for(cell, Role::Learner, count(learners.count()));
        }
        let (known, needed) = self.settling(cell);
        if known < needed {
            return WaitsFor::Settled { known, needed };
        }
        match &migration.family {
            Family::Led => WaitsFor::Root { root: migration.request.root },
            Family::Unknown | Family::Asked(_) => WaitsFor::Family,
            Family::Known(others) => {
                let ready = others.iter().filter(|repo| migration.is_ready(**repo, row, self)).count();
                WaitsFor::Others { ready: count(ready), all: count(others.len()) }
            }
        }
    }
}

//! Goals of changes, and the next step towards each from any row. Pure.

use alloc::vec::Vec;

use crate::cancel::Leave;
use crate::fence::Report;
use crate::id::{Digest, Epoch, Fence, NodeId, RepoId, Revision, ShardId, Stamp, Version};
use crate::lease::Hold;
use crate::migrate::Migration;
use crate::node::{Health, Standing};
use crate::quorum::Quorum;
use crate::reason::Reason;
use crate::recover::Recovery;
use crate::router::Router;
use crate::row::{FeedEntry, Member, Members, Role, Row, RowState};

/// A request to create an empty repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CreateRequest {
    /// The repository's id.
    ///
    /// The id of a deleted repository may be used again: it starts a new lineage, whose version goes on.
    pub repo: RepoId,
    /// The shard that holds the repository.
    pub shard: ShardId,
    /// The members: exactly N voters, and no learner.
    pub members: Members,
    /// The digest of the empty state.
    pub empty: Digest,
    /// The repository that this one is a fork of, if any. A family is on one shard, on the same nodes.
    pub parent: Option<RepoId>,
}

impl CreateRequest {
    /// A request for an empty repository on `members` of `shard`.
    ///
    /// ```
    /// use tenon_quorum::{CreateRequest, Digest, Incarnation, Member, Members, NodeId, RepoId, ShardId};
    ///
    /// let members: Members = (1..=3).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect();
    /// let request = CreateRequest::new(RepoId(7), ShardId(1), members, Digest([0; 16]));
    /// assert_eq!(request.parent, None);
    /// ```
    #[must_use]
    pub fn new(repo: RepoId, shard: ShardId, members: impl Into<Members>, empty: Digest) -> Self {
        Self { repo, shard, members: members.into(), empty, parent: None }
    }

    /// Makes the new repository a fork of `parent`. The router must hold the parent's row (a read of it fetches it).
    #[must_use]
    pub fn fork_of(self, parent: RepoId) -> Self {
        Self { parent: Some(parent), ..self }
    }

    pub(crate) fn is_sound(&self, quorum: Quorum) -> bool {
        are_sound(&self.members, quorum)
    }
}

/// Whether these are N voters, each node once.
pub(crate) fn are_sound(members: &Members, quorum: Quorum) -> bool {
    let voters = members.iter().all(|member| member.role == Role::Voter);
    let mut nodes: Vec<_> = members.iter().map(|member| member.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    voters && nodes.len() == members.len() && u32::try_from(nodes.len()) == Ok(quorum.voters())
}

/// A request to replace one voter by another node, or by itself after its disk was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReplaceRequest {
    /// The repository whose voter is replaced.
    pub repo: RepoId,
    /// The voter that leaves.
    pub leaves: NodeId,
    /// The node that takes its place, with the life of its disk. May be the same node in a later life.
    pub comes: Member,
}

impl ReplaceRequest {
    /// A request to replace the voter `leaves` by `comes`, which first learns, then takes the seat in one step.
    #[must_use]
    pub const fn new(repo: RepoId, leaves: NodeId, comes: Member) -> Self {
        Self { repo, leaves, comes }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Goal {
    Create(CreateRequest),
    Delete(RepoId),
    /// Delete a fork again, whose family began to move while it was made.
    Undo(RepoId, RepoId),
    /// On the shard where the repository was found: its nodes are no members for another.
    Replace(ReplaceRequest, Option<ShardId>),
    AcceptLoss(RepoId, NodeId, Epoch),
    Recover(Recovery),
    Migrate(Migration),
    /// The data-safety lock is set or lifted, as the members call for.
    Lock(RepoId),
    /// A learner leaves.
    Leave(Leave),
    /// The fence is raised after a disk was found to have gone back in time.
    Cure(RepoId),
    /// The next grant is held, so that a member catches up.
    Hold(Hold),
}

/// The next step.
pub(crate) enum Plan {
    Done,
    Swap(Row),
    /// With this entry for the feed, if any, in place of the usual.
    SwapWith(Row, Option<FeedEntry>),
    Wait,
    Fail(Reason),
}

impl Goal {
    /// Whether it starts from a row that is not there.
    pub(crate) const fn may_be_absent(&self) -> bool {
        matches!(self, Self::Create(_))
    }

    /// Whether it waits for copies, or for gates that may be slow to be raised.
    pub(crate) const fn copies(&self) -> bool {
        matches!(self, Self::Replace(..) | Self::Recover(_) | Self::Migrate(_) | Self::Leave(_))
    }

    /// Whether the router set it by itself: nobody waits for its answer.
    pub(crate) const fn is_own(&self) -> bool {
        matches!(self, Self::Lock(_) | Self::Cure(_) | Self::Hold(_) | Self::Leave(Leave { life: Some(_), .. }))
    }

    /// The next step towards the goal, given the row (`None`: absent).
    pub(crate) fn plan(&self, row: Option<&Row>, router: &Router) -> Plan {
        match (self, row) {
            (Self::Create(request), None) => plan_create(request, None, router),
            (
                Self::Delete(repo)
                | Self::Undo(repo, _)
                | Self::AcceptLoss(repo, ..)
                | Self::Lock(repo)
                | Self::Cure(repo),
                None,
            ) => Plan::Fail(Reason::NoSuchRepository { repo: *repo }),
            (Self::Hold(_), None) => Plan::Done,
            (Self::Replace(request, _), None) => Plan::Fail(Reason::NoSuchRepository { repo: request.repo }),
            (Self::Leave(leave), None) => Plan::Fail(Reason::NoSuchRepository { repo: leave.repo }),
            (Self::Migrate(migration), None) => Plan::Fail(Reason::NoSuchRepository { repo: migration.request.root }),
            (Self::Recover(recovery), row) => recovery.plan(row, router),
            (Self::AcceptLoss(_, survivor, from), Some(row)) if row.state != RowState::Deleted => {
                plan_accept_loss(*survivor, *from, row, router)
            }
            (_, Some(row)) if row.fence.generation < router.config.generation => {
                let (row, store) = (row.fence.generation, router.config.generation);
                Plan::Fail(Reason::NotRecovered { row, store })
            }
            (Self::AcceptLoss(..), Some(row)) => Plan::Fail(Reason::Deleted { at: row.newest.version }),
            (Self::Replace(..), Some(row)) if row.state == RowState::Deleted => {
                Plan::Fail(Reason::Deleted { at: row.newest.version })
            }
            (Self::Migrate(migration), Some(row)) => migration.plan(row, router),
            (Self::Lock(_), Some(row)) => router.plan_lock(row),
            (Self::Leave(leave), Some(row)) => leave.plan(row, router),
            (Self::Cure(_), Some(row)) => router.plan_cure(row),
            (Self::Hold(hold), Some(row)) => router.plan_hold(hold, row),
            (Self::Replace(request, _), Some(row))
                if row.state == (RowState::Pinned { node: request.leaves }) && !router.is_lost_node(row, request) =>
            {
                Plan::Fail(Reason::Pinned { node: request.leaves })
            }
            (Self::Replace(_, shard), Some(row))
                if matches!(row.state, RowState::Moving { .. }) || shard.is_some_and(|shard| shard != row.shard) =>
            {
                Plan::Fail(Reason::Moving)
            }
            (Self::Create(request), Some(row)) => {
                let plan = plan_create(request, Some(row), router);
                if matches!(plan, Plan::Swap(_)) && !router.knows_of(row) { Plan::Wait } else { plan }
            }
            (Self::Undo(_, parent), Some(row)) if row.state == RowState::Deleted => {
                Plan::Fail(Reason::FamilySplit { parent: *parent })
            }
            (Self::Delete(_) | Self::Undo(..), Some(row)) => plan_delete(row),
            (Self::Replace(request, _), Some(row)) => {
                let plan = plan_replace(request, row, router);
                // A store from a backup forgets no seat that enough gates of the configuration before know of.
                if matches!(plan, Plan::Swap(_) | Plan::Done) && !router.knows_of(row) { Plan::Wait } else { plan }
            }
        }
    }
}

fn plan_create(request: &CreateRequest, row: Option<&Row>, router: &Router) -> Plan {
    if let Some(row) = row.filter(|row| row.state != RowState::Deleted) {
        let members = || row.members.iter().map(|member| (member.node, member.incarnation));
        let asked = request.members.iter().map(|member| (member.node, member.incarnation));
        let same = row.shard == request.shard && members().eq(asked);
        let untouched = row.newest.version == row.born && row.newest.digest == request.empty;
        return if same && untouched { Plan::Done } else { Plan::Fail(Reason::Exists { repo: request.repo }) };
    }
    let fence = Fence { generation: router.config.generation, counter: 1 };
    let family = match request.parent {
        Some(parent) => match router.family_for(parent, request) {
            Some(family) => family,
            None => return Plan::Fail(Reason::FamilySplit { parent }),
        },
        None => request.repo,
    };
    let mut next = Row {
        repo: request.repo,
        family,
        shard: request.shard,
        revision: Revision(1),
        members: request.members.clone(),
        previous: Members::default(),
        newest: Stamp { epoch: Epoch(1), version: Version(0), digest: request.empty },
        born: Version(0),
        fence,
        lease: None,
        state: RowState::Live,
    };
    if let Some(row) = row {
        let since = row.reconfigured(row.members.clone()).revision;
        let members = request.members.iter().map(|member| member.taking(Role::Voter, since)).collect();
        next = Row { shard: request.shard, family, state: RowState::Live, ..row.reconfigured(members) };
        next.newest = row.newest.next(request.empty).in_next_epoch();
        next.born = next.newest.version;
    }
    Plan::Swap(next)
}

/// A tombstone has a version of its own, so that what was before it is behind it.
fn plan_delete(row: &Row) -> Plan {
    if row.state == RowState::Deleted {
        return Plan::Done;
    }
    if matches!(row.state, RowState::Moving { .. }) {
        return Plan::Fail(Reason::Moving);
    }
    Plan::Swap(Row { newest: row.newest.next(Digest::TOMBSTONE), state: RowState::Deleted, ..row.raised() })
}

/// Learner, then applied newest, then voter in place of the one that leaves: one swap of the whole row, which a commit
/// in between makes fail. No seat is ever empty on the way: a node that was reborn learns beside its own old seat.
fn plan_replace(request: &ReplaceRequest, row: &Row, router: &Router) -> Plan {
    let revision = row.next_revision();
    let comes = request.comes;
    if let Some(member) = row.members.iter().find(|member| member.is_same(&comes)) {
        return if member.role == Role::Voter { Plan::Done } else { promote(request, row, member, router) };
    }
    // A node may come in place of what it was itself, and in place of an earlier life that never got to vote.
    let stands_in = |member: &&Member| member.node == comes.node && member.incarnation < comes.incarnation;
    let clash = row.members.iter().find(|member| {
        let own_seat = member.role == Role::Learner || member.node == request.leaves;
        member.node == comes.node && !(stands_in(member) && own_seat)
    });
    if let Some(member) = clash {
        return Plan::Fail(Reason::NotAMember { node: member.node });
    }
    // A seat may be empty: a recovery found a configuration with fewer voters.
    if is_full(row, router) && row.voters().all(|voter| voter.node != request.leaves) {
        return Plan::Fail(Reason::NotAMember { node: request.leaves });
    }
    let stays = |member: &&Member| member.role == Role::Voter || member.node != comes.node;
    let mut members: Vec<Member> = row.members.iter().filter(stays).copied().collect();
    if members.len() >= usize::from(router.config.most_members) {
        return Plan::Fail(Reason::Full { limit: router.config.most_members.into() });
    }
    members.push(comes.taking(Role::Learner, revision));
    Plan::Swap(row.reconfigured(members.into()))
}

fn is_full(row: &Row, router: &Router) -> bool {
    u32::try_from(row.voters().count()).is_ok_and(|voters| voters >= router.config.quorum.voters())
}

fn promote(request: &ReplaceRequest, row: &Row, learner: &Member, router: &Router) -> Plan {
    if !router.has_applied(row, learner) {
        return Plan::Wait;
    }
    let revision = row.next_revision();
    // The voter that leaves, and whatever the newcomer's node was in earlier lives.
    let stays =
        |member: &&Member| member.is_same(learner) || (member.node != request.leaves && member.node != learner.node);
    let seat = |member: &Member| {
        if member.is_same(learner) { member.taking(Role::Voter, revision) } else { *member }
    };
    let next = row.reconfigured(row.members.iter().filter(stays).map(seat).collect());
    if u32::try_from(next.voters().count()).is_ok_and(|voters| voters > router.config.quorum.voters()) {
        return Plan::Fail(Reason::NotAMember { node: request.leaves });
    }
    let (voters, needed) = (u32::try_from(next.voters().count()).unwrap_or(u32::MAX), router.config.quorum.write());
    if voters < needed { Plan::Fail(Reason::WouldStrand { voters, needed }) } else { Plan::Swap(next) }
}

/// Makes the survivor's state the newest of a new lineage. The version goes on, so that the feed names the loss and no
/// version twice.
fn plan_accept_loss(survivor: NodeId, from: Epoch, row: &Row, router: &Router) -> Plan {
    if row.newest.epoch > from {
        return Plan::Done;
    }
    let member = row.member(survivor).and_then(|member| router.word_of(row.repo, member));
    let Some(applied) = member.filter(|applied| *applied != Stamp::BLANK) else {
        return Plan::Wait;
    };
    let mut row = row.clone();
    if row.fence.generation < router.config.generation {
        // The restored store may lie behind what its nodes hold: the new lineage must be beyond all of it.
        let told = router.state.cells.get(&row.repo).into_iter().flat_map(|cell| &cell.standings);
        for held in told.filter_map(Standing::word).flat_map(Report::held) {
            row.newest.epoch = row.newest.epoch.max(held.epoch);
            row.newest.version = row.newest.version.max(held.version);
        }
        row.fence = Fence { generation: router.config.generation, counter: 0 };
    }
    let newest = row.newest.next(applied.digest).in_next_epoch();
    Plan::Swap(Row { newest, state: RowState::Live, ..row.raised() })
}

impl Router {
    /// The family of a fork of `parent`, if the fork would be where its family is.
    pub(crate) fn family_for(&self, parent: RepoId, fork: &CreateRequest) -> Option<RepoId> {
        let cell = self.state.cell(parent)?;
        let row = &cell.row;
        let home = row.voters().all(|voter| fork.members.iter().any(|member| member.node == voter.node));
        (row.state == RowState::Live && row.shard == fork.shard && home).then_some(row.family)
    }

    /// Whether the voter that is to be replaced has lost its disk, so that nothing is taken away.
    fn is_lost_node(&self, row: &Row, request: &ReplaceRequest) -> bool {
        row.member(request.leaves).is_some_and(|member| self.is_lost(member))
    }

    /// Whether the member is known to have applied exactly the newest state of `row`, if that is the row held here.
    pub(crate) fn has_applied(&self, row: &Row, member: &Member) -> bool {
        let Some(cell) = self.state.cells.get(&row.repo).filter(|cell| cell.row.order() == row.order()) else {
            return false;
        };
        let standing = cell.standings.iter().find(|standing| standing.member.is_same(member));
        self.can_be_reached(member) && standing.and_then(Standing::applied) == Some(row.newest)
    }

    /// The state that the member reported as applied, if it can be reached: even one whose disk went back in time.
    fn word_of(&self, repo: RepoId, member: &Member) -> Option<Stamp> {
        let standing = self.state.cells.get(&repo)?.standings.iter().find(|s| s.member.is_same(member))?;
        let applied = standing.word().map(|report| report.applied).or(standing.applied());
        applied.filter(|_| self.can_be_reached(member))
    }

    fn can_be_reached(&self, member: &Member) -> bool {
        let state = self.state.nodes.alive(member.node, member.incarnation);
        state.is_some_and(|state| state.health != Health::Down)
    }
}

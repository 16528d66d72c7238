//! Reasons: every decision, refusal and outcome carries a [`Reason`] whose numbers recompute it.

use crate::id::{ChangeId, Fence, Generation, Incarnation, NodeId, RepoId, RouterId, Stamp, Version, WriteId};
use crate::node::Tally;
use crate::read::Token;
use crate::waits::WaitsFor;

/// The reason for a decision, a refusal or an outcome. Codes are stable: a code is never reused.
///
/// 1xx explain an answer, 2xx refuse a command, 3xx end a write or a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// A healthy node at the newest state serves the read.
    #[error("one of {} healthy voters at the newest state of {}", .0.usable, .0.voters)]
    AtNewest(Tally),
    /// No healthy node is at the newest state, so an unhealthy one serves. Health was widened, freshness was not.
    #[error("no healthy voter at the newest state; served by one of {} in poor health", .0.ailing)]
    HealthWidened(Tally),
    /// Without the store, the read sees the state that W voters have applied. It may miss a newer write.
    #[error("without the store: {agree} of {heard} voters heard agree, {needed} needed; may miss the newest write")]
    Degraded {
        /// The number of voters heard.
        heard: u32,
        /// The number of them at the same, highest state of one configuration.
        agree: u32,
        /// The number needed (W).
        needed: u32,
    },
    /// A write is granted to the node that serves, so the read may show uncommitted data.
    #[error("served by {node}, which may show data of {write} that is not committed")]
    MayObserveUncommitted {
        /// The writer's node.
        node: NodeId,
        /// The write that is granted.
        write: WriteId,
    },
    /// The store holds no row for the repository.
    #[error("{repo} does not exist")]
    NoSuchRepository {
        /// The repository that does not exist.
        repo: RepoId,
    },
    /// The row breaks the rules of rows: no router wrote it.
    #[error("the row of {repo} breaks the rules of rows: no router wrote it")]
    BadRow {
        /// The repository of the row.
        repo: RepoId,
    },
    /// The repository was deleted; its tombstone remains.
    #[error("deleted at {at}")]
    Deleted {
        /// The last version of the repository.
        at: Version,
    },
    /// The row is of an earlier life of the store and was not recovered since.
    #[error("the row is of generation {}, the store is in {}: recover it first", .row.0, .store.0)]
    NotRecovered {
        /// The life that the row was written in.
        row: Generation,
        /// The present life of the store.
        store: Generation,
    },
    /// No reachable node has applied the newest state.
    #[error("no reachable node is at the newest state: {0}")]
    NobodyCurrent(Tally),
    /// Too few voters can take part in a write.
    #[error("{needed} voters needed: {tally}")]
    TooFewVoters {
        /// The voters by their state.
        tally: Tally,
        /// The number of voters needed (W).
        needed: u32,
    },
    /// Another write of the same repository is under way. One at a time.
    #[error("{write} is under way: one write at a time")]
    Busy {
        /// The write that is under way.
        write: WriteId,
    },
    /// The repository is moving to another shard: it can be read, not written.
    #[error("the repository is moving: read only")]
    Moving,
    /// The repository is pinned to one node, and the request names another node or that node cannot take it.
    #[error("the repository is pinned to {node}")]
    Pinned {
        /// The node that the repository is pinned to.
        node: NodeId,
    },
    /// The node that the request names cannot take the write.
    #[error("{node} cannot take the write: {tally}")]
    WriterUnusable {
        /// The node that the request names.
        node: NodeId,
        /// The voters by their state.
        tally: Tally,
    },
    /// A limit of the configuration is reached.
    #[error("the limit of {limit} is reached")]
    Full {
        /// The value of the limit.
        limit: u32,
    },
    /// The command breaks a rule: its members are invalid, or its token is of another repository.
    #[error("the command breaks the rules of {repo}")]
    BadCommand {
        /// The repository of the command.
        repo: RepoId,
    },
    /// The repository exists already.
    #[error("{repo} exists already")]
    Exists {
        /// The repository that exists.
        repo: RepoId,
    },
    /// The node is not the member that the command needs it to be.
    #[error("{node} is not a member that the command applies to")]
    NotAMember {
        /// The node that the command names.
        node: NodeId,
    },
    /// The change would leave fewer voters than a write needs.
    #[error("the change would leave {voters} voters of {needed} needed")]
    WouldStrand {
        /// The number of voters left.
        voters: u32,
        /// The number of voters needed (W).
        needed: u32,
    },
    /// The caller's token is of another lineage than the row, or beyond what the store holds.
    #[error("the token is of another lineage, or beyond the row: {token:?}; the row shows {row:?}")]
    OtherLineage {
        /// The caller's token.
        token: Token,
        /// The state that the row shows.
        row: Token,
    },
    /// A fork must be on the shard and the nodes of its family, whose row must be held and live.
    #[error("a fork of {parent} must be on the shard and nodes of its family")]
    FamilySplit {
        /// The repository to fork.
        parent: RepoId,
    },
    /// Without the store, too few voters agree on the newest state.
    #[error("without the store: {agree} of {heard} voters heard agree, {needed} needed")]
    NoAgreement {
        /// The number of voters heard.
        heard: u32,
        /// The number of them at the same, highest state of one configuration.
        agree: u32,
        /// The number needed (W).
        needed: u32,
    },
    /// The repository is being recovered: its newest state is decided, but is not yet on W voters.
    #[error("the repository is being recovered: its newest state is not yet on enough voters")]
    Recovering,
    /// The voters that can take part come from too few failure domains for a write.
    #[error("votes from {needed} domains needed, {domains} can take part")]
    TooFewDomains {
        /// The number of domains of the voters that can vote, or have.
        domains: u32,
        /// The configured number of domains.
        needed: u32,
    },
    /// The repository is a fork: only the root of a family starts a migration or takes it back.
    #[error("the repository is a fork: its family moves with {root}")]
    NotTheRoot {
        /// The root of the family.
        root: RepoId,
    },
    /// A replacement that is under way brings the node in: cancel that.
    #[error("{node} joins by {change}: cancel that change")]
    Joining {
        /// The node that joins.
        node: NodeId,
        /// The replacement.
        change: ChangeId,
    },
    /// No change of this id is under way that a command began.
    #[error("{change} is not under way")]
    NoSuchChange {
        /// The id of the change.
        change: ChangeId,
    },
    /// The write was committed: the row moved.
    #[error("committed after {votes} votes of {needed} needed")]
    Committed {
        /// The number of voters that held the write.
        votes: u32,
        /// The number needed (W).
        needed: u32,
    },
    /// The write was found committed after the answer of the store was lost.
    #[error("found committed under {fence}")]
    FoundCommitted {
        /// The fence of the grant.
        fence: Fence,
    },
    /// The write was found not committed after the answer of the store was lost. The fence was raised so that it stays
    /// so.
    #[error("found not committed under {fence}")]
    FoundUncommitted {
        /// The fence of the grant.
        fence: Fence,
    },
    /// The request timed out.
    #[error("timed out waiting for {waits_for}")]
    Deadline {
        /// The condition that the request waited for.
        waits_for: WaitsFor,
    },
    /// The lease of the grant ended before enough votes came.
    #[error("the lease ended with {votes} votes of {needed} needed")]
    LeaseEnded {
        /// The number of votes for the same state.
        votes: u32,
        /// The number of votes needed (W).
        needed: u32,
    },
    /// The votes still to come cannot reach W for one state.
    #[error("too few votes can still come: {votes} for one state, {open} open, {needed} needed")]
    VotesCannotAddUp {
        /// The highest number of votes for one state.
        votes: u32,
        /// The number of voters that may still vote.
        open: u32,
        /// The number of votes needed (W).
        needed: u32,
    },
    /// The row was changed meanwhile, by another router or by a change of this one.
    #[error("the row was changed meanwhile: {fence} is in force")]
    Overtaken {
        /// The fence now in force.
        fence: Fence,
    },
    /// The host gave the write up, or a command cancelled the change.
    #[error("given up by the host")]
    Aborted,
    /// Other routers changed the row again and again, until the attempts ran out.
    #[error("other routers changed the row in each of {attempts} attempts")]
    Contended {
        /// The number of attempts.
        attempts: u32,
    },
    /// The change feed has no entry for a version that the row shows as committed.
    #[error("the feed has no entry for {version}")]
    FeedGap {
        /// The version without an entry.
        version: Version,
    },
    /// Too few voters of the newest configuration have promised to decide what is newest.
    #[error("{promised} of {needed} promises needed")]
    TooFewPromises {
        /// The number of voters that promised.
        promised: u32,
        /// The number of promises needed (W).
        needed: u32,
    },
    /// A state was committed that no node that answered holds. An operator decides.
    #[error("no node that answered holds {known}, which was committed")]
    NobodyHolds {
        /// The committed state.
        known: Stamp,
    },
    /// The store is in another life than this router was configured for, so its answers do not count.
    ///
    /// Where a backup was put in the store's place, start the router anew under that generation.
    #[error("the store is in generation {}, this router is for {}", .store.0, .router.0)]
    OtherStore {
        /// The life of the store that the router was configured for.
        router: Generation,
        /// The life of the store that answered.
        store: Generation,
    },
    /// The previous configuration is not settled: too few of its seats know the present one, or are lost.
    ///
    /// It settles once this node is back. If the node's disk is gone for good, declare that with
    /// [`crate::Router::lost`].
    #[error(
        "not settled: {told} of {needed} seats of the previous configuration know of this one; waits for {node} \
         ({incarnation}) and {others} more: bring it back, or declare it lost"
    )]
    Unsettled {
        /// The number of seats whose gates know the row, that are lost, or that were empty.
        told: u32,
        /// The number of seats needed (N − W + 1).
        needed: u32,
        /// The first node that has not reported that it knows the row.
        node: NodeId,
        /// The life of that node's disk.
        incarnation: Incarnation,
        /// The number of further nodes that have not reported it.
        others: u32,
    },
    /// Another router holds a lease of the repository for a write.
    ///
    /// The repository is left alone for the lease and two polls more.
    #[error("{holder} holds a lease for a write, for {ms} ms at most")]
    Leased {
        /// The router that holds the lease.
        holder: RouterId,
        /// The length of the lease, in ms from when its grant was first seen here.
        ms: u64,
    },
    /// Grants are held so that a member catches up that copies never bring up to date.
    #[error("grants are held for {ms} ms: a member is {lag} versions behind after {rounds} copies")]
    Held {
        /// The number of copies that writes overtook.
        rounds: u32,
        /// The number of versions that the member lagged.
        lag: u64,
        /// The maximum length of the hold, in ms.
        ms: u64,
    },
    /// Another router waits for the repository and goes first.
    #[error("another router goes first, for {ms} ms at most")]
    Yielding {
        /// The time left, in ms.
        ms: u64,
    },
    /// Two states have an equal claim to be the newest. An operator decides.
    #[error("{one} and {other} have an equal claim to be the newest state")]
    Undecided {
        /// The first state.
        one: Stamp,
        /// The second state.
        other: Stamp,
    },
}

impl Reason {
    /// The stable number of this reason.
    ///
    /// ```
    /// use tenon_quorum::{Reason, RepoId};
    ///
    /// let reason = Reason::NoSuchRepository { repo: RepoId(7) };
    /// assert_eq!(reason.to_string(), "repo 7 does not exist");
    /// assert_eq!(reason.code(), 200);
    /// ```
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::AtNewest(_) => 100,
            Self::HealthWidened(_) => 101,
            Self::Degraded { .. } => 102,
            Self::MayObserveUncommitted { .. } => 103,
            Self::NoSuchRepository { .. } => 200,
            Self::BadRow { .. } => 201,
            Self::Deleted { .. } => 202,
            Self::NotRecovered { .. } => 203,
            Self::NobodyCurrent(_) => 204,
            Self::TooFewVoters { .. } => 205,
            Self::Busy { .. } => 206,
            Self::Moving => 207,
            Self::Pinned { .. } => 208,
            Self::WriterUnusable { .. } => 209,
            Self::Full { .. } => 210,
            Self::BadCommand { .. } => 211,
            Self::Exists { .. } => 212,
            Self::NotAMember { .. } => 213,
            Self::WouldStrand { .. } => 214,
            Self::OtherLineage { .. } => 215,
            Self::NoAgreement { .. } => 216,
            Self::FamilySplit { .. } => 217,
            Self::Recovering => 218,
            Self::TooFewDomains { .. } => 219,
            Self::NotTheRoot { .. } => 230,
            Self::Joining { .. } => 231,
            Self::NoSuchChange { .. } => 232,
            Self::Committed { .. } => 300,
            Self::FoundCommitted { .. } => 301,
            Self::Deadline { .. } => 302,
            Self::LeaseEnded { .. } => 303,
            Self::VotesCannotAddUp { .. } => 304,
            Self::Overtaken { .. } => 305,
            Self::Aborted => 306,
            Self::Contended { .. } => 307,
            Self::FeedGap { .. } => 308,
            Self::FoundUncommitted { .. } => 309,
            Self::TooFewPromises { .. } => 310,
            Self::NobodyHolds { .. } => 311,
            Self::Undecided { .. } => 312,
            Self::OtherStore { .. } => 220,
            Self::Unsettled { .. } => 313,
            Self::Leased { .. } => 314,
            Self::Held { .. } => 315,
            Self::Yielding { .. } => 316,
        }
    }
}

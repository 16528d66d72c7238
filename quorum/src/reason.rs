//! Why: every decision, refusal and outcome carries a [`Reason`] whose numbers recompute it.

use crate::id::{ChangeId, Fence, Generation, Incarnation, NodeId, RepoId, RouterId, Stamp, Version, WriteId};
use crate::node::Tally;
use crate::read::Token;
use crate::waits::WaitsFor;

/// Why a decision is as it is. Codes are stable: a code is never used again for anything else.
///
/// 1xx explain an answer, 2xx refuse a command, 3xx end a write or a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// Served by a healthy node at the newest state.
    #[error("one of {} healthy voters at the newest state of {}", .0.usable, .0.voters)]
    AtNewest(Tally),
    /// No node at the newest state is in good health: health was widened, freshness was not.
    #[error("no healthy voter at the newest state; served by one of {} in poor health", .0.ailing)]
    HealthWidened(Tally),
    /// Without the store: what W voters have applied; a newer write may be missed.
    #[error("without the store: {agree} of {heard} voters heard agree, {needed} needed; may miss the newest write")]
    Degraded {
        /// Voters heard.
        heard: u32,
        /// Of them at the same, highest state of one configuration.
        agree: u32,
        /// W.
        needed: u32,
    },
    /// A write is granted to the node that serves; it may show what is not committed.
    #[error("read at {node}, which may show what {write} has not committed")]
    MayObserveUncommitted {
        /// The writer's node.
        node: NodeId,
        /// The write.
        write: WriteId,
    },
    /// The store holds no row for the repository.
    #[error("{repo} does not exist")]
    NoSuchRepository {
        /// Which.
        repo: RepoId,
    },
    /// The row breaks the rules of rows; somebody else wrote it.
    #[error("the row of {repo} is not one that a router writes")]
    BadRow {
        /// Whose.
        repo: RepoId,
    },
    /// The repository was deleted; its tombstone remains.
    #[error("deleted at {at}")]
    Deleted {
        /// Its last version.
        at: Version,
    },
    /// The row is of an older life of the store, and was not recovered since.
    #[error("the row is of generation {}, the store is in {}: recover it first", .row.0, .store.0)]
    NotRecovered {
        /// The row's generation.
        row: Generation,
        /// The store's.
        store: Generation,
    },
    /// No node that can be reached has applied the newest state.
    #[error("nobody to serve: {0}")]
    NobodyCurrent(Tally),
    /// Too few voters can take part.
    #[error("{needed} voters needed: {tally}")]
    TooFewVoters {
        /// How the voters stand.
        tally: Tally,
        /// W.
        needed: u32,
    },
    /// A write of the same repository is under way: one at a time.
    #[error("busy with {write}")]
    Busy {
        /// That write.
        write: WriteId,
    },
    /// The repository moves to another shard: reads only.
    #[error("the repository is moving: read only")]
    Moving,
    /// Pinned to one node, and the request names another or that one cannot take it.
    #[error("pinned to {node}")]
    Pinned {
        /// The node.
        node: NodeId,
    },
    /// The node that the request names cannot take the write.
    #[error("{node} cannot take the write: {tally}")]
    WriterUnusable {
        /// As asked.
        node: NodeId,
        /// How the voters stand.
        tally: Tally,
    },
    /// A limit of the configuration is reached.
    #[error("full: the limit {limit} is reached")]
    Full {
        /// The limit.
        limit: u32,
    },
    /// The command names something impossible (members that break the rules, a foreign token).
    #[error("the command breaks the rules of {repo}")]
    BadCommand {
        /// For which repository.
        repo: RepoId,
    },
    /// The repository exists already.
    #[error("{repo} exists")]
    Exists {
        /// Which.
        repo: RepoId,
    },
    /// The node is not the member that the command needs it to be.
    #[error("{node} is not a member that this can be done with")]
    NotAMember {
        /// Which.
        node: NodeId,
    },
    /// The change would leave fewer voters than a write needs.
    #[error("would leave {voters} voters of {needed} needed")]
    WouldStrand {
        /// Voters left.
        voters: u32,
        /// W.
        needed: u32,
    },
    /// What the caller has seen is not of the row's lineage, or beyond what the store holds.
    #[error("seen: {token:?}, the row: {row:?}")]
    OtherLineage {
        /// What the caller has seen.
        token: Token,
        /// What the row says.
        row: Token,
    },
    /// A fork must be on the shard and the nodes of its family, whose row must be held and live.
    #[error("a fork of {parent} must be where its family is")]
    FamilySplit {
        /// The repository to fork.
        parent: RepoId,
    },
    /// Without the store, too few voters agree on what is newest.
    #[error("without the store: {agree} of {heard} voters heard agree, {needed} needed")]
    NoAgreement {
        /// Voters heard.
        heard: u32,
        /// Of them at the same, highest state of one configuration.
        agree: u32,
        /// W.
        needed: u32,
    },
    /// What is newest was decided on after the store was restored, and is not yet on W voters.
    #[error("being recovered: not yet on enough voters")]
    Recovering,
    /// The votes of a write must come from more failure domains than can take part.
    #[error("votes from {needed} domains needed, {domains} can take part")]
    TooFewDomains {
        /// Domains of the voters that can vote, or have.
        domains: u32,
        /// As configured.
        needed: u32,
    },
    /// A fork family is moved, and taken back, by its root.
    #[error("a fork: its family moves with {root}")]
    NotTheRoot {
        /// The root of the family.
        root: RepoId,
    },
    /// A replacement that is under way brings the node in.
    #[error("{node} joins by {change}: cancel that")]
    Joining {
        /// The node.
        node: NodeId,
        /// The replacement.
        change: ChangeId,
    },
    /// No change of this name is under way that a command began.
    #[error("{change} is not under way")]
    NoSuchChange {
        /// The name.
        change: ChangeId,
    },
    /// Committed: the row moved.
    #[error("committed after {votes} votes of {needed} needed")]
    Committed {
        /// Voters that held it.
        votes: u32,
        /// W.
        needed: u32,
    },
    /// Found to be committed after the answer of the store was lost.
    #[error("found committed under {fence}")]
    FoundCommitted {
        /// The fence of the grant.
        fence: Fence,
    },
    /// Found not to be committed after the answer of the store was lost; the fence was raised so that it stays so.
    #[error("found not committed under {fence}")]
    FoundUncommitted {
        /// The fence of the grant.
        fence: Fence,
    },
    /// The time of the request ended.
    #[error("the time ended while it waited for {waits_for}")]
    Deadline {
        /// What it waited for, in numbers.
        waits_for: WaitsFor,
    },
    /// The grant ended before enough votes came.
    #[error("the lease ended with {votes} votes of {needed} needed")]
    LeaseEnded {
        /// Votes for the same state.
        votes: u32,
        /// W.
        needed: u32,
    },
    /// Votes can no longer add up.
    #[error("votes cannot add up: {votes} alike, {open} open, {needed} needed")]
    VotesCannotAddUp {
        /// The most votes for one state.
        votes: u32,
        /// Voters that may still vote.
        open: u32,
        /// W.
        needed: u32,
    },
    /// Somebody else moved the row.
    #[error("overtaken by {fence}")]
    Overtaken {
        /// The fence now in force.
        fence: Fence,
    },
    /// The host gave the write up.
    #[error("given up by the host")]
    Aborted,
    /// The row was swapped again and again by others.
    #[error("lost the row {attempts} times")]
    Contended {
        /// How often.
        attempts: u32,
    },
    /// The change feed has no entry for a version that the row says was committed.
    #[error("the feed has no entry for {version}")]
    FeedGap {
        /// Which.
        version: Version,
    },
    /// Too few voters of the newest configuration have promised to decide what is newest.
    #[error("{promised} of {needed} promises needed")]
    TooFewPromises {
        /// Voters that promised.
        promised: u32,
        /// W.
        needed: u32,
    },
    /// Something was committed that nobody who spoke holds. An operator decides.
    #[error("{known} was committed, and nobody who spoke holds it")]
    NobodyHolds {
        /// That state.
        known: Stamp,
    },
    /// The store is in another life than this router was configured for, and answers nothing that counts. Where a backup
    /// was put in the store's place, start the router anew under that generation.
    #[error("the store is in generation {}, this router is for {}", .store.0, .router.0)]
    OtherStore {
        /// The router's.
        router: Generation,
        /// The store's.
        store: Generation,
    },
    /// The configuration before may still do something: too few of its seats know the present one, or are lost. It ends
    /// once this node is back; if its disk is gone for good, by [`crate::Router::lost`].
    #[error(
        "not settled: {told} of {needed} seats of the configuration before know of this one; waits for {node} \
         ({incarnation}) and {others} more: bring it back, or declare it lost"
    )]
    Unsettled {
        /// Seats whose gates know the row, that are lost, or that were empty.
        told: u32,
        /// N − W + 1.
        needed: u32,
        /// The first node that has not said so.
        node: NodeId,
        /// In that life of its disk.
        incarnation: Incarnation,
        /// How many more there are.
        others: u32,
    },
    /// Busy: another router has the repository for a write; it is left alone so long, and two polls more.
    #[error("busy: {holder} writes, for {ms} ms at most")]
    Leased {
        /// The router.
        holder: RouterId,
        /// Milliseconds from when its grant was first seen here.
        ms: u64,
    },
    /// No write is granted for a while, so that a member that copies never bring up to date catches up.
    #[error("held for {ms} ms: a member is {lag} versions behind after {rounds} copies")]
    Held {
        /// Copies that were overtaken.
        rounds: u32,
        /// How many versions the member was behind.
        lag: u64,
        /// Milliseconds at most.
        ms: u64,
    },
    /// Another router waits, and goes first.
    #[error("busy: another router goes first, for {ms} ms at most")]
    Yielding {
        /// Milliseconds left.
        ms: u64,
    },
    /// Two states have equal claim to be the newest. An operator decides.
    #[error("{one} and {other} have equal claim")]
    Undecided {
        /// The one.
        one: Stamp,
        /// The other.
        other: Stamp,
    },
}

impl Reason {
    /// The stable number of this reason.
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

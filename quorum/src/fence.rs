//! The gate: each node's record per repository, and the only judge of what the node admits.
//!
//! A gate is a value. Each method answers with the gate to *persist*; only then may the node act on it. A node that
//! keeps its gate on disk and asks it before every read, vote and copy cannot be talked into anything by a late, a
//! repeated or a paused message: no clock is in it. The gate keeps the newest row that it was shown, too: should the
//! store come back from a backup, the gates know what it has forgotten.

use crate::error::GateRefusal;
use crate::id::{Boot, Digest, Fence, Generation, Incarnation, NodeId, RepoId, Revision, Stamp, Version};
use crate::read::{Route, Token};
use crate::row::{Proof, Row, RowState};

/// A vote: a write that is durable on a node, but neither visible to readers nor applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Staged {
    /// The fence of the grant that the write was staged under.
    pub fence: Fence,
    /// The configuration of that grant.
    pub revision: Revision,
    /// The state that the write leads to.
    pub stamp: Stamp,
}

/// An order to stage a write, from the node that holds the grant to every member, itself included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StageOrder {
    /// The row that granted the write; its `newest` is the state that the write goes on from.
    pub base: Row,
    /// The digest of the state after the write.
    pub digest: Digest,
}

impl StageOrder {
    /// The state that the write leads to.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        self.base.newest.next(self.digest)
    }
}

/// A node's report on one repository: its gate, read out.
///
/// A `staged` record in a report *is* the node's vote: it attests that objects and ref record are durable there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a report is for the router: `Router::handle_report`"]
pub struct Report {
    /// The repository that the report is about.
    pub repo: RepoId,
    /// The node that reports.
    pub node: NodeId,
    /// The life of the node's disk.
    pub incarnation: Incarnation,
    /// The last start of the node that the gate was told of ([`FenceGate::started`]).
    #[cfg_attr(feature = "serde", serde(default))]
    pub boot: Boot,
    /// The serial at the beginning of that boot: below what was heard before, the disk went back in time.
    #[cfg_attr(feature = "serde", serde(default))]
    pub began: u64,
    /// The number of changes of the gate in that life of the disk. It puts a node's reports in order.
    pub serial: u64,
    /// Whether the disk was found to have gone back in time: the gate gives no vote and no promise until it is cured
    /// ([`crate::Effect::Cure`]).
    #[cfg_attr(feature = "serde", serde(default))]
    pub rewound: bool,
    /// The state that readers see.
    pub applied: Stamp,
    /// The vote, if one is open.
    pub staged: Option<Staged>,
    /// The life of the store that the gate has promised itself to: messages of an earlier life are refused.
    pub generation: Generation,
    /// The highest fence that the gate was raised to.
    pub fence: Fence,
    /// The version that the row had when that fence was first shown to the gate.
    pub base: Version,
    /// The newest configuration that the gate was shown. The gate keeps it with its members.
    pub revision: Revision,
}

impl Report {
    /// The states that the node holds: what it has applied, and what it voted for.
    pub(crate) fn held(&self) -> impl Iterator<Item = Stamp> {
        [Some(self.applied), self.staged.map(|staged| staged.stamp)].into_iter().flatten()
    }

    /// Whether the gate has persisted the configuration of `row`, or a later one.
    pub(crate) fn knows(&self, row: &Row) -> bool {
        (self.fence.generation, self.revision) >= (row.fence.generation, row.revision)
    }

    /// Whether the node knows of what is later than `row`.
    pub(crate) fn is_beyond(&self, row: &Row) -> bool {
        let life = row.fence.generation;
        if self.applied.is_beyond(row.newest) || self.generation > life {
            return true;
        }
        // Configurations are counted anew where a store that forgot some was recovered.
        let later = self.fence.counter > row.fence.counter || self.revision > row.revision;
        self.fence.generation > life || (self.fence.generation == life && later)
    }
}

/// A gate's answer to a read that it admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[must_use]
pub enum Admission {
    /// Serve the read.
    Serve,
    /// Apply the staged write first ([`FenceGate::apply`]), then serve: the read proves that the write was committed.
    ApplyFirst,
}

/// One node's gate for one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "persist the gate before acting on it"]
pub struct FenceGate {
    pub(crate) report: Report,
    /// The newest row that it was shown.
    pub(crate) row: Option<Row>,
}

impl FenceGate {
    /// The gate of a node that holds nothing of `repo`.
    ///
    /// ```
    /// use tenon_quorum::{FenceGate, Incarnation, NodeId, RepoId, Stamp};
    ///
    /// let gate = FenceGate::new(RepoId(7), NodeId(1), Incarnation(1));
    /// assert_eq!((gate.applied(), gate.staged()), (Stamp::BLANK, None));
    /// ```
    pub const fn new(repo: RepoId, node: NodeId, incarnation: Incarnation) -> Self {
        let generation = Generation(0);
        let fence = Fence { generation, counter: 0 };
        let report = Report {
            repo,
            node,
            incarnation,
            boot: Boot { store: generation, counter: 0 },
            began: 0,
            serial: 0,
            rewound: false,
            applied: Stamp::BLANK,
            staged: None,
            generation,
            fence,
            base: Version(0),
            revision: Revision(0),
        };
        Self { report, row: None }
    }

    /// The report to send to the router. Send only reports of a gate that is persisted.
    pub const fn report(&self) -> Report {
        self.report
    }

    /// The state that readers see.
    #[must_use]
    pub const fn applied(&self) -> Stamp {
        self.report.applied
    }

    /// The newest row that the gate was shown: what it knows of the configuration.
    #[must_use]
    pub const fn row(&self) -> Option<&Row> {
        self.row.as_ref()
    }

    /// The open vote.
    #[must_use]
    pub const fn staged(&self) -> Option<Staged> {
        self.report.staged
    }

    /// Whether the staged write is the one that `proof` shows as committed: make it visible, then [`Self::apply`].
    #[must_use]
    pub fn proves_staged(&self, proof: &Proof) -> bool {
        // A gate that lost its state keeps the vote, but what it builds on must be copied back first.
        let is_it = |staged: Staged| staged.stamp == proof.newest && follows(&staged, self.report.applied);
        self.report.staged.is_some_and(is_it) && !self.is_only_decided(proof)
    }

    /// Whether what `proof` shows is decided on in a recovery, and not yet to be acted on.
    fn is_only_decided(&self, proof: &Proof) -> bool {
        let decided = |row: &Row| row.state == RowState::Decided && row.newest == proof.newest;
        self.row.as_ref().is_some_and(decided)
    }

    /// Raises the gate to `row` and keeps the row.
    ///
    /// A vote that the row shows to be dead is dropped: its fence is older, and the row did not take it.
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was, if the row is of another repository, or older than the gate.
    pub fn raise(&self, row: &Row) -> Result<Self, GateRefusal> {
        let mut next = self.raised(&row.proof())?;
        next.revision = row.revision;
        let newer = self.row.as_ref().is_none_or(|old| old.order() < row.order());
        let row = if newer { Some(row) } else { self.row.as_ref() };
        Ok(self.changed(next, row.cloned()))
    }

    /// Raises the gate ([`Self::raise`]), then applies the open vote ([`Self::apply`]) if the row proves it.
    ///
    /// For a host whose readers see whatever the gate says is applied (contents kept by their digest, say). Other hosts
    /// raise, make the write visible, then apply.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn show(&self, row: &Row) -> Result<Self, GateRefusal> {
        let raised = self.raise(row)?;
        if raised.proves_staged(&row.proof()) { raised.apply(&row.proof()) } else { Ok(raised) }
    }

    /// Admits a read ([`Self::admit_read`]), applying the staged write first ([`Self::apply`]) where the read proves
    /// it.
    ///
    /// Returns the gate to persist before the read is served. For the same hosts as [`Self::show`].
    ///
    /// # Errors
    /// As [`Self::admit_read`].
    pub fn serve(&self, route: &Route) -> Result<Self, GateRefusal> {
        match self.admit_read(route)? {
            Admission::Serve => Ok(self.clone()),
            Admission::ApplyFirst => self.apply(&route.proof),
        }
    }

    /// Promises that the gate admits nothing from a life of the store before `generation`.
    ///
    /// Used in the recovery of a store that was restored from a backup. Persist the gate, then tell it whole:
    /// [`crate::Router::handle_promise`].
    ///
    /// ```
    /// use tenon_quorum::{FenceGate, GateRefusal, Generation, Incarnation, NodeId, RepoId};
    ///
    /// let gate = FenceGate::new(RepoId(7), NodeId(1), Incarnation(1));
    /// let promised = gate.promise(Generation(2))?; // persist, then tell the router
    /// assert_eq!(promised.report().generation, Generation(2));
    /// assert!(promised.promise(Generation(1)).is_err());
    /// # Ok::<(), GateRefusal>(())
    /// ```
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was, if it has promised itself to a later life, or its disk went back in time.
    pub fn promise(&self, generation: Generation) -> Result<Self, GateRefusal> {
        if generation < self.report.generation {
            return Err(GateRefusal::StaleGeneration { gate: self.report.generation });
        }
        if self.report.rewound {
            return Err(GateRefusal::Rewound);
        }
        Ok(self.changed(Report { generation, ..self.report }, self.row.clone()))
    }

    /// Raises the gate and stages a write, in one value to persist.
    ///
    /// Call it once objects and ref record are durable, and report the gate once it is persisted too: that report is
    /// the vote.
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was: the order is older than the gate, the node has not applied exactly
    /// the state that the write goes on from, or it voted otherwise under this very fence.
    pub fn stage(&self, order: &StageOrder) -> Result<Self, GateRefusal> {
        let raised = self.raise(&order.base)?;
        let mut next = raised.report;
        if next.rewound {
            return Err(GateRefusal::Rewound);
        }
        if next.applied != order.base.newest {
            return Err(raised.behind(&order.base.proof()));
        }
        let vote = Staged { fence: order.base.fence, revision: order.base.revision, stamp: order.stamp() };
        if let Some(old) = next.staged.filter(|old| old.fence >= vote.fence && *old != vote) {
            return Err(GateRefusal::VotedOtherwise { staged: old.stamp });
        }
        next.staged = Some(vote);
        Ok(self.changed(next, raised.row))
    }

    /// Decides whether this node may serve a routed read.
    ///
    /// There is nothing to persist: a read changes nothing that a fence guards, so a read that knows of a higher fence
    /// does not raise the gate.
    ///
    /// # Errors
    /// [`GateRefusal`]: the route is older than the gate, meant for another life of the disk, or must see what the
    /// node has not applied. Send the report back with the refusal: the router learns from it.
    pub fn admit_read(&self, route: &Route) -> Result<Admission, GateRefusal> {
        let (mine, proof) = (&self.report, &route.proof);
        if route.node != mine.node || route.incarnation != mine.incarnation {
            return Err(GateRefusal::OtherIncarnation { mine: mine.incarnation });
        }
        self.not_older(proof)?;
        if mine.rewound {
            return Err(GateRefusal::Rewound);
        }
        if mine.applied == proof.newest {
            return Ok(Admission::Serve);
        }
        if self.proves_staged(proof) {
            return Ok(Admission::ApplyFirst);
        }
        // What is applied was committed: a later state of the same lineage holds all that must be seen.
        if mine.applied.epoch == proof.newest.epoch && mine.applied.version > proof.newest.version {
            return Ok(Admission::Serve);
        }
        Err(self.behind(proof))
    }

    /// Makes the staged write the node's state, on proof that it was committed.
    ///
    /// Call it once readers can see the write (or will, before any read is admitted). For a write that is applied
    /// already it changes nothing.
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was: the proof is older than the gate, or is not of the staged write.
    pub fn apply(&self, proof: &Proof) -> Result<Self, GateRefusal> {
        let mut next = self.raised(proof)?;
        if next.applied != proof.newest {
            if !self.proves_staged(proof) {
                return Err(self.behind(proof));
            }
            (next.applied, next.staged) = (proof.newest, None);
        }
        Ok(self.changed(next, self.row.clone()))
    }

    /// Takes over a copy of exactly the state that `proof` shows as committed.
    ///
    /// The copy comes from another node or (for a new lineage) from nothing. [`Self::raise`] to the row *before*
    /// copying; call this once the copy is durable. For a state that is applied already it changes nothing, and a vote
    /// beyond it stays.
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was: the gate was not raised first, or the copy would take the node back
    /// or over to another history.
    pub fn install(&self, proof: &Proof) -> Result<Self, GateRefusal> {
        let mine = self.report;
        if proof.repo != mine.repo {
            return Err(GateRefusal::OtherRepository { mine: mine.repo });
        }
        if proof.fence.generation < mine.generation {
            return Err(GateRefusal::StaleGeneration { gate: mine.generation });
        }
        // A fence that rose meanwhile does not make committed history wrong; another generation might.
        if mine.fence < proof.fence || mine.revision < proof.revision || mine.fence.generation != proof.fence.generation
        {
            return Err(GateRefusal::NotRaised { fence: mine.fence });
        }
        if mine.applied == proof.newest {
            return Ok(self.clone());
        }
        if self.is_only_decided(proof) {
            return Err(GateRefusal::NotRaised { fence: mine.fence });
        }
        let (from, to) = (mine.applied, proof.newest);
        if from.epoch > to.epoch || from.version > to.version {
            return Err(GateRefusal::Downgrade { applied: from });
        }
        if from.version == to.version && from != Stamp::BLANK {
            return Err(GateRefusal::Divergent { applied: from });
        }
        // A vote is for the version after the applied one, so the copy is at it or beyond it; unless that was lost.
        let staged = mine.staged.filter(|staged| follows(staged, to));
        Ok(self.changed(Report { applied: to, staged, ..mine }, self.row.clone()))
    }

    /// The token for a caller that this gate served under `proof`.
    ///
    /// It names the applied state, which may be later than the one that the proof shows. Take it from the gate that
    /// served, after [`Self::admit_read`] or [`Self::serve`].
    #[must_use]
    pub fn token(&self, proof: &Proof) -> Token {
        let Stamp { epoch, version, .. } = self.report.applied;
        Token { generation: self.report.fence.generation.max(proof.fence.generation), epoch, version }
    }

    /// Records that the node holds nothing of the repository any more, because `row` does not name it.
    ///
    /// Persist the gate *before* the data is thrown away. From then on the gate serves no read, whatever an old router
    /// sends; fences are not forgotten.
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was: the row is older than the gate, or names this disk as a member.
    pub fn discard(&self, row: &Row) -> Result<Self, GateRefusal> {
        let raised = self.raise(row)?;
        let newest = raised.row.as_ref().unwrap_or(row);
        if newest.member_in(self.report.node, self.report.incarnation).is_some() {
            return Err(GateRefusal::IsMember { revision: newest.revision });
        }
        let next = Report { applied: Stamp::BLANK, staged: None, ..raised.report };
        Ok(raised.changed(next, raised.row.clone()))
    }

    /// Records that the node does not hold the data that its gate names: its disk was tampered with, or a copy is to be
    /// made anew.
    ///
    /// The gate holds nothing until [`Self::install`]. Fences and an open vote are not forgotten (the vote's record is
    /// durable apart), and the serial goes on, so that the router takes the report for new.
    pub fn lost(&self) -> Self {
        self.changed(Report { applied: Stamp::BLANK, ..self.report }, self.row.clone())
    }

    pub(crate) fn changed(&self, next: Report, row: Option<Row>) -> Self {
        let more = u64::from(next != self.report);
        Self { report: Report { serial: self.report.serial.saturating_add(more), ..next }, row }
    }

    /// The gate's report once it stands at `proof`. Only a whole row makes it know a configuration.
    fn raised(&self, proof: &Proof) -> Result<Report, GateRefusal> {
        self.not_older(proof)?;
        let mut next = self.report;
        if proof.fence.generation > next.fence.generation {
            next.generation = proof.fence.generation;
            next.revision = Revision(0);
        }
        if proof.fence > next.fence {
            next.fence = proof.fence;
            next.base = proof.newest.version;
        }
        // The same state in a later lineage: nothing to copy.
        if next.applied.digest == proof.newest.digest && is_older_lineage(next.applied, proof) {
            next.applied = proof.newest;
        }
        next.staged = next.staged.filter(|staged| !is_dead(staged, proof));
        Ok(next)
    }

    fn not_older(&self, proof: &Proof) -> Result<(), GateRefusal> {
        if proof.repo != self.report.repo {
            return Err(GateRefusal::OtherRepository { mine: self.report.repo });
        }
        if proof.fence.generation < self.report.generation {
            return Err(GateRefusal::StaleGeneration { gate: self.report.generation });
        }
        if proof.fence < self.report.fence {
            return Err(GateRefusal::StaleFence { gate: self.report.fence });
        }
        let same_life = proof.fence.generation == self.report.fence.generation;
        if same_life && proof.revision < self.report.revision {
            return Err(GateRefusal::StaleRevision { gate: self.report.revision });
        }
        Ok(())
    }

    /// The refusal for a node that has not applied `proof.newest`.
    fn behind(&self, proof: &Proof) -> GateRefusal {
        let applied = self.report.applied;
        if self.proves_staged(proof) {
            return GateRefusal::ApplyFirst;
        }
        if applied.version == proof.newest.version && applied != Stamp::BLANK {
            return GateRefusal::Divergent { applied };
        }
        GateRefusal::NotApplied { applied }
    }
}

fn is_older_lineage(applied: Stamp, proof: &Proof) -> bool {
    applied != Stamp::BLANK && applied.epoch < proof.newest.epoch && applied.version <= proof.newest.version
}

/// Whether the vote is for the version right after `applied`.
fn follows(staged: &Staged, applied: Stamp) -> bool {
    (staged.stamp.epoch, staged.stamp.version) == (applied.epoch, applied.version.next())
}

/// Whether the row that `proof` was read from rules the vote out for ever: it holds a later fence, and did not take
/// the vote. (A vote for a version that the row has long passed may have been committed: it stays until a copy
/// replaces it.)
fn is_dead(staged: &Staged, proof: &Proof) -> bool {
    staged.fence < proof.fence
        && staged.stamp != proof.newest
        && (staged.stamp.version >= proof.newest.version || staged.stamp.epoch != proof.newest.epoch)
}

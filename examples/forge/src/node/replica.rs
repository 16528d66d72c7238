//! One repository on this node: its gate, its refs as the log has them, and its folder as Git has it.
//!
//! Three locks, always taken in this order, so that nobody waits in a circle:
//! *turn* (one push, apply, repair at a time: whoever makes refs move), *refs* (moving refs against listing them for a client),
//! *state* (gate and refs in memory; held while the gate is persisted, so that memory never runs ahead of the disk).
//! A vote takes only the last: it comes in while the push that it is for holds the first.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tenon_quorum::{
    Admission, Digest, Fence, FenceGate, GateRefusal, Generation, Proof, RepoId, Report, Route, Row, StageOrder, Stamp,
};
use tenon_refslog::{Change, Mode, ObjectId, Record, Refs, Segment, Value, Version};
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard, RwLock, watch};

use super::Shared;
use super::db::{DbError, KeptVote};
use super::drill::Point;
use super::listing;
use super::parcels::Parcels;
use super::wants::{Fetches, Reached};
use crate::git::objects::{self, ObjectFolders};
use crate::git::{GitError, refs as git_refs, repository};
use crate::wire::{self, ParcelId};

/// Why a replica did not do what it was asked. Where nothing else is said, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    /// The gate, or the state behind it, does not allow it: the router should hear how the node stands.
    #[error("{0}")]
    Gate(#[from] GateRefusal),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The right to move refs in one repository; whoever has it is alone in that.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// What the node knows of the repository, in step with its disk.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) gate: FenceGate,
    /// What the open vote is for.
    staged: Option<Vote>,
    /// The refs at `gate.applied()`; empty and of no meaning while that is blank.
    pub(crate) refs: Refs,
}

/// What a vote is for: a record, and where its objects are until it is proven.
#[derive(Debug, Clone)]
struct Vote {
    record: Record,
    frame: Bytes,
    parcel: Option<ParcelId>,
}

impl State {
    /// The parcel of the open vote.
    pub(crate) fn parcel(&self) -> Option<&ParcelId> {
        self.staged.as_ref()?.parcel.as_ref()
    }
}

/// An open repository.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: RepoId,
    pub(crate) folder: PathBuf,
    shared: Arc<Shared>,
    turn: Arc<Mutex<()>>,
    making: Mutex<()>,
    /// One at a time packs anew what is here.
    pub(crate) packing: Mutex<()>,
    pub(crate) parcels: Parcels,
    /// How often unreachable objects were swept out.
    pub(crate) sweeps: AtomicU64,
    /// Held while a vote is cast on what was found to be here, and alone while objects go.
    pub(crate) sweeping: RwLock<()>,
    pub(crate) fetches: Fetches,
    pub(crate) reached: Reached,
    pub(crate) refs_lock: RwLock<()>,
    state: Mutex<State>,
    fence: watch::Sender<Fence>,
}

impl Replica {
    /// Opens a repository: frees it of what killed Git processes left, and finds out whether its refs are what its gate says.
    ///
    /// No Git process may be at work in it. If the refs are neither what is applied nor on the way from there to what is staged, the
    /// gate says from now on that the node holds nothing, until a repair.
    pub(crate) async fn open(shared: Arc<Shared>, id: RepoId) -> Result<Replica, ReplicaError> {
        let folder = shared.repository_folder(id);
        let kept = shared.db.load(id).await?;
        let (mut gate, vote) = match kept {
            Some(kept) => (kept.gate, kept.vote),
            None => (FenceGate::new(id, shared.node, shared.db.incarnation()), None),
        };
        gate = gate.started(&shared.db.disk());
        let staged = match vote {
            Some(vote) => {
                let frame = Bytes::from(vote.record);
                Some(Vote { record: decode(&frame)?, frame, parcel: vote.parcel })
            }
            None => None,
        };
        let parcels = Parcels::of(&folder);
        parcels.clean(staged.as_ref().and_then(|vote| vote.parcel.as_ref()))?;
        let refs = if gate.applied() == Stamp::BLANK {
            None
        } else if gate.applied().digest == Digest::TOMBSTONE {
            repository::remove(&folder)?;
            Some(shared.empty(id, gate.applied()))
        } else if folder.join("HEAD").is_file() {
            let gone = repository::clean(&folder)?;
            if !gone.is_empty() {
                tracing::info!(%id, ?gone, "removed what killed processes left");
            }
            if repository::settle_config(&folder)? == repository::Settled::PutBack {
                tracing::warn!(%id, "the repository's config had been changed; it is as made again");
            }
            listing::sound(&shared, id, &folder, gate.applied(), staged.as_ref().map(|vote| &vote.record)).await?
        } else {
            None
        };
        let blank = shared.empty(id, Stamp::BLANK);
        let refs = match refs {
            Some(refs) => refs,
            None if gate.applied() == Stamp::BLANK => blank,
            None => {
                tracing::error!(%id, applied = %gate.applied(), "the refs are not what the gate says; waiting for a repair");
                gate = gate.lost();
                shared.db.keep(id, &gate, staged.as_ref().map(Vote::kept)).await?;
                blank
            }
        };
        let fence = watch::Sender::new(gate.report().fence);
        let state = State { gate, staged, refs };
        Ok(Replica {
            id,
            folder,
            shared,
            turn: Arc::default(),
            making: Mutex::default(),
            packing: Mutex::default(),
            parcels,
            sweeps: AtomicU64::new(0),
            sweeping: RwLock::new(()),
            fetches: Fetches::default(),
            reached: Reached::default(),
            refs_lock: RwLock::new(()),
            state: Mutex::new(state),
            fence,
        })
    }

    /// The fence of the gate, for whoever works under an older one.
    pub(crate) fn fence(&self) -> watch::Receiver<Fence> {
        self.fence.subscribe()
    }

    /// Waits for the right to move refs.
    pub(crate) async fn turn(&self) -> Turn {
        Arc::clone(&self.turn).lock_owned().await
    }

    pub(crate) async fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    pub(crate) async fn report(&self) -> Report {
        self.state().await.gate.report()
    }

    /// Shows a row to the gate: it raises itself, and a vote that the row proves is applied.
    pub(crate) async fn settle(&self, row: &Row) -> Result<Report, ReplicaError> {
        let proven = self.raise(row).await?;
        if proven {
            let turn = self.turn().await;
            self.apply_staged(&turn, &row.proof()).await?;
        }
        Ok(self.report().await)
    }

    /// Raises the gate; tells whether the row proves the open vote, which is then still to be applied.
    pub(crate) async fn raise(&self, row: &Row) -> Result<bool, ReplicaError> {
        let mut state = self.state().await;
        let gate = state.gate.raise(row)?;
        self.keep(&mut state, gate, None).await?;
        Ok(state.gate.proves_staged(&row.proof()))
    }

    /// Promises that nothing of an earlier life of the store will be admitted; the gate is on disk once this returns.
    pub(crate) async fn promise(&self, generation: Generation) -> Result<FenceGate, ReplicaError> {
        let mut state = self.state().await;
        let gate = state.gate.promise(generation)?;
        self.keep(&mut state, gate, None).await?;
        Ok(state.gate.clone())
    }

    /// The disk went back in time, and is good again: the router says so, for a row whose fence it raised since.
    pub(crate) async fn cure(&self, ask: &wire::CureAsk) -> Result<Report, ReplicaError> {
        let mut state = self.state().await;
        let gate = state.gate.cure(&ask.row, ask.boot, ask.serial)?;
        self.keep(&mut state, gate, None).await?;
        Ok(state.gate.report())
    }

    /// Whether a routed read may be served here; a vote that the route proves is applied before.
    pub(crate) async fn admit(&self, route: &Route) -> Result<(), ReplicaError> {
        let admission = self.state().await.gate.admit_read(route)?;
        match admission {
            Admission::Serve => Ok(()),
            Admission::ApplyFirst => {
                let turn = self.turn().await;
                self.apply_staged(&turn, &route.proof).await?;
                drop(turn);
                match self.state().await.gate.admit_read(route)? {
                    Admission::Serve => Ok(()),
                    Admission::ApplyFirst => Err(GateRefusal::ApplyFirst.into()),
                }
            }
        }
    }

    /// Votes for a record: its objects are here with all they need, it leads to the digest that is claimed, and both record and gate
    /// are on disk once this returns.
    pub(crate) async fn stage(
        &self,
        order: &StageOrder,
        frame: Bytes,
        parcel: Option<ParcelId>,
    ) -> Result<Report, ReplicaError> {
        // The state that the vote builds on may itself be a vote so far: the order proves it.
        let _before = self.settle(&order.base).await?;
        let record = decode(&frame)?;
        self.arrived(parcel.as_ref()).await;
        let _nothing_is_swept = self.sweeping.read().await;
        self.has_objects_of(&record, parcel.as_ref()).await?;
        let mut state = self.state().await;
        let gate = state.gate.stage(order)?;
        if state.gate.staged() == gate.staged() {
            // The same vote again.
            self.keep(&mut state, gate, None).await?;
            return Ok(state.gate.report());
        }
        leads_to(&state.refs, &record, order.stamp(), wire::lineage(self.id, order.base.newest.epoch))?;
        self.keep(&mut state, gate, Some(Vote { record, frame, parcel })).await?;
        let report = state.gate.report();
        drop(state);
        self.shared.drills.at(Point::AfterStage).await;
        Ok(report)
    }

    /// Takes over the record that `row` shows as committed, voted for or not.
    pub(crate) async fn apply(
        &self,
        row: &Row,
        frame: Bytes,
        parcel: Option<ParcelId>,
    ) -> Result<Report, ReplicaError> {
        let report = self.settle(row).await?;
        if report.applied == row.newest {
            return Ok(report);
        }
        let record = decode(&frame)?;
        self.arrived(parcel.as_ref()).await;
        self.has_objects_of(&record, parcel.as_ref()).await?;
        let turn = self.turn().await;
        self.take_over(&turn, &row.proof(), &record, parcel.as_ref()).await?;
        Ok(self.report().await)
    }

    /// Moves the refs by a record that `proof` shows as committed; the parcel's objects become the repository's before. Any vote
    /// is passed over.
    pub(crate) async fn take_over(
        &self,
        turn: &Turn,
        proof: &Proof,
        record: &Record,
        parcel: Option<&ParcelId>,
    ) -> Result<(), ReplicaError> {
        let state = self.state().await;
        if state.gate.applied() == proof.newest {
            return Ok(());
        }
        leads_to(&state.refs, record, proof.newest, wire::lineage(self.id, proof.newest.epoch))?;
        drop(state);
        self.adopt(record, parcel).await?;
        self.move_refs(turn, record.forward_only().changes()).await?;
        self.has_moved(proof, record).await
    }

    /// Applies the open vote if `proof` shows it as committed.
    async fn apply_staged(&self, turn: &Turn, proof: &Proof) -> Result<(), ReplicaError> {
        let state = self.state().await;
        let vote = match &state.staged {
            Some(vote) if state.gate.proves_staged(proof) => vote.clone(),
            _ => return Ok(()),
        };
        drop(state);
        self.take_over(turn, proof, &vote.record, vote.parcel.as_ref()).await
    }

    /// Makes the objects of a parcel the repository's own: what is committed needs them. Refs never move to what is not here.
    pub(crate) async fn adopt(&self, record: &Record, parcel: Option<&ParcelId>) -> Result<(), ReplicaError> {
        let Some(parcel) = parcel else { return Ok(()) };
        if !self.parcels.folder(parcel).is_dir() {
            return self.has_objects_of(record, None).await;
        }
        objects::adopt(&self.folder, &self.parcels.folder(parcel)).await?;
        Ok(self.parcels.remove(parcel)?)
    }

    /// The refs in the repository have moved by `record`; now the gate says so too.
    pub(crate) async fn has_moved(&self, proof: &Proof, record: &Record) -> Result<(), ReplicaError> {
        let mut state = self.state().await;
        if state.gate.applied() == proof.newest {
            return Ok(());
        }
        let gate = match state.gate.apply(proof) {
            Ok(gate) => gate,
            // Not voted for here, or a later write raised the gate meanwhile: what was committed stays committed.
            Err(_) => state.gate.install(proof)?,
        };
        self.keep(&mut state, gate, None).await?;
        state.refs.apply(record).map_err(|error| ReplicaError::Refused(error.to_string()))?;
        Ok(())
    }

    /// Moves refs in the repository, whatever they are now.
    async fn move_refs(&self, _turn: &Turn, changes: &[Change]) -> Result<(), ReplicaError> {
        let _alone = self.refs_lock.write().await;
        let moved = git_refs::carry_out(&self.shared.git, &self.folder, changes).await;
        let Err(error @ GitError::Failed { .. }) = moved else { return Ok(moved?) };
        // Perhaps a Git that was killed stands in the way.
        let mut gone = Vec::new();
        repository::unlock(&self.folder, &mut gone)?;
        if gone.is_empty() {
            return Err(error.into());
        }
        tracing::warn!(id = %self.id, ?gone, "removed the locks of a killed git");
        Ok(git_refs::carry_out(&self.shared.git, &self.folder, changes).await?)
    }

    /// Becomes `refs`, which a repair has made of the log: the gate is persisted as having applied exactly that.
    pub(crate) async fn install(&self, proof: &Proof, refs: Refs) -> Result<Report, ReplicaError> {
        let mut state = self.state().await;
        let gate = state.gate.install(proof)?;
        self.keep(&mut state, gate, None).await?;
        state.refs = refs;
        Ok(state.gate.report())
    }

    /// The repository is found not to hold what its gate says: from now on the gate says so.
    pub(crate) async fn lose(&self) -> Result<Report, ReplicaError> {
        let mut state = self.state().await;
        let gate = state.gate.lost();
        self.keep(&mut state, gate, None).await?;
        state.refs = self.shared.empty(self.id, Stamp::BLANK);
        Ok(state.gate.report())
    }

    /// Whether what the record sets is here with all it needs: in the parcel that came for it, or in the repository.
    async fn has_objects_of(&self, record: &Record, parcel: Option<&ParcelId>) -> Result<(), ReplicaError> {
        let new: Vec<ObjectId> =
            record.changes().iter().filter_map(|change| change.new_value().and_then(Value::id)).collect();
        let sweeps = self.sweeps.load(Ordering::SeqCst);
        if parcel.is_some_and(|parcel| self.parcels.vouches(parcel, &new, sweeps)) {
            return Ok(());
        }
        let state = self.state().await;
        let vouched: BTreeSet<ObjectId> = state.refs.iter().filter_map(|(_, value)| Value::id(&value)).collect();
        drop(state);
        let unknown: Vec<ObjectId> = new.into_iter().filter(|id| !vouched.contains(id)).collect();
        self.make().await?;
        let folders = self.folders(parcel);
        match objects::connected(&self.shared.git, &self.folder, &folders, &unknown).await {
            Err(error @ GitError::Failed { .. }) => {
                Err(ReplicaError::Refused(format!("objects of the record are not here: {error}")))
            }
            other => Ok(other?),
        }
    }

    /// Waits for a parcel that is coming in.
    pub(crate) async fn arrived(&self, parcel: Option<&ParcelId>) {
        if let Some(parcel) = parcel {
            self.parcels.arrived(parcel).await;
        }
    }

    /// Where Git finds the objects of a push that is not decided yet.
    pub(crate) fn folders(&self, parcel: Option<&ParcelId>) -> ObjectFolders {
        let folder = parcel.map(|parcel| self.parcels.folder(parcel)).filter(|folder| folder.is_dir());
        folder.map_or_else(ObjectFolders::default, |folder| ObjectFolders::with_parcel(&self.folder, &folder))
    }

    /// Makes the bare repository if it is not there.
    pub(crate) async fn make(&self) -> Result<(), ReplicaError> {
        let _alone = self.making.lock().await;
        Ok(repository::make(&self.shared.git, &self.folder).await?)
    }

    /// Persists a gate, with a new vote's record or else with the one that is still open; then it is the node's gate.
    async fn keep(&self, state: &mut State, gate: FenceGate, vote: Option<Vote>) -> Result<(), ReplicaError> {
        let staged = if gate.staged().is_none() { None } else { vote.or_else(|| state.staged.clone()) };
        if gate != state.gate {
            self.shared.db.keep(self.id, &gate, staged.as_ref().map(Vote::kept)).await?;
        }
        let before = state.staged.as_ref().and_then(|vote| vote.parcel.as_ref());
        if let Some(before) =
            before.filter(|before| staged.as_ref().and_then(|vote| vote.parcel.as_ref()) != Some(before))
        {
            // Applied or passed over, its objects are in the repository or wanted by nobody.
            self.parcels.remove(before)?;
        }
        if gate.applied() != state.gate.applied() {
            self.shared.upkeep.note(self.id);
        }
        let fence = gate.report().fence;
        state.gate = gate;
        state.staged = staged;
        self.fence.send_if_modified(|seen| std::mem::replace(seen, fence) != fence);
        Ok(())
    }
}

impl Vote {
    fn kept(&self) -> KeptVote {
        KeptVote { record: self.frame.to_vec(), parcel: self.parcel.clone() }
    }
}

/// Whether `record` leads from `refs` to exactly `stamp`.
fn leads_to(refs: &Refs, record: &Record, stamp: Stamp, lineage: tenon_refslog::LineageId) -> Result<(), ReplicaError> {
    let after = record.after();
    if record.lineage() != lineage
        || after.version != Version(stamp.version.0)
        || after.checksum.prefix16() != stamp.digest.0
    {
        return Err(ReplicaError::Refused(format!("the record leads to version {}, not to {stamp}", after.version)));
    }
    let part = Segment::of_record(refs.point(), record, Mode::Cover)
        .map_err(|error| ReplicaError::Refused(error.to_string()))?;
    // Only asked, not carried out: a record is voted for long before it is applied, if it ever is.
    refs.pending(&part).map(drop).map_err(|error| ReplicaError::Refused(error.to_string()))
}

/// Reads a record's frame.
fn decode(frame: &Bytes) -> Result<Record, ReplicaError> {
    Record::decode(frame).map_err(|error| ReplicaError::Refused(format!("the record cannot be read: {error}")))
}

//! One repository on this node: its gate, its refs as the log has them, and its folder as Git has it.
//!
//! Three locks, always taken in this order, so that nobody waits in a circle:
//! *turn* (one push, apply, repair at a time: whoever makes refs move), *refs* (moving refs against listing them for a client),
//! *state* (gate and refs in memory; held while the gate is persisted, so that memory never runs ahead of the disk).
//! A vote takes only the last: it comes in while the push that it is for holds the first.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tenon_quorum::{
    Admission, Fence, FenceGate, GateRefusal, Generation, Proof, RepoId, Report, Route, Row, StageOrder, Stamp,
};
use tenon_refslog::{Change, Mode, ObjectId, Record, Refs, Segment, Value, Version};
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard, RwLock, watch};

use super::Shared;
use super::db::DbError;
use super::drill::Point;
use super::listing;
use crate::git::objects::{self, ObjectFolders};
use crate::git::{GitError, refs as git_refs, repository};
use crate::wire;

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
    /// The record of the open vote.
    staged: Option<(Record, Bytes)>,
    /// The refs at `gate.applied()`; empty and of no meaning while that is blank.
    pub(crate) refs: Refs,
    /// Objects known to be here with all they need, beyond what the refs vouch for.
    connected: Vec<ObjectId>,
}

/// An open repository.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: RepoId,
    pub(crate) folder: PathBuf,
    shared: Arc<Shared>,
    turn: Arc<Mutex<()>>,
    making: Mutex<()>,
    pub(crate) refs_lock: RwLock<()>,
    state: Mutex<State>,
    fence: watch::Sender<Fence>,
}

/// Enough to remember of packs that came in before their votes.
const CONNECTED_LIMIT: usize = 100_000;

impl Replica {
    /// Opens a repository: frees it of what killed Git processes left, and finds out whether its refs are what its gate says.
    ///
    /// No Git process may be at work in it. If the refs are neither what is applied nor on the way from there to what is staged, the
    /// gate says from now on that the node holds nothing, until a repair.
    pub(crate) async fn open(shared: Arc<Shared>, id: RepoId) -> Result<Replica, ReplicaError> {
        let folder = shared.repository_folder(id);
        let kept = shared.db.load(id).await?;
        let (mut gate, record) = match kept {
            Some(kept) => (kept.gate, kept.record),
            None => (FenceGate::new(id, shared.node, shared.db.incarnation()), None),
        };
        let staged = match record {
            Some(frame) => {
                let frame = Bytes::from(frame);
                Some((decode(&frame)?, frame))
            }
            None => None,
        };
        let refs = if gate.applied() == Stamp::BLANK {
            None
        } else if folder.join("HEAD").is_file() {
            let gone = repository::clean(&folder)?;
            if !gone.is_empty() {
                tracing::info!(%id, ?gone, "removed what killed processes left");
            }
            if repository::settle_config(&folder)? == repository::Settled::PutBack {
                tracing::warn!(%id, "the repository's config had been changed; it is as made again");
            }
            listing::sound(&shared, id, &folder, gate.applied(), staged.as_ref().map(|(record, _)| record)).await?
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
                shared.db.keep(id, &gate, staged.as_ref().map(|(_, frame)| frame.to_vec())).await?;
                blank
            }
        };
        let fence = watch::Sender::new(gate.report().fence);
        let state = State { gate, staged, refs, connected: Vec::new() };
        Ok(Replica {
            id,
            folder,
            shared,
            turn: Arc::default(),
            making: Mutex::default(),
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
    pub(crate) async fn stage(&self, order: &StageOrder, frame: Bytes) -> Result<Report, ReplicaError> {
        // The state that the vote builds on may itself be a vote so far: the order proves it.
        let _before = self.settle(&order.base).await?;
        let record = decode(&frame)?;
        self.has_objects_of(&record).await?;
        let mut state = self.state().await;
        let gate = state.gate.stage(order)?;
        if state.gate.staged() == gate.staged() {
            // The same vote again.
            self.keep(&mut state, gate, None).await?;
            return Ok(state.gate.report());
        }
        leads_to(&state.refs, &record, order.stamp(), wire::lineage(self.id, order.base.newest.epoch))?;
        self.keep(&mut state, gate, Some((record, frame))).await?;
        let report = state.gate.report();
        drop(state);
        self.shared.drills.at(Point::AfterStage).await;
        Ok(report)
    }

    /// Takes over the record that `row` shows as committed, voted for or not.
    pub(crate) async fn apply(&self, row: &Row, frame: Bytes) -> Result<Report, ReplicaError> {
        let report = self.settle(row).await?;
        if report.applied == row.newest {
            return Ok(report);
        }
        let record = decode(&frame)?;
        self.has_objects_of(&record).await?;
        let turn = self.turn().await;
        self.take_over(&turn, &row.proof(), &record).await?;
        Ok(self.report().await)
    }

    /// Moves the refs by a record that `proof` shows as committed. Any vote is passed over.
    pub(crate) async fn take_over(&self, turn: &Turn, proof: &Proof, record: &Record) -> Result<(), ReplicaError> {
        let state = self.state().await;
        if state.gate.applied() == proof.newest {
            return Ok(());
        }
        leads_to(&state.refs, record, proof.newest, wire::lineage(self.id, proof.newest.epoch))?;
        drop(state);
        self.move_refs(turn, record.forward_only().changes()).await?;
        self.has_moved(proof, record).await
    }

    /// Applies the open vote if `proof` shows it as committed.
    async fn apply_staged(&self, turn: &Turn, proof: &Proof) -> Result<(), ReplicaError> {
        let state = self.state().await;
        let record = match &state.staged {
            Some((record, _)) if state.gate.proves_staged(proof) => record.clone(),
            _ => return Ok(()),
        };
        drop(state);
        self.take_over(turn, proof, &record).await
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
        state.connected.clear();
        state.refs.apply(record).map_err(|error| ReplicaError::Refused(error.to_string()))?;
        Ok(())
    }

    /// Moves refs in the repository, whatever they are now.
    async fn move_refs(&self, _turn: &Turn, changes: &[Change]) -> Result<(), ReplicaError> {
        let _alone = self.refs_lock.write().await;
        Ok(git_refs::carry_out(&self.shared.git, &self.folder, changes).await?)
    }

    /// Becomes `refs`, which a repair has made of the log: the gate is persisted as having applied exactly that.
    pub(crate) async fn install(&self, proof: &Proof, refs: Refs) -> Result<Report, ReplicaError> {
        let mut state = self.state().await;
        let gate = state.gate.install(proof)?;
        self.keep(&mut state, gate, None).await?;
        state.refs = refs;
        state.connected.clear();
        Ok(state.gate.report())
    }

    /// The repository is found not to hold what its gate says: from now on the gate says so.
    pub(crate) async fn lose(&self) -> Result<Report, ReplicaError> {
        let mut state = self.state().await;
        let gate = state.gate.lost();
        self.keep(&mut state, gate, None).await?;
        state.refs = self.shared.empty(self.id, Stamp::BLANK);
        state.connected.clear();
        Ok(state.gate.report())
    }

    /// Remembers that these objects are here with all they need.
    pub(crate) async fn note_connected(&self, ids: &[ObjectId]) {
        let mut state = self.state().await;
        if state.connected.len() + ids.len() > CONNECTED_LIMIT {
            state.connected.clear();
        }
        state.connected.extend(ids.iter().copied().take(CONNECTED_LIMIT));
    }

    async fn has_objects_of(&self, record: &Record) -> Result<(), ReplicaError> {
        let new: Vec<ObjectId> =
            record.changes().iter().filter_map(|change| change.new_value().and_then(Value::id)).collect();
        let state = self.state().await;
        let unknown: Vec<ObjectId> = new.into_iter().filter(|id| !state.connected.contains(id)).collect();
        drop(state);
        self.make().await?;
        match objects::connected(&self.shared.git, &self.folder, &ObjectFolders::default(), &unknown).await {
            Err(error @ GitError::Failed { .. }) => {
                return Err(ReplicaError::Refused(format!("objects of the record are not here: {error}")));
            }
            other => other?,
        }
        self.note_connected(&unknown).await;
        Ok(())
    }

    /// Makes the bare repository if it is not there.
    pub(crate) async fn make(&self) -> Result<(), ReplicaError> {
        let _alone = self.making.lock().await;
        Ok(repository::make(&self.shared.git, &self.folder).await?)
    }

    /// Persists a gate, with a new vote's record or else with the one that is still open; then it is the node's gate.
    async fn keep(
        &self,
        state: &mut State,
        gate: FenceGate,
        vote: Option<(Record, Bytes)>,
    ) -> Result<(), ReplicaError> {
        let staged = if gate.staged().is_none() { None } else { vote.or_else(|| state.staged.clone()) };
        if gate != state.gate {
            self.shared.db.keep(self.id, &gate, staged.as_ref().map(|(_, frame)| frame.to_vec())).await?;
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

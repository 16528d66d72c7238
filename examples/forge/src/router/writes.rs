//! Writes: a place in the repository's queue, a grant, a proposal, an end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tenon_quorum::{
    Digest, GiveUp, Grant, NodeId, Outcome, Proof, Reason, Refusal, RepoId, RequestId, Row, StageOrder, WaitsFor,
    WriteId, WriteRequest,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::driver::{Driver, Proposal, Write, WriteState};
use super::nodes::{Answer, Life};
use super::store::Pipelines;
use crate::wire::{ParcelId, Propose, Proposed};

/// How long a push waits for nodes that lag or were not heard of yet, before it is refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an order to stage is sent to a node whose answer was lost.
const STAGE_ATTEMPTS: usize = 2;

/// The pushes that wait, one line per repository.
#[derive(Debug)]
pub(crate) struct Writes {
    driver: Arc<Driver>,
    lines: Mutex<BTreeMap<RepoId, Arc<Line>>>,
    longest: usize,
    wait: Duration,
    requests: AtomicU64,
}

#[derive(Debug, Default)]
struct Line {
    turn: Arc<tokio::sync::Mutex<()>>,
    length: AtomicUsize,
}

/// A place in a line; the line is forgotten with its last place.
#[derive(Debug)]
struct Place {
    writes: Arc<Writes>,
    repo: RepoId,
    line: Arc<Line>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.writes.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if self.line.length.fetch_sub(1, Ordering::Relaxed) == 1 {
            lines.remove(&self.repo);
        }
    }
}

/// A granted write. Dropped before its end it is given up: its client went away.
#[derive(Debug)]
pub(crate) struct Lease {
    held: Held,
    grant: Grant,
    _turn: Turn,
}

/// The right to be the only one that changes a repository's refs from here.
#[derive(Debug)]
pub(crate) struct Turn {
    _alone: tokio::sync::OwnedMutexGuard<()>,
    /// Given up last: whoever comes next stands in the same line.
    _place: Place,
}

/// How a write ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Applied,
    NotApplied,
    Unknown(Reason),
}

/// A write that somebody waits for.
#[derive(Debug)]
struct Held {
    driver: Arc<Driver>,
    write: WriteId,
    state: watch::Receiver<WriteState>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Writes {
    pub(crate) fn new(driver: Arc<Driver>, longest: usize, wait: Duration) -> Self {
        Self { driver, lines: Mutex::default(), longest, wait, requests: AtomicU64::new(1) }
    }

    /// Waits for this repository's turn, and for a grant.
    ///
    /// # Errors
    /// Why there is none, as the client is told.
    pub(crate) async fn begin(self: &Arc<Self>, repo: RepoId, pipelines: Pipelines) -> Result<Lease, String> {
        let end = Instant::now() + self.wait;
        let turn = self.hold(repo).await?;
        let patience = Instant::now() + PATIENCE;
        loop {
            let mut turns = self.driver.turns();
            let (refusal, until) = match self.ask(repo, pipelines) {
                Ok(mut held) => match held.granted().await {
                    Ok(grant) => return Ok(Lease { held, grant, _turn: turn }),
                    Err(reason) => (Refusal::from(reason), patience.min(end)),
                },
                Err(refusal @ Refusal { reason: Reason::Busy { .. } }) => (refusal, end),
                Err(refusal) => (refusal, patience.min(end)),
            };
            if !may_mend(&refusal.reason) || Instant::now() >= until {
                return Err(told(&self.driver, &refusal));
            }
            let _nothing_new = tokio::time::timeout_at(until, turns.changed()).await;
        }
    }

    /// Waits until no push is being decided in this repository; none is, as long as the answer lives.
    ///
    /// # Errors
    /// Others took too long.
    pub(crate) async fn hold(self: &Arc<Self>, repo: RepoId) -> Result<Turn, String> {
        let place = self.enter(repo)?;
        let alone = tokio::time::timeout(self.wait, Arc::clone(&place.line.turn).lock_owned()).await;
        let alone = alone.map_err(|_| format!("busy: other pushes took more than {} s", self.wait.as_secs()))?;
        Ok(Turn { _alone: alone, _place: place })
    }

    fn enter(self: &Arc<Self>, repo: RepoId) -> Result<Place, String> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Arc::clone(lines.entry(repo).or_default());
        // One of them does not wait.
        if line.length.load(Ordering::Relaxed) > self.longest {
            return Err(format!("busy: {} pushes wait already", self.longest));
        }
        line.length.fetch_add(1, Ordering::Relaxed);
        Ok(Place { writes: Arc::clone(self), repo, line })
    }

    fn ask(&self, repo: RepoId, pipelines: Pipelines) -> Result<Held, Refusal> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (write, state) = self.driver.ask(|core, now| {
            let write = core.router.begin_write(now, &WriteRequest::new(repo, request))?;
            let (sender, state) = watch::channel(WriteState::Waiting);
            core.writes
                .insert(write, Write { repo, state: sender, base: None, proposed: false, closed: false, pipelines });
            Ok::<_, Refusal>((write, state))
        })?;
        Ok(Held { driver: Arc::clone(&self.driver), write, state })
    }
}

impl Lease {
    pub(crate) fn node(&self) -> NodeId {
        self.grant.writer
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Gives the write up if it is not decided, and waits until it is known how it ended.
    pub(crate) async fn end(mut self) -> Ended {
        self.held.give_up();
        self.held.ended().await
    }

    /// Proposes in the writer's place: for changes that need no Git.
    pub(crate) async fn propose(&self, after: Digest, record: Bytes) -> Proposed {
        let ask = Propose { base: self.grant.base.proof(), after, parcel: None };
        propose(&self.held.driver, self.held.write, ask, record).await
    }
}

impl Held {
    async fn granted(&mut self) -> Result<Grant, Reason> {
        match &*self.decided(|state| !matches!(state, WriteState::Waiting)).await {
            WriteState::Granted(grant) => Ok(grant.clone()),
            WriteState::Ended(_, reason) => Err(*reason),
            WriteState::Waiting => Err(Reason::Aborted),
        }
    }

    async fn ended(&mut self) -> Ended {
        match &*self.decided(|state| matches!(state, WriteState::Ended(..))).await {
            WriteState::Ended(Outcome::Applied(_), _) => Ended::Applied,
            WriteState::Ended(Outcome::NotApplied, _) => Ended::NotApplied,
            WriteState::Ended(Outcome::Unknown, reason) => Ended::Unknown(*reason),
            // Nobody is left to say: the driver is gone.
            WriteState::Waiting | WriteState::Granted(_) => {
                Ended::Unknown(Reason::Deadline { waits_for: WaitsFor::Swap })
            }
        }
    }

    /// The core ends every write by its deadline; the wait needs no bound of its own.
    async fn decided(&mut self, is: impl FnMut(&WriteState) -> bool) -> watch::Ref<'_, WriteState> {
        drop(self.state.wait_for(is).await);
        self.state.borrow()
    }

    /// Nothing may be proposed from here on; the repository is free as soon as that is certain.
    fn give_up(&self) {
        let write = self.write;
        self.driver.tell(|core, now| {
            let Some(known) = core.writes.get_mut(&write).filter(|w| !w.closed) else { return };
            known.closed = true;
            let claim = if known.proposed { GiveUp::PerhapsStaged } else { GiveUp::NothingStaged };
            core.router.abort_write(now, write, claim);
        });
    }
}

/// A writer's node proposes its record: stage it everywhere, and answer how it ended. The same
/// question again waits for the same end.
pub(crate) async fn propose(driver: &Arc<Driver>, write: WriteId, ask: Propose, record: Bytes) -> Proposed {
    let opened = driver.ask(|core, _| core.open(write, &ask, &record));
    let (grant, mut state) = match opened {
        Opened::New(grant, state) => (Some(grant), state),
        Opened::Again(state) => (None, state),
        Opened::Never(reason) => return Proposed::NotApplied { reason },
    };
    if let Some(grant) = &grant {
        for member in &grant.base.members {
            let cargo = (record.clone(), ask.parcel.clone());
            tokio::spawn(stage(Arc::clone(driver), member.into(), grant.stage(ask.after), cargo));
        }
    }
    drop(state.wait_for(|state| matches!(state, WriteState::Ended(..))).await);
    let ended = state.borrow().clone();
    match ended {
        WriteState::Ended(Outcome::Applied(newest), _) => {
            let proof = Proof { newest, ..ask.base };
            if let Some(grant) = &grant {
                let row = Row { newest, lease: None, ..grant.base.clone() };
                for member in row.members.iter().filter(|member| member.node != grant.writer) {
                    let cargo = (record.clone(), ask.parcel.clone());
                    tokio::spawn(apply(Arc::clone(driver), member.into(), row.clone(), cargo));
                }
            }
            Proposed::Applied { proof }
        }
        WriteState::Ended(Outcome::NotApplied, reason) => Proposed::NotApplied { reason: driver.why(reason) },
        WriteState::Ended(Outcome::Unknown, reason) => Proposed::Unknown { reason: driver.why(reason) },
        WriteState::Waiting | WriteState::Granted(_) => Proposed::Unknown { reason: "the router ends".to_owned() },
    }
}

/// What a proposal finds.
enum Opened {
    New(Grant, watch::Receiver<WriteState>),
    Again(watch::Receiver<WriteState>),
    Never(String),
}

impl super::driver::Core {
    fn open(&mut self, write: WriteId, ask: &Propose, record: &Bytes) -> Opened {
        let Some(known) = self.writes.get_mut(&write) else {
            return Opened::Never(
                "the router does not know this write: it was given up, or the router was restarted".to_owned(),
            );
        };
        let state = known.state.subscribe();
        if known.proposed {
            return Opened::Again(state);
        }
        let granted = match &*state.borrow() {
            WriteState::Granted(grant) if grant.base.proof() == ask.base && !known.closed => Some(grant.clone()),
            WriteState::Granted(_) | WriteState::Waiting | WriteState::Ended(..) => None,
        };
        let Some(grant) = granted else { return Opened::Never("the grant has ended".to_owned()) };
        known.proposed = true;
        let proposal = Proposal { record: record.clone(), pipelines: known.pipelines };
        self.records.insert((known.repo, ask.base.fence), proposal);
        Opened::New(grant, state)
    }
}

/// A record, and where its objects are if they came with it.
type Cargo = (Bytes, Option<ParcelId>);

/// Has one node stage the record; its report is its vote.
async fn stage(driver: Arc<Driver>, to: Life, order: StageOrder, (record, parcel): Cargo) {
    let node = to.node;
    for _ in 0..STAGE_ATTEMPTS {
        match driver.nodes.stage(to, &order, &record, parcel.as_ref()).await {
            Ok(Answer::Report(report)) => return driver.tell_answer(node, None, Ok(Answer::Report(report))).await,
            Ok(Answer::Refused(refused)) => {
                tracing::warn!(%node, repo = %order.base.repo, "does not vote: {}", refused.reason);
                driver.tell_answer(node, None, Ok(Answer::Refused(refused))).await;
                break;
            }
            Err(e) => driver.node_failed(node, &e).await,
        }
    }
    let (repo, fence) = (order.base.repo, order.base.fence);
    driver.tell(|core, now| core.router.handle_declined(now, repo, node, fence));
}

/// Has one node make the committed record visible. If that fails, the next read does it.
async fn apply(driver: Arc<Driver>, to: Life, row: Row, (record, parcel): Cargo) {
    let answer = driver.nodes.apply(to, &row, &record, parcel.as_ref()).await;
    driver.tell_answer(to.node, None, answer).await;
}

/// Whether the next fact may turn the refusal into a grant.
fn may_mend(reason: &Reason) -> bool {
    // A node that is down stays down for longer than a client waits.
    if let Reason::TooFewVoters { tally, needed } = reason {
        return tally.voters - tally.down >= *needed;
    }
    matches!(reason, Reason::Busy { .. } | Reason::Overtaken { .. } | Reason::Contended { .. })
}

fn told(driver: &Driver, refusal: &Refusal) -> String {
    // Too few nodes are no matter of the store's disk, whatever its last write met.
    if matches!(refusal.reason, Reason::TooFewVoters { .. }) {
        format!("no quorum: {refusal}")
    } else {
        driver.why(refusal)
    }
}

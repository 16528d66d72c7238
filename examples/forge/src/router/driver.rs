//! The driver of the quorum core: asks it, does what it says, tells it what happened.
//!
//! The core stands behind one lock that is never held over I/O. Every input drains the effects it
//! led to; each is carried out by a task of its own, which tells the core what came of it. Who
//! waits for something (a read for a row, a push for its grant) sleeps until the next fact and
//! asks again.

mod effects;

pub(crate) use effects::{decode, pause_after};
#[cfg(test)]
pub(crate) use effects::{encode, feed_row};

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tenon_quorum::{
    ChangeId, Effect, Fence, Grant, Health, Incarnation, NodeId, NodeState, Outcome, Proof, Reason, Refusal, RepoId,
    Timestamp, WriteId,
};
use tokio::sync::{Notify, oneshot, watch};
use tracing::warn;

use super::http::DISK_FULL;
use super::nodes::Nodes;
use super::store::{Pipelines, Store, StoreError};

/// Ended writes whose answers are kept for a node that asks again.
const ANSWERS_KEPT: usize = 4096;
/// How often nodes are asked whether they are there.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// The core and everything that it speaks through.
#[derive(Debug)]
pub(crate) struct Driver {
    core: Mutex<Core>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) nodes: Nodes,
    /// Grows with every fact.
    turn: watch::Sender<u64>,
    /// The next deadline may be another.
    rewind: Notify,
    /// Swaps that failed one after another.
    failures: AtomicU32,
    /// Whether the last of them found the store's disk full.
    full: AtomicBool,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) router: tenon_quorum::Router,
    pub(crate) writes: BTreeMap<WriteId, Write>,
    ended: VecDeque<WriteId>,
    pub(crate) changes: BTreeMap<ChangeId, oneshot::Sender<Result<(), Reason>>>,
    /// The records of proposed writes, for the swap that commits them: by repository and fence.
    pub(crate) records: BTreeMap<(RepoId, Fence), Proposal>,
}

/// What a proposed write commits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proposal {
    pub(crate) record: Bytes,
    pub(crate) pipelines: Pipelines,
}

/// A write as its waiters see it.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) repo: RepoId,
    pub(crate) state: watch::Sender<WriteState>,
    /// What its grant was decided on, once there is one.
    pub(crate) base: Option<Proof>,
    /// Whether its writer has proposed a record.
    pub(crate) proposed: bool,
    /// Given up: nothing may be proposed any more.
    pub(crate) closed: bool,
    /// Whether what it commits gets pipelines.
    pub(crate) pipelines: Pipelines,
}

/// Where a write stands.
#[derive(Clone, Debug)]
pub(crate) enum WriteState {
    Waiting,
    Granted(Grant),
    /// After `Outcome::Unknown` another end follows.
    Ended(Outcome, Reason),
}

impl Driver {
    pub(crate) fn new(router: tenon_quorum::Router, store: Arc<dyn Store>, nodes: Nodes) -> Arc<Self> {
        let core = Core {
            router,
            writes: BTreeMap::new(),
            ended: VecDeque::new(),
            changes: BTreeMap::new(),
            records: BTreeMap::new(),
        };
        Arc::new(Self {
            core: Mutex::new(core),
            store,
            nodes,
            turn: watch::Sender::new(0),
            rewind: Notify::new(),
            failures: AtomicU32::new(0),
            full: AtomicBool::new(false),
        })
    }

    /// Watches the clock and the nodes, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.keep_time(), self.watch_nodes());
    }

    /// Something happened: tells it to the core, and wakes who waits for news.
    pub(crate) fn tell<T>(self: &Arc<Self>, fact: impl FnOnce(&mut Core, Timestamp) -> T) -> T {
        let output = self.ask(fact);
        self.turn.send_modify(|turn| *turn = turn.wrapping_add(1));
        output
    }

    /// Asks the core, and has all effects carried out that follow.
    pub(crate) fn ask<T>(self: &Arc<Self>, input: impl FnOnce(&mut Core, Timestamp) -> T) -> T {
        let mut effects = Vec::new();
        let output = {
            // A panic inside the core would have left it in an unknown state; it does not panic.
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            let output = input(&mut core, now());
            while let Some(effect) = core.router.poll_effect() {
                if let Some(effect) = core.settle(effect) {
                    effects.push(core.equip(effect));
                }
            }
            output
        };
        for (effect, record) in effects {
            tokio::spawn(Arc::clone(self).carry_out(effect, record));
        }
        self.rewind.notify_one();
        output
    }

    /// Asks for a change, and waits for its end: why it came to nothing, in words.
    pub(crate) async fn change(
        self: &Arc<Self>,
        ask: impl FnOnce(&mut tenon_quorum::Router, Timestamp) -> Result<ChangeId, Refusal>,
    ) -> Result<(), String> {
        let (sender, done) = oneshot::channel();
        let asked = self.ask(|core, now| {
            let change = ask(&mut core.router, now)?;
            core.changes.insert(change, sender);
            Ok::<_, Refusal>(())
        });
        asked.map_err(|refusal| refusal.to_string())?;
        match done.await {
            Ok(done) => done.map_err(|reason| reason.to_string()),
            Err(_) => Err("the router ends".to_owned()),
        }
    }

    /// Looks without changing anything.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Taken before asking; waits for the next fact after that.
    pub(crate) fn turns(&self) -> watch::Receiver<u64> {
        let mut turns = self.turn.subscribe();
        turns.mark_unchanged();
        turns
    }

    /// Runs a call of the store on a thread that may block.
    pub(crate) async fn stored<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || call(&*store)).await;
        done.unwrap_or_else(|e| Err(StoreError::Value(format!("a call of the store ended: {e}"))))
    }

    /// Why something was not done, as users are told: a full disk says more than what followed from it.
    pub(crate) fn why(&self, reason: impl std::fmt::Display) -> String {
        if self.full.load(Ordering::Relaxed) { DISK_FULL.to_owned() } else { reason.to_string() }
    }

    /// A node is there, perhaps in a new life.
    pub(crate) fn node_up(self: &Arc<Self>, node: NodeId, incarnation: Incarnation) {
        self.tell(|core, now| core.router.handle_node(now, node, state(node, incarnation)));
    }

    /// A node did not answer, or broke off: it is asked at once whether it is there.
    pub(crate) async fn node_failed(self: &Arc<Self>, node: NodeId, why: &anyhow::Error) {
        warn!(%node, "{why:#}");
        self.check_node(node).await;
    }

    /// Fires the core's deadlines.
    async fn keep_time(self: &Arc<Self>) {
        loop {
            let due = self.view(|core| core.router.next_deadline());
            let wait = due.map_or(Duration::from_hours(1), |due| Duration::from_millis(due.millis_since(now())));
            if wait.is_zero() {
                self.tell(|core, now| core.router.handle_timeout(now));
                // A deadline that stays due must not starve everyone else.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.rewind.notified() => {}
            }
        }
    }

    /// Asks every node now and then whether it is there.
    async fn watch_nodes(self: &Arc<Self>) {
        let mut tick = tokio::time::interval(HEALTH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let checks = self.nodes.all().into_iter().map(|(node, _)| self.check_node(node));
            futures_util::future::join_all(checks).await;
        }
    }

    /// Asks one node whether it is there, and tells the core if that is news.
    pub(crate) async fn check_node(self: &Arc<Self>, node: NodeId) {
        let Some(known) = self.nodes.known(node) else { return };
        let up = self.nodes.healthy(&known).await;
        // It may have come back at another address meanwhile.
        let same = self.nodes.known(node).is_some_and(|k| k.url == known.url);
        if same && self.nodes.note(node, up) {
            warn!(%node, "{}", if up { "answers again" } else { "does not answer" });
            let health = if up { Health::Up } else { Health::Down };
            let state = state(node, known.incarnation).health(health);
            self.tell(|core, now| core.router.handle_node(now, node, state));
        }
    }
}

impl Core {
    /// Answers what waiters of this process wait for; any other effect is handed back.
    fn settle(&mut self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Grant(grant) => {
                if let Some(write) = self.writes.get_mut(&grant.write) {
                    write.base = Some(grant.base.proof());
                    write.state.send_replace(WriteState::Granted(grant));
                }
                None
            }
            Effect::Answer { write, outcome, reason, .. } => {
                if outcome != Outcome::Unknown {
                    self.forget_later(write);
                }
                if let Some(write) = self.writes.get_mut(&write) {
                    write.closed = true;
                    write.state.send_replace(WriteState::Ended(outcome, reason));
                }
                None
            }
            Effect::Changed { change, result, .. } => {
                if let Some(waiter) = self.changes.remove(&change) {
                    let _nobody_waits = waiter.send(result);
                }
                None
            }
            Effect::SwapRow { .. }
            | Effect::FetchRow { .. }
            | Effect::FetchFeed { .. }
            | Effect::FetchFamily { .. }
            | Effect::RaiseGate { .. }
            | Effect::Probe { .. }
            | Effect::Cure { .. }
            | Effect::LeaveNote { .. }
            | Effect::Promise { .. }
            | Effect::Initialise { .. }
            | Effect::Sync { .. } => Some(effect),
        }
    }

    /// An effect with the record that it commits, if it commits one.
    fn equip(&self, effect: Effect) -> (Effect, Option<Proposal>) {
        let record = if let Effect::SwapRow { next, feed: Some(feed), .. } = &effect {
            self.records.get(&(next.repo, feed.fence)).cloned()
        } else {
            None
        };
        (effect, record)
    }

    /// The answer of an ended write is kept for a while, its record is not.
    fn forget_later(&mut self, write: WriteId) {
        let Some(known) = self.writes.get(&write) else { return };
        if let Some(base) = known.base {
            self.records.remove(&(base.repo, base.fence));
        }
        self.ended.push_back(write);
        if self.ended.len() > ANSWERS_KEPT
            && let Some(oldest) = self.ended.pop_front()
        {
            self.writes.remove(&oldest);
        }
    }
}

/// Every node is a datacentre of its own.
fn state(node: NodeId, incarnation: Incarnation) -> NodeState {
    NodeState::up(incarnation).domain(tenon_quorum::DomainId(node.0))
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(crate::clock::now_ms())
}

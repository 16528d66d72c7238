//! The task centre: drives the queue's engine. Asks it, does what it says, tells it what happened.
//!
//! The engine stands behind one lock that is never held over I/O. Every input drains the effects it led to. Writes and
//! reads of rows go to one thread, which makes all writes that have gathered with one sync to disk. Whoever asked for
//! something sleeps until the engine answers.

mod keeper;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenon_jobqueue::{
    Answer, Assignment, CallId, Change, Config, Effect, Engine, Incarnation, JobId, NewJob, PipelineId, PoolId,
    PoolSpec, Refused, Submission, Tag, Timestamp, Want,
};
use tokio::sync::{Notify, oneshot, watch};

pub(crate) use work::{Report, WorkerSeen};

use super::logs::Logs;
use super::plan::{self, Plan};
use super::store::{Birth, BirthOf, CiStore, CiStoreError, Cursor, Kind, Write};
use super::words;
use keeper::Task;

/// How often rows are looked over for work that fell through: pending and in no queue, open and with nothing to do.
const COMPENSATE_EVERY: Duration = Duration::from_secs(20);
/// A worker that was not heard of for so long is forgotten.
const FORGET_MS: u64 = 10 * 60 * 1000;
/// Waiting this long is worth one step of priority.
const AGEING_MS: u32 = 10_000;
/// A job's lease; its worker is heard of several times within it.
pub(crate) const LEASE_MS: u32 = 8_000;
const HEARTBEAT_MS: u64 = 1_000;

/// What a centre is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// For jobs whose file says no time-out.
    pub(crate) job_timeout: Duration,
}

/// The engine and everything that it speaks through.
#[derive(Debug)]
pub(crate) struct Centre {
    core: Mutex<Core>,
    pub(crate) store: Arc<CiStore>,
    pub(crate) logs: Logs,
    pub(crate) settings: Settings,
    /// Grows with every input.
    turn: watch::Sender<u64>,
    /// The next deadline may be another.
    rewind: Notify,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) engine: Engine,
    keeper: std::sync::mpsc::Sender<Task>,
    waiting: BTreeMap<CallId, Waiting>,
    /// What is written with pipelines that are being submitted.
    births: BTreeMap<PipelineId, Birth>,
    /// The tags that jobs of a component need, by its number.
    pub(crate) components: BTreeMap<u32, Vec<String>>,
    /// What the workers of a pool have.
    pub(crate) pools: BTreeMap<PoolId, Vec<String>>,
    pub(crate) workers: BTreeMap<String, WorkerSeen>,
    /// Pipelines that have ended in this life, by how.
    pub(crate) closed: BTreeMap<&'static str, u64>,
    /// Requests that were refused in this life, by the rule's number.
    pub(crate) refused: BTreeMap<u16, u64>,
    next_pipeline: u64,
    next_job: u64,
}

/// Somebody who waits for an answer, and the jobs that came before it.
#[derive(Debug)]
struct Waiting {
    jobs: Vec<Assignment>,
    done: oneshot::Sender<Answered>,
}

type Answered = (Answer, Vec<Assignment>);

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("{0}")]
    Store(#[from] CiStoreError),
    #[error("the task centre ends")]
    Ends,
}

/// A new pipeline, as the feed brings it.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    pub(crate) repo: u64,
    pub(crate) reference: String,
    pub(crate) hash: String,
    pub(crate) subject: String,
    pub(crate) version: u64,
    pub(crate) cursor: (Cursor, Cursor),
}

impl Centre {
    /// Opens the store, takes in what was open when the last life ended, and starts to work.
    pub(crate) fn start(store: Arc<CiStore>, logs: Logs, settings: Settings) -> Result<Arc<Self>> {
        let life = store.count_up("engine").context("the pipelines' store cannot be written")?;
        let (last_pipeline, last_job) = store.largest()?;
        let config =
            Config::builder(Incarnation::new(life)).seed(crate::home::random()?).ageing_ms(AGEING_MS).build()?;
        let (keeper, tasks) = std::sync::mpsc::channel();
        let core = Core {
            engine: Engine::new(config),
            keeper,
            waiting: BTreeMap::new(),
            births: BTreeMap::new(),
            components: BTreeMap::new(),
            pools: BTreeMap::new(),
            workers: BTreeMap::new(),
            closed: BTreeMap::new(),
            refused: BTreeMap::new(),
            next_pipeline: last_pipeline + 1,
            next_job: last_job + 1,
        };
        let (turn, rewind) = (watch::Sender::new(0), Notify::new());
        let centre = Arc::new(Self { core: Mutex::new(core), store, logs, settings, turn, rewind });
        keeper::start(Arc::downgrade(&centre), Arc::clone(&centre.store), tasks)?;
        for (number, tags) in centre.store.names(Kind::Tags)? {
            centre.view(|core| core.components.insert(number, plan::split(&tags)));
        }
        let rows = centre.store.open_rows()?;
        let told = centre.tell(|core, now| core.engine.load(now, &rows));
        tracing::info!(life, rows = rows.len(), broken = told.broken, "the task centre begins");
        tokio::spawn(keep_time(Arc::downgrade(&centre)));
        tokio::spawn(compensate(Arc::downgrade(&centre)));
        Ok(centre)
    }

    /// One input: what `input` asks or tells, then all effects that follow.
    pub(crate) fn tell<T>(&self, input: impl FnOnce(&mut Core, Timestamp) -> T) -> T {
        let output = {
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            let output = input(&mut core, now());
            while let Some(effect) = core.engine.poll_effect() {
                core.settle(effect);
            }
            output
        };
        self.turn.send_modify(|turn| *turn = turn.wrapping_add(1));
        self.rewind.notify_one();
        output
    }

    /// Looks, or changes what is not the engine's.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&mut Core) -> T) -> T {
        look(&mut self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with every input.
    pub(crate) fn turns(&self) -> watch::Receiver<u64> {
        self.turn.subscribe()
    }

    /// Something that the engine does not know of is worth showing.
    pub(crate) fn stir(&self) {
        self.turn.send_modify(|turn| *turn = turn.wrapping_add(1));
    }

    /// Gives a command and waits for its answer.
    pub(crate) async fn ask(
        &self,
        command: impl FnOnce(&mut Engine, Timestamp) -> Result<CallId, Refused>,
    ) -> Result<Answered, Failed> {
        let answered = self.tell(|core, now| {
            let call = command(&mut core.engine, now)?;
            Ok::<_, Refused>(core.wait(call))
        })?;
        let (answer, jobs) = answered.await.map_err(|_| Failed::Ends)?;
        match answer {
            Answer::Refused(why) => Err(Failed::Refused(why)),
            Answer::Submitted
            | Answer::Done { .. }
            | Answer::Aborting
            | Answer::Retried { .. }
            | Answer::Pulled { .. } => Ok((answer, jobs)),
        }
    }

    /// Makes a pipeline of what was pushed, in one write with the feed's cursor.
    pub(crate) async fn create(&self, pushed: Pushed, plan: Plan) -> Result<PipelineId, Failed> {
        let numbers = self.number_tags(&plan)?;
        let answered = self.tell(|core, now| {
            let id = PipelineId::new(core.next_pipeline);
            let first = core.next_job;
            let jobs: Vec<NewJob> = plan.jobs(first, &numbers, self.settings.job_timeout);
            let needs = plan.needs(first);
            let needs: Vec<(JobId, &[JobId])> = needs.iter().map(|(job, of)| (*job, &of[..])).collect();
            let (class, priority) = (plan.class(), plan.priority());
            let submission = Submission { id, class, priority, jobs: &jobs, needs: &needs };
            let ids = jobs.iter().map(|job| job.id).collect();
            core.births.insert(id, pushed.birth(id, now, BirthOf::Jobs(plan.file, ids)));
            let call = core.engine.submit(now, &submission).inspect_err(|_| drop(core.births.remove(&id)))?;
            core.next_pipeline += 1;
            core.next_job = first + u64::try_from(jobs.len()).unwrap_or(u64::MAX);
            Ok::<_, Refused>((id, core.wait(call)))
        });
        let (id, answered) = answered?;
        let answer = answered.await.map_err(|_| Failed::Ends)?.0;
        self.view(|core| core.births.remove(&id));
        match answer {
            Answer::Refused(why) => Err(Failed::Refused(why)),
            Answer::Submitted
            | Answer::Done { .. }
            | Answer::Aborting
            | Answer::Retried { .. }
            | Answer::Pulled { .. } => Ok(id),
        }
    }

    /// A pipeline that cannot run, with what is wrong; in one write with the feed's cursor.
    pub(crate) fn create_wrong(&self, pushed: &Pushed, error: String) -> Result<PipelineId, Failed> {
        let id = self.view(|core| {
            core.next_pipeline += 1;
            PipelineId::new(core.next_pipeline - 1)
        });
        let birth = pushed.birth(id, now(), BirthOf::Error(error));
        let made = self.store.pass(pushed.repo, pushed.cursor, Some(&birth))?;
        self.stir();
        if made { Ok(id) } else { Err(Failed::Refused(Refused::Exists)) }
    }

    /// The number of each job's set of tags; pools that have them serve a new one from now on.
    fn number_tags(&self, plan: &Plan) -> Result<Vec<u32>, Failed> {
        let mut numbers = Vec::new();
        for job in &plan.file.jobs {
            let number = self.store.number(Kind::Tags, &plan::join(&job.tags))?;
            numbers.push(number);
            let is_new = self.view(|core| core.components.insert(number, job.tags.clone()).is_none());
            if is_new {
                self.tell(Core::put_pools);
            }
        }
        Ok(numbers)
    }
}

impl Pushed {
    fn birth(&self, id: PipelineId, now: Timestamp, what: BirthOf) -> Birth {
        Birth {
            pipeline: id,
            repo: self.repo,
            reference: self.reference.clone(),
            hash: self.hash.clone(),
            subject: self.subject.clone(),
            pushed: self.version,
            created_ms: now.as_millis(),
            what,
            cursor: self.cursor,
        }
    }
}

impl Core {
    fn wait(&mut self, call: CallId) -> oneshot::Receiver<Answered> {
        let (done, answered) = oneshot::channel();
        self.waiting.insert(call, Waiting { jobs: Vec::new(), done });
        answered
    }

    /// Carries an effect out, or hands it to who does.
    fn settle(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { ticket } => {
                let changes = self.engine.changes(ticket).to_vec();
                let birth = changes.iter().find_map(|change| self.births.get(&new_pipeline(change)?)).cloned();
                self.hand(Task::Persist(ticket, Box::new(Write { changes, birth })));
            }
            Effect::Fetch { ask, want } => {
                let written = if let Want::Written(ticket) = want { self.engine.changes(ticket) } else { &[] }.to_vec();
                self.hand(Task::Fetch(ask, want, written));
            }
            Effect::Assign { call, assignment } => {
                // Nobody waits any more: the job comes back when its acknowledgement is overdue.
                if let Some(waiting) = self.waiting.get_mut(&call) {
                    waiting.jobs.push(assignment);
                }
            }
            Effect::Answer { call, answer } => {
                if let Answer::Refused(why) = answer {
                    *self.refused.entry(why.code()).or_default() += 1;
                }
                if let Some(waiting) = self.waiting.remove(&call) {
                    let _gone = waiting.done.send((answer, waiting.jobs));
                }
            }
            // The worker reads it in the answer to its next heartbeat.
            Effect::Abort { token, .. } => tracing::debug!(job = %token.key.job, "to be stopped"),
            // No job is made with a condition, and no filter is declared that asks.
            Effect::Judge { job, .. } => tracing::warn!(job = %job.job, "nobody judges"),
            // No worker here waits for results from outside.
            Effect::Poll { token } => tracing::warn!(job = %token.key.job, "nobody polls"),
            Effect::Closed { pipeline, state } => {
                tracing::info!(%pipeline, ?state, "closed");
                *self.closed.entry(words::state(state)).or_default() += 1;
            }
        }
    }

    fn hand(&self, task: Task) {
        // The thread ends with the centre.
        let _ends = self.keeper.send(task);
    }

    /// The pool of the workers with these tags, which serves every queue that needs none besides.
    fn pool(&mut self, now: Timestamp, number: u32, tags: &[String]) -> Result<PoolId, Refused> {
        let id = PoolId::new(number);
        if self.pools.get(&id).is_none_or(|held| held != tags) {
            self.pools.insert(id, tags.to_vec());
            self.put_pool(now, id)?;
        }
        Ok(id)
    }

    fn put_pool(&mut self, now: Timestamp, id: PoolId) -> Result<(), Refused> {
        let has = self.pools.get(&id).cloned().unwrap_or_default();
        let fits = self.components.iter().filter(|(_, needs)| needs.iter().all(|tag| has.contains(tag)));
        let tags: Vec<Tag> =
            fits.flat_map(|(number, _)| plan::CLASSES.map(|class| Tag::new(*number, class.number()))).collect();
        let spec = PoolSpec { id, tags, ..PoolSpec::default() };
        self.engine.put_pool(now, spec)
    }

    /// Declares all pools again: a queue is new.
    fn put_pools(&mut self, now: Timestamp) {
        for id in self.pools.keys().copied().collect::<Vec<_>>() {
            if let Err(refused) = self.put_pool(now, id) {
                tracing::warn!(pool = %id, "does not serve its new queues: {refused}");
            }
        }
    }
}

/// The pipeline that a change makes.
const fn new_pipeline(change: &Change) -> Option<PipelineId> {
    match (&change.row, change.expect) {
        (tenon_jobqueue::Row::Pipeline(row), None) => Some(row.id),
        _ => None,
    }
}

/// Tells the engine when a deadline has come.
async fn keep_time(centre: Weak<Centre>) {
    // Workers that outlived the last life of this program are heard of first.
    tokio::time::sleep(Duration::from_millis(2 * HEARTBEAT_MS)).await;
    loop {
        let Some(held) = centre.upgrade() else { return };
        let due = held.view(|core| core.engine.next_deadline());
        let wait = due.map_or(Duration::from_mins(1), |due| Duration::from_millis(due.millis_since(now())));
        if wait.is_zero() {
            held.tell(|core, now| core.engine.handle_timeout(now));
            drop(held);
            tokio::task::yield_now().await;
            continue;
        }
        let rewind = async {
            held.rewind.notified().await;
        };
        // Wakes now and then, so that a centre that nobody holds is let go.
        let _rewound = tokio::time::timeout(wait.min(Duration::from_secs(1)), rewind).await;
    }
}

/// Looks over the rows now and then, should an effect ever have been lost.
async fn compensate(centre: Weak<Centre>) {
    loop {
        tokio::time::sleep(COMPENSATE_EVERY).await;
        let Some(held) = centre.upgrade() else { return };
        let at = now().as_millis();
        held.view(|core| core.workers.retain(|_, seen| at.saturating_sub(seen.seen_ms) < FORGET_MS));
        let store = Arc::clone(&held.store);
        match tokio::task::spawn_blocking(move || store.open_rows()).await {
            Ok(Ok(rows)) => {
                let told = held.tell(|core, now| core.engine.compensate(now, &rows));
                if told.taken > 0 {
                    tracing::warn!(rows = told.taken, "compensated");
                }
            }
            Ok(Err(e)) => tracing::warn!("the rows cannot be looked over: {e}"),
            Err(_) => return,
        }
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(crate::clock::now_ms())
}

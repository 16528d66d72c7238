//! Observation: counters, a tag's depth, and why a job is not running.

use alloc::vec::Vec;

use super::Engine;
use crate::config::Service;
use crate::id::{JobId, JobKey, Key, PipelineId, PoolId, Tag, Ticket};
use crate::job::{Job, State};
use crate::lane::Rank;
use crate::pipeline::Pipeline;
use crate::reason::Reason;
use crate::store::Hangs;
use crate::time::Timestamp;

/// Counters of an engine's life. Not part of its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counters {
    /// The number of writes proposed.
    pub proposed: u64,
    /// The number of writes made.
    pub committed: u64,
    /// The number of writes that conflicted with another.
    pub conflicted: u64,
    /// The number of commands refused after the rows were read.
    pub refused: u64,
    /// The number of facts that were late, repeated or unknown.
    pub ignored: u64,
}

/// A summary of one tag's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QueueView {
    /// The tag of the queue.
    pub tag: Tag,
    /// Whether the tag is open or paused.
    pub service: Service,
    /// The number of jobs that wait in the queue.
    pub depth: u32,
    /// The time since when the oldest of them waits.
    pub oldest: Option<Timestamp>,
    /// The number of jobs that workers hold.
    pub leased: u32,
    /// The number of jobs that entered the queue in this engine's life, those that came back included.
    pub arrived: u64,
    /// The number of its jobs that were given to workers in this engine's life.
    pub delivered: u64,
}

/// The availability of a pool for a tag that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Standing {
    /// The pool is drained.
    Closed,
    /// The pool's workers hold, or are being given, the maximum number of jobs.
    NoRoom {
        /// The number of jobs held.
        used: u32,
        /// The maximum number of jobs.
        limit: u32,
    },
    /// The pool has room, but other engines have it, or this engine has not got its share yet.
    NoShare {
        /// The number of leases that this engine may give out.
        share: u32,
        /// The maximum number of leases over all engines.
        limit: u32,
    },
    /// The pool's rate lets no job go before this time.
    Throttled {
        /// The time when the next job may go.
        until: Timestamp,
    },
    /// The pool has room, and gives out a job with its next pull.
    Waits {
        /// The number of jobs held.
        used: u32,
        /// The maximum number of jobs.
        limit: u32,
    },
}

/// The reason why a job is not running.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Why {
    /// The job's batch is not open: an earlier batch still has jobs in progress.
    Batch {
        /// The order of the open batch.
        open: u32,
        /// The number of its jobs in progress.
        remaining: u32,
    },
    /// The job waits for another to end: one that it names, or one of a smaller order.
    Needs {
        /// The first such job.
        job: JobId,
        /// The number of further such jobs.
        more: u32,
    },
    /// The job's batch is about to open, and the host was asked about the job.
    Asked,
    /// The job waits aside until its key is free. It blocks no other job meanwhile.
    Key {
        /// The key that it waits for.
        key: Key,
        /// The job that holds the key.
        holder: Option<JobKey>,
        /// The time when the key's rate lets the next job go, if the rate is the obstacle.
        until: Option<Timestamp>,
        /// The number of waiting jobs before it.
        ahead: u32,
    },
    /// The job waits in its tag's queue.
    Queue {
        /// The number of jobs before it.
        ahead: u32,
        /// Whether the tag is open or paused.
        tag: Service,
        /// The pools that serve the tag; if there are none, the job will never run.
        pools: Vec<(PoolId, Standing)>,
    },
    /// The job waits for this time or for an answer, as its row's reason says.
    Until(Timestamp),
    /// A change of the job is being written.
    Writing(Ticket),
    /// The job runs.
    Runs,
}

/// An explanation of a job's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The state of the job.
    pub state: State,
    /// The reason for the state.
    pub reason: Reason,
    /// The reason why the job is not running.
    pub why: Why,
    /// The next deadline, such as the one by which a worker must have taken the job.
    pub due: Option<Timestamp>,
}

impl Engine {
    /// The counters of this engine's life.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A job's row, if the job has not ended and is here.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<Job> {
        self.store.row(self.store.find_job(id)?)
    }

    /// A pipeline's row, if the pipeline is open and here.
    #[must_use]
    pub fn pipeline(&self, id: PipelineId) -> Option<&Pipeline> {
        self.store.pipes.get(self.store.find_pipe(id)?)?.row.as_ref()
    }

    /// The number of jobs here that have not ended.
    #[must_use]
    pub const fn jobs(&self) -> u32 {
        self.store.jobs.used
    }

    /// The number of jobs that wait in a tag's queue.
    #[must_use]
    pub fn depth(&self, tag: Tag) -> u32 {
        self.queues.find(tag).map_or(0, |lane| self.queues.lanes[lane as usize].live)
    }

    /// Lists the queues of all tags that ever had a job here.
    pub fn queues(&self) -> impl Iterator<Item = QueueView> {
        self.queues.lanes.iter().map(|lane| QueueView {
            tag: lane.tag,
            service: lane.service,
            depth: lane.live,
            oldest: lane.oldest(&self.store.jobs),
            leased: lane.held,
            arrived: lane.passed.0,
            delivered: lane.passed.1,
        })
    }

    /// Wait-time percentile of a tag's jobs, in ms: from entering the queue to being given to a worker.
    ///
    /// Recent jobs dominate (counts halve every 8,192 samples). Overestimates by at most 25 %. Kept by each engine for
    /// itself, and not in its snapshot.
    #[must_use]
    pub fn wait_ms(&self, tag: Tag, percent: u8) -> Option<u64> {
        self.queues.lanes[self.queues.find(tag)? as usize].waits.quantile(percent)
    }

    /// Lists the jobs of a pipeline that are here and have not ended, in no order.
    pub fn jobs_of(&self, pipeline: PipelineId) -> impl Iterator<Item = Job> {
        let pipe = self.store.find_pipe(pipeline);
        let jobs = pipe.into_iter().flat_map(|pipe| self.store.jobs_of(pipe));
        jobs.filter_map(|at| self.store.row(at))
    }

    /// The number of a pool's pulls that wait for work.
    #[must_use]
    pub fn parked(&self, pool: PoolId) -> usize {
        self.queues.pool(pool).map_or(0, |pool| self.queues.pools[pool as usize].parked.len())
    }

    /// The number of jobs that a pool's workers hold.
    #[must_use]
    pub fn leased(&self, pool: PoolId) -> u32 {
        self.queues.pool(pool).map_or(0, |pool| self.queues.pools[pool as usize].leased)
    }

    /// Explains why a job is not running.
    ///
    /// Reads the job's whole queue: for people, not for every turn of a loop.
    ///
    /// ```
    /// # use tenon_jobqueue::{Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, PipelineId, PoolId, PoolSpec};
    /// # use tenon_jobqueue::{PullRequest, Submission, Tag, Timestamp, Worker, WorkerName};
    /// # let now = Timestamp::from_millis(1);
    /// # let mut engine = Engine::new(Config::builder(Incarnation::new(1)).recheck_ms(0).build()?);
    /// # let (pool, worker) = (PoolId::new(1), Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) });
    /// # engine.put_pool(now, PoolSpec { id: pool, tags: vec![Tag::OTHER], max_leases: 10, ..PoolSpec::default() })?;
    /// # let jobs = [NewJob { id: JobId::new(1), spec: JobSpec::default(), tag: None }];
    /// # let submission = Submission { id: PipelineId::new(1), class: Class::new(0), priority: 0, jobs: &jobs, needs: &[] };
    /// # let persist = |engine: &mut Engine| {
    /// #     let mut others = Vec::new();
    /// #     while let Some(effect) = engine.poll_effect() {
    /// #         match effect {
    /// #             Effect::Persist { ticket } => engine.handle_committed(now, ticket),
    /// #             other => others.push(other),
    /// #         }
    /// #     }
    /// #     others
    /// # };
    /// # engine.submit(now, &submission)?;
    /// # persist(&mut engine);
    /// use tenon_jobqueue::{State, Why};
    ///
    /// let explanation = engine.explain(JobId::new(1)).expect("the job has not ended");
    /// assert_eq!(explanation.state, State::Pending);
    /// assert!(matches!(explanation.why, Why::Queue { ahead: 0, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn explain(&self, id: JobId) -> Option<Explanation> {
        let at = self.store.find_job(id)?;
        let slot = self.store.jobs.get(at)?;
        let job = self.store.row(at)?;
        let why = match (slot.lock.ticket(), job.state) {
            (Some(ticket), _) => Why::Writing(ticket),
            (None, State::Unstart) if self.judging.contains(&id) => Why::Asked,
            (None, State::Unstart) => {
                let pipe = self.store.pipes.get(slot.pipe);
                let row = pipe.and_then(|pipe| pipe.row.as_ref());
                let graph = pipe.and_then(|pipe| pipe.graph());
                let needs =
                    graph.zip(row).and_then(|(graph, row)| graph.plan.waits_for(&row.outcomes, graph.place(id)?));
                let (open, remaining) = row.map_or((0, 0), |row| (row.order, row.remaining));
                needs.map_or(Why::Batch { open, remaining }, |(job, more)| Why::Needs { job, more })
            }
            (None, State::Pending) if slot.hangs == Hangs::Aside => self.why_aside(&job, at)?,
            (None, State::Pending) => self.why_queued(slot.lane, at),
            (None, State::Running) => Why::Runs,
            (None, _) => Why::Until(job.due().unwrap_or(Timestamp::MAX)),
        };
        Some(Explanation { state: job.state, reason: job.reason, why, due: job.due() })
    }

    fn why_aside(&self, job: &Job, at: u32) -> Option<Why> {
        let key = job.spec.key?;
        let slot = self.keys.get(&key)?;
        let ahead = slot.aside.iter().take_while(|(_, other)| *other != at).count();
        Some(Why::Key {
            key,
            holder: slot.row.and_then(|row| row.holder),
            until: slot.throttled_until(self.now),
            ahead: u32::try_from(ahead).unwrap_or(u32::MAX),
        })
    }

    fn why_queued(&self, lane: u32, at: u32) -> Why {
        let lane = &self.queues.lanes[lane as usize];
        let rank = |at: u32| self.store.jobs.get(at).map(|slot| Rank::of(slot, self.config.ageing_ms));
        let mine = rank(at);
        let ahead = lane.entries().filter(|other| rank(*other) < mine).count();
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let pools = lane.pools.iter().map(|link| {
            let pool = &self.queues.pools[link.pool as usize];
            let (used, limit) = (pool.leased + pool.flying, pool.spec.max_leases);
            let standing = if pool.spec.service == Service::Closed {
                Standing::Closed
            } else if let Some(share) = pool.lacks_share() {
                Standing::NoShare { share, limit }
            } else if pool.leases_left() == 0 {
                Standing::NoRoom { used, limit }
            } else if let Some(until) = pool.throttled_until(self.now) {
                Standing::Throttled { until }
            } else {
                Standing::Waits { used, limit }
            };
            (pool.spec.id, standing)
        });
        Why::Queue { ahead, tag: lane.service, pools: pools.collect() }
    }
}

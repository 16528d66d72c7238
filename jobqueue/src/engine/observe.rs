//! What the engine shows: counters, a tag's depth, and why a job is not running.

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

/// What has happened in this engine's life. Not part of its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counters {
    /// Writes proposed.
    pub proposed: u64,
    /// Writes made.
    pub committed: u64,
    /// Writes that met another.
    pub conflicted: u64,
    /// Commands refused after the rows were read.
    pub refused: u64,
    /// Facts that were late, repeated or unknown.
    pub ignored: u64,
}

/// One tag's queue at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QueueView {
    /// The tag.
    pub tag: Tag,
    /// Whether it is paused.
    pub service: Service,
    /// Jobs that wait in it.
    pub depth: u32,
    /// Since when the oldest of them waits.
    pub oldest: Option<Timestamp>,
    /// Jobs that workers hold.
    pub leased: u32,
    /// Jobs that came into it in this engine's life, those that came back among them.
    pub arrived: u64,
    /// Jobs of it that were given to workers in this engine's life.
    pub delivered: u64,
}

/// How a pool stands to a tag that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Standing {
    /// It is drained.
    Closed,
    /// Its workers hold, or are being given, all they may.
    NoRoom {
        /// Jobs held.
        used: u32,
        /// Jobs allowed.
        limit: u32,
    },
    /// It has room, but other engines have it, or this one has not got it yet.
    NoShare {
        /// Leases that this engine may give out.
        share: u32,
        /// Leases allowed, over all engines.
        limit: u32,
    },
    /// Its rate lets no job go before this time.
    Throttled {
        /// When.
        until: Timestamp,
    },
    /// It has room for this many more, and takes a job with its next pull.
    Waits {
        /// Jobs held.
        used: u32,
        /// Jobs allowed.
        limit: u32,
    },
}

/// Why a job is not running.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Why {
    /// Its batch is not open: the batch of this order still has so many jobs in progress.
    Batch {
        /// The open batch's order.
        open: u32,
        /// Its jobs in progress.
        remaining: u32,
    },
    /// It waits for another job to end: one that it names, or one of a smaller order.
    Needs {
        /// The first such job.
        job: JobId,
        /// How many more there are.
        more: u32,
    },
    /// Its batch is about to open, and the host was asked about it.
    Asked,
    /// It waits aside, in nobody's way, until its key is free.
    Key {
        /// The key.
        key: Key,
        /// The job that holds it.
        holder: Option<JobKey>,
        /// When the key's rate lets the next job go, if that is what keeps it.
        until: Option<Timestamp>,
        /// Jobs aside that are before it.
        ahead: u32,
    },
    /// It waits in its tag's queue.
    Queue {
        /// Jobs before it.
        ahead: u32,
        /// Whether the tag is paused.
        tag: Service,
        /// The pools that serve the tag; none means that nobody ever will.
        pools: Vec<(PoolId, Standing)>,
    },
    /// It waits for this time or for an answer, as its row's reason says.
    Until(Timestamp),
    /// A change of it is being written.
    Writing(Ticket),
    /// It runs.
    Runs,
}

/// A job's whole story as it now is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Explanation {
    /// Where it stands.
    pub state: State,
    /// Why it came to stand there.
    pub reason: Reason,
    /// Why it is not running.
    pub why: Why,
    /// The deadline that can pass next, such as the one by which a worker must have taken it.
    pub due: Option<Timestamp>,
}

impl Engine {
    /// What has happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A job's row, if it has not ended and is here.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<Job> {
        self.store.row(self.store.find_job(id)?)
    }

    /// A pipeline's row, if it is open and here.
    #[must_use]
    pub fn pipeline(&self, id: PipelineId) -> Option<&Pipeline> {
        self.store.pipes.get(self.store.find_pipe(id)?)?.row.as_ref()
    }

    /// How many jobs are here that have not ended.
    #[must_use]
    pub const fn jobs(&self) -> u32 {
        self.store.jobs.used
    }

    /// How many jobs wait in a tag's queue.
    #[must_use]
    pub fn depth(&self, tag: Tag) -> u32 {
        self.queues.find(tag).map_or(0, |lane| self.queues.lanes[lane as usize].live)
    }

    /// Every tag that ever had a job here.
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

    /// Within how many milliseconds so many percent of a tag's jobs were given to a worker, of those of late: the newest
    /// few thousand speak loudest. At most a quarter too large. Kept by each engine for itself, and not in its snapshot.
    #[must_use]
    pub fn wait_ms(&self, tag: Tag, percent: u8) -> Option<u64> {
        self.queues.lanes[self.queues.find(tag)? as usize].waits.quantile(percent)
    }

    /// The jobs of a pipeline that are here and have not ended, in no order.
    pub fn jobs_of(&self, pipeline: PipelineId) -> impl Iterator<Item = Job> {
        let pipe = self.store.find_pipe(pipeline);
        let jobs = pipe.into_iter().flat_map(|pipe| self.store.jobs_of(pipe));
        jobs.filter_map(|at| self.store.row(at))
    }

    /// How many pulls of a pool wait for work.
    #[must_use]
    pub fn parked(&self, pool: PoolId) -> usize {
        self.queues.pool(pool).map_or(0, |pool| self.queues.pools[pool as usize].parked.len())
    }

    /// How many jobs a pool's workers hold.
    #[must_use]
    pub fn leased(&self, pool: PoolId) -> u32 {
        self.queues.pool(pool).map_or(0, |pool| self.queues.pools[pool as usize].leased)
    }

    /// Why a job is not running. Reads its whole queue: for people, not for every turn of a loop.
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

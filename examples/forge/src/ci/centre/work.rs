//! What workers ask of the centre: work, leave to begin, and that their results be taken.

use tenon_jobqueue::{
    Act, Answer, Assignment, CallId, Incarnation, JobId, LeaseToken, Outcome, PullRequest, Refused, State, Worker,
    WorkerName,
};

use super::{Centre, Failed, HEARTBEAT_MS, LEASE_MS, now};
use crate::ci::plan;
use crate::ci::store::Kind;
use crate::ci::wire::{self, Beat, Me, Order, RunResult};

/// A worker that was heard of.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSeen {
    pub(crate) incarnation: u64,
    pub(crate) tags: Vec<String>,
    pub(crate) seen_ms: u64,
    /// The job that it holds, and its title.
    pub(crate) job: Option<(JobId, String)>,
    pub(crate) leaving: bool,
    /// Its last pull that was given a job: should it never have seen the answer, it is given it again.
    previous: Option<CallId>,
    /// Its pull that waits.
    pull: Option<CallId>,
}

/// A job's end, as its worker tells it.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) me: Me,
    pub(crate) lease: LeaseToken,
    pub(crate) result: RunResult,
}

/// Where a job stands after its worker's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) state: State,
}

/// A pull is withdrawn when nobody waits for it any more.
struct Pulling<'a> {
    centre: &'a Centre,
    name: &'a str,
    call: CallId,
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.centre.tell(|core, now| {
            if core.waiting.remove(&self.call).is_some() {
                core.engine.cancel_pull(now, self.call);
            }
            if let Some(seen) = core.workers.get_mut(self.name).filter(|seen| seen.pull == Some(self.call)) {
                seen.pull = None;
            }
        });
    }
}

impl Centre {
    /// Waits for a job that this worker can do.
    pub(crate) async fn pull(&self, ask: wire::Pull) -> Result<Vec<wire::Assignment>, Failed> {
        let mut tags = ask.tags;
        tags.sort();
        tags.dedup();
        let number = self.store.number(Kind::Worker, &ask.me.name)?;
        let pool = self.store.number(Kind::Pool, &plan::join(&tags))?;
        let worker = worker(number, &ask.me);
        let (call, answered) = self.tell(|core, now| {
            let pool = core.pool(now, pool, &tags)?;
            let before = core.workers.get(&ask.me.name).filter(|seen| seen.incarnation == ask.me.incarnation);
            let (previous, leaving) = before.map_or((None, false), |seen| (seen.previous, seen.leaving));
            let wait_ms = if leaving { 0 } else { ask.wait_ms };
            let request = PullRequest { pool, worker, want: 1, wait_ms, previous };
            let call = core.engine.pull(now, &request)?;
            let seen = WorkerSeen {
                incarnation: ask.me.incarnation,
                tags,
                seen_ms: now.as_millis(),
                job: None,
                leaving,
                previous,
                pull: Some(call),
            };
            core.workers.insert(ask.me.name.clone(), seen);
            Ok::<_, Refused>((call, core.wait(call)))
        })?;
        let pulling = Pulling { centre: self, name: &ask.me.name, call };
        // Withdrawn by the worker itself: it gets nothing, and is not heard of again.
        let Ok((answer, jobs)) = answered.await else {
            self.view(|core| core.workers.remove(&ask.me.name));
            return Ok(Vec::new());
        };
        drop(pulling);
        if let Answer::Refused(why) = answer {
            return Err(Failed::Refused(why));
        }
        let mut given = Vec::new();
        for job in jobs {
            self.view(|core| {
                if let Some(seen) = core.workers.get_mut(&ask.me.name) {
                    seen.previous = Some(call);
                }
            });
            given.extend(self.assignment(job)?);
        }
        Ok(given)
    }

    /// All that a job's run needs; `None` if there is no such job, which then is not run.
    fn assignment(&self, job: Assignment) -> Result<Option<wire::Assignment>, Failed> {
        let key = job.token.key;
        let Some((pipeline, def)) = self.store.definition(key.job)? else { return Ok(None) };
        let Some(repository) = self.store.repository(pipeline.repo)? else { return Ok(None) };
        let stage = pipeline.file.as_ref().and_then(|f| f.stages.get(def.stage)).cloned().unwrap_or_default();
        Ok(Some(wire::Assignment {
            lease: job.token,
            title: format!("{stage} / {}", def.name),
            variables: plan::variables(&pipeline, &def, &stage, &repository, key.job),
            repository,
            commit: pipeline.hash,
            script: def.script,
            heartbeat_ms: HEARTBEAT_MS,
            lease_ms: u64::from(LEASE_MS),
            log_limit: self.logs.limit(),
        }))
    }

    /// A worker may begin the job that it was given.
    pub(crate) async fn ack(&self, ask: &wire::Held) -> Result<Beat, Failed> {
        let beat = self.held(ask, Act::Ack).await?;
        let job = ask.lease.key.job;
        let title = self.store.definition(job)?.map_or_else(String::new, |(_, def)| def.name);
        self.view(|core| {
            if let Some(seen) = core.workers.get_mut(&ask.me.name) {
                seen.job = Some((job, title));
                seen.previous = None;
            }
        });
        self.stir();
        Ok(beat)
    }

    /// A worker lives, and its job with it.
    pub(crate) async fn heartbeat(&self, ask: &wire::Held) -> Result<Beat, Failed> {
        self.held(ask, Act::Heartbeat).await
    }

    async fn held(&self, ask: &wire::Held, act: Act) -> Result<Beat, Failed> {
        let told = self.act(&ask.me, ask.lease, act).await?;
        Ok(Beat { order: if told.state == State::Aborting { Order::Stop } else { Order::Go } })
    }

    /// Takes a result, once.
    pub(crate) async fn report(&self, report: &Report) -> Result<Told, Failed> {
        let act = match report.result {
            RunResult::Exit(0) => Act::Report(Outcome::Succeeded),
            RunResult::Exit(code) => Act::Report(Outcome::Failed { code }),
            // Nothing of the job's own went wrong: another worker may do better. A job that is being stopped is then.
            RunResult::Broken(_) | RunResult::Stopped => Act::Nack,
        };
        let told = self.act(&report.me, report.lease, act).await;
        self.view(|core| {
            if let Some(seen) = core.workers.get_mut(&report.me.name) {
                seen.job = None;
                if seen.leaving {
                    core.workers.remove(&report.me.name);
                }
            }
        });
        self.stir();
        told
    }

    async fn act(&self, me: &Me, lease: LeaseToken, act: Act) -> Result<Told, Failed> {
        let worker = worker(self.store.number(Kind::Worker, &me.name)?, me);
        self.view(|core| {
            if let Some(seen) = core.workers.get_mut(&me.name).filter(|seen| seen.incarnation == me.incarnation) {
                seen.seen_ms = now().as_millis();
            }
        });
        match self.ask(|engine, now| engine.work(now, worker, lease, act)).await?.0 {
            Answer::Done { state, .. } => Ok(Told { state }),
            Answer::Submitted
            | Answer::Aborting
            | Answer::Retried { .. }
            | Answer::Pulled { .. }
            | Answer::Refused(_) => Err(Failed::Ends),
        }
    }

    /// A worker takes no more jobs: a pull of its that waits gets nothing.
    pub(crate) fn leave(&self, me: &Me) {
        self.tell(|core, now| {
            let Some(seen) = core.workers.get_mut(&me.name).filter(|seen| seen.incarnation == me.incarnation) else {
                return;
            };
            seen.leaving = true;
            if seen.job.is_none() && seen.pull.is_none() {
                core.workers.remove(&me.name);
                return;
            }
            // A job that is on its way already comes with the answer; else there is none.
            if let Some(call) = seen.pull.take()
                && core.waiting.get(&call).is_some_and(|waiting| waiting.jobs.is_empty())
            {
                core.waiting.remove(&call);
                core.engine.cancel_pull(now, call);
            }
        });
    }

    /// A worker's process is gone.
    pub(crate) fn forget(&self, name: &str) {
        self.view(|core| core.workers.remove(name));
    }
}

fn worker(number: u32, me: &Me) -> Worker {
    Worker { name: WorkerName::new(u64::from(number)), incarnation: Incarnation::new(me.incarnation) }
}

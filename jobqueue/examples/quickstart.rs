//! Build, then two tests at once, one of which crashes its worker and is tried again.
#![allow(clippy::print_stdout, reason = "it shows what was decided, and why")]
use std::error::Error;
use tenon_jobqueue::memory::MemoryRows;
use tenon_jobqueue::{
    Act, Assignment, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, Outcome, PipelineId, Policy,
    PoolId, PoolSpec, PullRequest, Submission, Tag, Timestamp, Want, Worker, WorkerName, run_orders,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut now = Timestamp::from_millis(0);
    let mut db = MemoryRows::default(); // yours: tables in a database
    let mut engine = Engine::new(Config::builder(Incarnation::new(1)).build()?);
    let id = PoolId::new(1);
    engine.put_pool(now, PoolSpec { id, tags: vec![Tag::OTHER], max_leases: 2, ..PoolSpec::default() })?;
    let worker = Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) };

    let [build, test, lint] = [1, 2, 3].map(JobId::new);
    let needs: [(JobId, &[JobId]); 3] = [(build, &[]), (test, &[build]), (lint, &[build])];
    let policy = Policy { max_attempts: 2, ..Policy::default() };
    let job = |(order, (id, _))| NewJob { id, spec: JobSpec { order, policy, ..JobSpec::default() }, tag: None };
    let jobs: Vec<NewJob> = run_orders(&needs)?.into_iter().zip(needs).map(job).collect();
    let pipeline = PipelineId::new(1);
    engine.submit(now, &Submission { id: pipeline, class: Class::new(0), priority: 0, jobs: &jobs, needs: &[] })?;

    let (mut closed, mut crashed) = (false, false);
    while !closed {
        engine.pull(now, &PullRequest { pool: id, worker, want: 2, wait_ms: 0, previous: None })?;
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    for change in engine.changes(ticket) {
                        if let Some(job) = change.row.as_job() {
                            let (at, id, attempt) = (now.as_millis(), job.id(), job.attempt());
                            println!("{at:>6} ms  job {id}, attempt {attempt}: {:?}, {:?}", job.state, job.reason);
                        }
                    }
                    if db.write(engine.changes(ticket)) {
                        engine.handle_committed(now, ticket);
                    } else {
                        let fresh = db.read(Want::Written(ticket), engine.changes(ticket));
                        engine.handle_conflicted(now, ticket, &fresh);
                    }
                }
                Effect::Fetch { ask, want } => {
                    let written = if let Want::Written(ticket) = want { engine.changes(ticket) } else { &[] };
                    engine.handle_rows(now, ask, &db.read(want, written));
                }
                Effect::Assign { assignment: Assignment { token, .. }, .. } => {
                    engine.work(now, worker, token, Act::Ack)?;
                    if token.key.job != test || std::mem::replace(&mut crashed, true) {
                        engine.work(now, worker, token, Act::Report(Outcome::Succeeded))?;
                    }
                }
                Effect::Closed { state, .. } => {
                    println!("{:>6} ms  the pipeline {state:?}", now.as_millis());
                    closed = true;
                }
                Effect::Answer { .. } | Effect::Abort { .. } | Effect::Poll { .. } | Effect::Judge { .. } => {}
            }
        }
        now = engine.next_deadline().unwrap_or(now);
        engine.handle_timeout(now);
    }
    Ok(())
}

use job_store::{SqliteStore, Store, Write};
use tenon_jobqueue::{
    Act, Answer, Assignment, Class, Config, Effect, Engine, JobId, JobSpec, NewJob, Outcome, PipelineId, PoolId,
    PoolSpec, PullRequest, Submission, Tag, Timestamp, Want, Worker, WorkerName,
};

type Fails<T> = Result<T, Box<dyn std::error::Error>>;

/// Does what the engine says, until there is nothing left to do; returns the jobs that were given to workers.
fn settle(engine: &mut Engine, store: &mut dyn Store, now: Timestamp, command: (JobId, &[u8])) -> Fails<Vec<Assignment>> {
    let mut given = Vec::new();
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::Persist { ticket } => {
                let write = Write { payloads: &[command], ..Write::of(engine.changes(ticket)) };
                match store.write(&[write]) {
                    Ok(told) if told[0].is_made() => engine.handle_committed(now, ticket),
                    Ok(told) => engine.handle_conflicted(now, ticket, told[0].fresh()),
                    Err(_) => engine.handle_unknown(now, ticket), // perhaps it was made
                }
            }
            Effect::Fetch { ask, want } => {
                let written = if let Want::Written(ticket) = want { engine.changes(ticket).to_vec() } else { Vec::new() };
                engine.handle_rows(now, ask, &store.read(want, &written)?);
            }
            Effect::Assign { assignment, .. } => given.push(assignment),
            Effect::Answer { answer: Answer::Refused(why), .. } => return Err(why.into()),
            // A worker hears of an abort by its heartbeat; no job here is judged or polled.
            Effect::Answer { .. }
            | Effect::Closed { .. }
            | Effect::Abort { .. }
            | Effect::Poll { .. }
            | Effect::Judge { .. } => {}
        }
    }
    Ok(given)
}

/// One life of the program: makes a job, gives it to a worker, and takes its result. Returns what the worker read.
fn life(store: &mut dyn Store, now: Timestamp) -> Fails<Vec<u8>> {
    let mut engine = Engine::new(Config::builder(store.next_life()?).build()?);
    let pool = PoolId::new(1);
    engine.put_pool(now, PoolSpec { id: pool, tags: vec![Tag::OTHER], ..PoolSpec::default() })?;
    assert_eq!(engine.load(now, &store.open_rows()?).left, 0); // what the life before left

    let id = store.next_ids(1)?; // no other process draws it
    let job = NewJob { id: JobId::new(id), spec: JobSpec::default(), tag: None };
    let command = (job.id, &b"cargo test"[..]);
    let (class, pipeline) = (Class::new(0), PipelineId::new(id));
    engine.submit(now, &Submission { id: pipeline, class, priority: 0, jobs: &[job], needs: &[] })?;
    settle(&mut engine, store, now, command)?;

    let worker = Worker { name: WorkerName::new(1), incarnation: engine.incarnation() };
    engine.pull(now, &PullRequest { pool, worker, want: 1, wait_ms: 0, previous: None })?;
    let given = settle(&mut engine, store, now, command)?;
    for act in [Act::Ack, Act::Report(Outcome::Succeeded)] {
        engine.work(now, worker, given[0].token, act)?;
        settle(&mut engine, store, now, command)?;
    }
    Ok(store.payload(given[0].token.key.job)?.unwrap_or_default())
}

//! What a host that takes the rows without the engine makes of them.

use crate::common::Db;
use crate::ledger::PIPELINE;

use tenon_jobqueue::{
    Attempt, Change, Class, Entry, Event, Filters, Incarnation, Job, JobClass, JobId, JobKey, NeedsVerdict, NewJob,
    Outcomes, Pipeline, Plan, Reason, Refused, Row, Stamp, State, Submission, Tag, Tally, Ticket, Timestamp, Version,
    WriteId, decide, transition,
};

/// What one of the four is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    Decide,
    Stop,
    Event(JobId, Event),
}

/// What a task makes of the rows: a write, or the rule that refuses it.
pub fn plan(db: &Db, now: Timestamp, task: &Task, write: WriteId) -> Result<Vec<Change>, Refused> {
    let stamp = Stamp { write, chance: 0 };
    let mut pipeline = db.pipelines.get(&PIPELINE).cloned().ok_or(Refused::Unknown)?;
    let expect = Some(pipeline.version);
    let next = |row: Pipeline| Row::Pipeline(Pipeline { version: row.version.next(), write, ..row });
    match *task {
        Task::Decide => {
            let mut jobs: Vec<Job> = db.latest(PIPELINE);
            if decide(now, &mut pipeline, db.plans.get(&PIPELINE), &mut jobs, &Filters::default(), &stamp) == 0 {
                return Err(Refused::Nothing);
            }
            let decided = jobs.into_iter().filter(|job| job.write == write);
            let rows = decided.map(Row::Job).chain([Row::Pipeline(pipeline)]);
            let before = |row: &Row| Some(Version::new(row.version().get() - 1)).filter(|old| old.get() > 0);
            Ok(rows.map(|row| Change { expect: before(&row), row }).collect())
        }
        Task::Stop => {
            pipeline.aborted_at = Some(now);
            pipeline.owes = !pipeline.outcomes.is_empty();
            Ok(vec![Change { expect, row: next(pipeline) }])
        }
        Task::Event(id, event) => {
            let old = db.job(id.get());
            let mut change = transition(now, &old, &event, &stamp)?;
            if !change.changes(&old) {
                return Err(Refused::Nothing);
            }
            let mut rows = Vec::new();
            if change.next.is_some() || Pipeline::is_moved_by(&old, &change.row) {
                change.next = change.next.filter(|_| pipeline.aborted_at.is_none());
                let plan = db.plans.get(&PIPELINE);
                pipeline.absorb(plan, Some(&old), Some(change.next.as_ref().unwrap_or(&change.row)));
                pipeline.owes = plan.is_some_and(|plan| owes(plan, &pipeline));
                rows.push(Change { expect, row: next(pipeline) });
            }
            rows.push(Change { expect: Some(old.version), row: Row::Job(change.row) });
            rows.extend(change.next.map(|row| Change { expect: None, row: Row::Job(row) }));
            Ok(rows)
        }
    }
}

/// A database with a pipeline of these jobs, about which nothing was decided.
pub fn submitted(now: Timestamp, jobs: &[NewJob]) -> Db {
    let write = WriteId { engine: Incarnation::new(9), ticket: Ticket::new(1) };
    let mut db = Db::default();
    let mut pipeline = Pipeline {
        id: PIPELINE,
        version: Version::FIRST,
        write,
        class: Class::new(0),
        priority: 0,
        created: now,
        order: 0,
        unstarted: 0,
        remaining: 0,
        failed: 0,
        stopped: 0,
        aborted_at: None,
        owes: false,
        outcomes: Outcomes::default(),
    };
    let new = Submission { id: PIPELINE, class: Class::new(0), priority: 0, jobs, needs: &[] };
    let plan = Plan::of(&new, write).unwrap();
    if let Some(plan) = &plan {
        (pipeline.outcomes, pipeline.owes) = (Outcomes::new(plan.jobs.len()), true);
    }
    let mut rows = Vec::new();
    for new in jobs {
        let row = fresh_job(now, new, write);
        pipeline.absorb(plan.as_ref(), None, Some(&row));
        rows.push(Change { expect: None, row: Row::Job(row) });
    }
    rows.push(Change { expect: None, row: Row::Pipeline(pipeline) });
    rows.extend(plan.map(|plan| Change { expect: None, row: Row::Plan(plan) }));
    assert!(db.write(&rows));
    db
}

/// Whether some job is owed a decision.
pub fn owes(plan: &Plan, pipeline: &Pipeline) -> bool {
    let is_owed = |place: &usize| match pipeline.outcomes.get(*place) {
        JobClass::Undecided => {
            pipeline.aborted_at.is_some() || plan.verdict(&pipeline.outcomes, *place) != NeedsVerdict::Wait
        }
        JobClass::Skipped
        | JobClass::Active
        | JobClass::Ignored
        | JobClass::Good
        | JobClass::Failed
        | JobClass::Stopped => false,
    };
    (0..plan.jobs.len()).any(|place| is_owed(&place))
}

fn fresh_job(now: Timestamp, new: &NewJob, write: WriteId) -> Job {
    Job {
        key: JobKey { job: new.id, attempt: Attempt::FIRST },
        pipeline: PIPELINE,
        version: Version::FIRST,
        write,
        spec: new.spec,
        tag: Tag::OTHER,
        priority: 0,
        state: State::Unstart,
        reason: Reason::Submitted,
        since: now,
        until: Timestamp::MAX,
        timeout_at: Timestamp::MAX,
        sequence: new.id.get(),
        delivery: None,
        entry: Entry::Run,
        tally: Tally::default(),
        outcome: None,
        start_by: Timestamp::MAX,
        finish_by: Timestamp::MAX,
    }
}

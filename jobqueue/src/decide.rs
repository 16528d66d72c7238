//! Decisions: which jobs of a pipeline may run now. Pure functions over the pipeline's rows.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::event::{Event, Stopper};
use crate::filter::{Filters, weather};
use crate::id::JobId;
use crate::job::{Job, State, When};
use crate::outcome::JobClass;
use crate::pipeline::Pipeline;
use crate::plan::{Graph, NeedsVerdict, Owed, Plan};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::transition::{Stamp, revive, step};

/// The maximum number of jobs that one write opens, skips, revives or stops; the next write goes on with the rest.
pub(crate) const PAID: usize = 64;

/// Decides one pipeline: opens, skips, revives or stops its jobs, at most 64 at a time.
///
/// With a plan, each job that no longer waits is opened or skipped, and each that was skipped because of a job that has
/// changed is revived. Without a plan, the next batch is opened if no job is in progress. If the pipeline was aborted,
/// its jobs are stopped. While the row says [`owes`](Pipeline::owes), decide again.
///
/// `jobs` are the latest attempts of the pipeline's jobs: those that have not ended, and with a plan also those that were
/// skipped. Rows are changed in place, a revived job's becomes that of its next attempt; how many rows were changed is
/// returned. They carry `stamp`'s write id and belong into one atomic write with the pipeline's row: an attempt whose
/// version is [`Version::FIRST`](crate::Version::FIRST) is inserted. Deciding again changes nothing, and the version of the
/// pipeline's row lets one of two decisions win. A job of which the host must still be asked is left alone.
pub fn decide(
    now: Timestamp,
    pipeline: &mut Pipeline,
    plan: Option<&Plan>,
    jobs: &mut [Job],
    filters: &Filters,
    stamp: &Stamp,
) -> usize {
    let graph = plan.map(|plan| Graph::new(plan.clone()));
    let judge = |pipeline: &Pipeline, job: &Job, unwanted: Option<Reason>| {
        filters.judge(now, pipeline, job, unwanted).map_or(Judged::Ask, |verdict| Judged::So(Event::Decide(verdict)))
    };
    decide_up_to(PAID, now, pipeline, graph.as_ref(), jobs, &judge, stamp)
}

/// The judgement on a job that no longer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// This event applies.
    So(Event),
    /// The host must be asked first.
    Ask,
    /// Something must be read first.
    Later,
}

/// Judges a job that is wanted, or unwanted for a reason.
pub(crate) type Judge<'a> = &'a dyn Fn(&Pipeline, &Job, Option<Reason>) -> Judged;

/// Decides at most so many jobs of a pipeline with a plan.
pub(crate) fn decide_up_to(
    limit: usize,
    now: Timestamp,
    pipeline: &mut Pipeline,
    graph: Option<&Graph>,
    jobs: &mut [Job],
    judge: Judge<'_>,
    stamp: &Stamp,
) -> usize {
    let (mut changed, owed) = (0, pipeline.owes);
    if pipeline.aborted_at.is_some() {
        changed = stop(now, pipeline, graph, jobs, stamp);
    } else if let Some(graph) = graph {
        let find = |id: JobId| jobs.iter().find(|job| job.id() == id).copied();
        let paid = pay(now, pipeline, graph, graph.places().collect(), find, judge, stamp, limit);
        changed = paid.rows.len();
        for row in paid.rows {
            if let Some(job) = jobs.iter_mut().find(|job| job.id() == row.id()) {
                *job = row;
            }
        }
    } else {
        // Each round takes at least one job out of `Unstart`, so this ends.
        while pipeline.remaining == 0 {
            let Some(order) = next_order(jobs) else { break };
            let batch = || jobs.iter().filter(|job| job.state == State::Unstart && job.spec.order == order);
            // All of a batch are judged by the same weather.
            let before = pipeline.clone();
            let open = |job: &Job| judge(&before, job, weather(&before, job));
            if batch().any(|job| !matches!(open(job), Judged::So(_))) {
                break;
            }
            pipeline.order = order;
            for job in jobs.iter_mut().filter(|job| job.state == State::Unstart && job.spec.order == order) {
                let Judged::So(event) = open(job) else { continue };
                changed += apply(now, pipeline, None, job, &event, stamp);
            }
        }
    }
    if changed == 0 && owed && !pipeline.owes {
        // All that was owed something has ended by itself: the pipeline's own row says so.
        changed = 1;
    }
    if changed > 0 {
        *pipeline = pipeline.clone().written(stamp.write);
    }
    changed
}

/// Stops the jobs of an aborted pipeline that can be stopped; says in the row whether more are to be.
pub(crate) fn stop(
    now: Timestamp,
    pipeline: &mut Pipeline,
    graph: Option<&Graph>,
    jobs: &mut [Job],
    stamp: &Stamp,
) -> usize {
    let mut changed = 0;
    for job in jobs.iter_mut().filter(|job| !job.state.is_terminal() && job.state != State::Aborting) {
        if changed == PAID {
            break;
        }
        let place = graph.and_then(|graph| graph.place(job.id()));
        changed += apply(now, pipeline, place, job, &Event::Abort(Stopper::Pipeline), stamp);
    }
    if let Some(graph) = graph {
        pipeline.owes = graph.places().any(|at| graph.owed(pipeline, usize::from(at)).is_some());
    }
    changed
}

fn apply(
    now: Timestamp,
    pipeline: &mut Pipeline,
    place: Option<usize>,
    job: &mut Job,
    event: &Event,
    stamp: &Stamp,
) -> usize {
    let gone = JobClass::of(job);
    match step(now, job, event, stamp) {
        Ok(step) if step.wrote => {
            pipeline.trade(place, Some(gone), Some(JobClass::of(job)));
            1
        }
        Ok(_) | Err(_) => 0,
    }
}

/// The smallest order that has not begun: the next batch.
#[must_use]
pub(crate) fn next_order(jobs: &[Job]) -> Option<u32> {
    jobs.iter().filter(|job| job.state == State::Unstart).map(|job| job.spec.order).min()
}

/// The result of paying.
#[derive(Debug, Default)]
pub(crate) struct Paid {
    /// Rows as they become; one of version 1 is to be inserted.
    pub(crate) rows: Vec<Job>,
    /// Places of jobs that are still owed something, as there was no more room in this write.
    pub(crate) rest: BTreeSet<u16>,
    /// Places of jobs that are owed something and whose rows are not here.
    pub(crate) missing: BTreeSet<u16>,
    /// Jobs that the host must be asked about.
    pub(crate) asked: Vec<Job>,
}

/// Gives the jobs at the places `due`, and those that this touches, what they are owed, up to `limit` of them.
#[expect(clippy::too_many_arguments, reason = "it is one question about all of these")]
pub(crate) fn pay(
    now: Timestamp,
    pipeline: &mut Pipeline,
    graph: &Graph,
    mut due: BTreeSet<u16>,
    find: impl Fn(JobId) -> Option<Job>,
    judge: Judge<'_>,
    stamp: &Stamp,
    limit: usize,
) -> Paid {
    let mut paid = Paid::default();
    while let Some(at) = due.pop_first() {
        let place = usize::from(at);
        let Some(owed) = graph.owed(pipeline, place) else { continue };
        if paid.rows.len() >= limit {
            paid.rest.insert(at);
            continue;
        }
        let Some(id) = graph.plan.jobs.get(place).map(|planned| planned.job) else { continue };
        if paid.rows.iter().any(|row| row.id() == id) {
            // A row is written once in a write: the next one goes on with it.
            paid.rest.insert(at);
            continue;
        }
        let Some(mut job) = find(id).filter(|job| JobClass::of(job) == pipeline.outcomes.get(place)) else {
            paid.missing.insert(at);
            continue;
        };
        let gone = JobClass::of(&job);
        let event = match owed {
            Owed::Revival => {
                let Ok(next) = revive(now, &job, stamp) else { continue };
                pipeline.trade(Some(place), Some(gone), Some(JobClass::of(&next)));
                paid.rows.push(next);
                // It is undecided now, and perhaps waits for nothing: the next write decides it.
                due.insert(at);
                due.extend(graph.touched(&pipeline.outcomes, place));
                continue;
            }
            Owed::Stop => Event::Abort(Stopper::Pipeline),
            Owed::Decision(verdict) => match judge(pipeline, &job, unwanted(&job, verdict)) {
                Judged::So(event) => event,
                Judged::Ask => {
                    paid.asked.push(job);
                    continue;
                }
                Judged::Later => {
                    paid.rest.insert(at);
                    continue;
                }
            },
        };
        pipeline.order = pipeline.order.max(job.spec.order);
        if apply(now, pipeline, Some(place), &mut job, &event, stamp) > 0 {
            paid.rows.push(job);
            due.extend(graph.touched(&pipeline.outcomes, place));
        }
    }
    pipeline.owes = !(paid.rest.is_empty() && paid.missing.is_empty() && paid.asked.is_empty());
    paid
}

/// Why what it waits for does not want a job, if so.
const fn unwanted(job: &Job, verdict: NeedsVerdict) -> Option<Reason> {
    match verdict {
        NeedsVerdict::Skip { failed, skipped } => {
            // On failure it wants the failed ones, and on success none: what did not run speaks only then.
            let by_failed = match job.spec.when {
                When::OnFailure => failed == 0,
                When::OnSuccess | When::Always => failed > 0,
            };
            Some(if by_failed { Reason::NotWanted { failed } } else { Reason::NeedNotRun { skipped } })
        }
        NeedsVerdict::Run | NeedsVerdict::Wait => None,
    }
}

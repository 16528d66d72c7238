//! Which jobs of a pipeline may run now. A pure function over the pipeline's rows.

use crate::event::{Event, Stopper, Verdict};
use crate::job::{Job, Start, State, When};
use crate::pipeline::Pipeline;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::transition::{Stamp, transition};

/// Decides one pipeline: if nothing of it is in progress, its next batch is opened; if it was aborted, all its jobs
/// are stopped. Rows are changed in place; how many jobs were changed is returned.
///
/// `jobs` are all jobs of the pipeline that have not ended, latest attempts only. The rows changed carry `stamp`'s
/// write id and belong into one atomic write. Deciding again changes nothing: a job that was decided about is no
/// longer `Unstart`, and the version of the pipeline's row lets one of two decisions win.
pub fn decide(now: Timestamp, pipeline: &mut Pipeline, jobs: &mut [Job], stamp: &Stamp) -> usize {
    let mut changed = 0;
    if pipeline.aborted_at.is_some() {
        for job in jobs.iter_mut().filter(|job| job.state != State::Aborting) {
            changed += apply(now, pipeline, job, &Event::Abort(Stopper::Pipeline), stamp);
        }
    } else {
        // Each round takes at least one job out of `Unstart`, so this ends.
        while pipeline.remaining == 0 {
            let unstarted = jobs.iter().filter(|job| job.state == State::Unstart);
            let Some(order) = unstarted.map(|job| job.spec.order).min() else { break };
            pipeline.order = order;
            let failed = pipeline.failed.saturating_add(pipeline.stopped);
            let batch = jobs.iter_mut().filter(|job| job.state == State::Unstart && job.spec.order == order);
            for job in batch {
                let verdict = verdict(now, job, failed);
                changed += apply(now, pipeline, job, &Event::Decide(verdict), stamp);
            }
        }
    }
    if changed > 0 {
        *pipeline = pipeline.written(stamp.write);
    }
    changed
}

fn apply(now: Timestamp, pipeline: &mut Pipeline, job: &mut Job, event: &Event, stamp: &Stamp) -> usize {
    match transition(now, job, event, stamp) {
        Ok(change) if change.changes(job) => {
            pipeline.absorb(Some(job), Some(&change.row));
            *job = change.row;
            1
        }
        Ok(_) | Err(_) => 0,
    }
}

fn verdict(now: Timestamp, job: &Job, failed: u32) -> Verdict {
    let wanted = match job.spec.when {
        When::OnSuccess => failed == 0,
        When::OnFailure => failed > 0,
        When::Always => true,
    };
    if !wanted {
        return Verdict::Skip(Reason::NotWanted { failed });
    }
    match job.spec.start {
        Start::Auto => Verdict::Enqueue(Reason::Batch { order: job.spec.order }),
        Start::Manual => Verdict::Await(Timestamp::MAX, Reason::Approval),
        Start::After(ms) => {
            let at = now.after_millis(u64::from(ms));
            Verdict::Delay(at, Reason::StartAt { at })
        }
    }
}

//! Which jobs of a pipeline may run now. A pure function over the pipeline's rows.

use crate::event::{Event, Stopper};
use crate::filter::Filters;
use crate::job::{Job, State};
use crate::pipeline::{Pipeline, Share};
use crate::time::Timestamp;
use crate::transition::{Stamp, step};

/// Decides one pipeline: if nothing of it is in progress, its next batch is opened; if it was aborted, all its jobs
/// are stopped. Rows are changed in place; how many jobs were changed is returned.
///
/// `jobs` are all jobs of the pipeline that have not ended, latest attempts only. The rows changed carry `stamp`'s
/// write id and belong into one atomic write. Deciding again changes nothing: a job that was decided about is no
/// longer `Unstart`, and the version of the pipeline's row lets one of two decisions win. A batch of which the host must
/// still be asked about some job ([`Filters::must_ask`]) stays closed.
pub fn decide(now: Timestamp, pipeline: &mut Pipeline, jobs: &mut [Job], filters: &Filters, stamp: &Stamp) -> usize {
    let mut changed = 0;
    if pipeline.aborted_at.is_some() {
        for job in jobs.iter_mut().filter(|job| job.state != State::Aborting) {
            changed += apply(now, pipeline, job, &Event::Abort(Stopper::Pipeline), stamp);
        }
    } else {
        // Each round takes at least one job out of `Unstart`, so this ends.
        while pipeline.remaining == 0 {
            let Some(order) = next_order(jobs) else { break };
            let batch = || jobs.iter().filter(|job| job.state == State::Unstart && job.spec.order == order);
            if batch().any(|job| filters.must_ask(now, pipeline, job)) {
                break;
            }
            pipeline.order = order;
            // All of a batch are judged by the same weather.
            let weather = pipeline.clone();
            for job in jobs.iter_mut().filter(|job| job.state == State::Unstart && job.spec.order == order) {
                let Some(verdict) = filters.judge(now, &weather, job) else { continue };
                changed += apply(now, pipeline, job, &Event::Decide(verdict), stamp);
            }
        }
    }
    if changed > 0 {
        *pipeline = pipeline.clone().written(stamp.write);
    }
    changed
}

fn apply(now: Timestamp, pipeline: &mut Pipeline, job: &mut Job, event: &Event, stamp: &Stamp) -> usize {
    let gone = Share::of(job);
    match step(now, job, event, stamp) {
        Ok(step) if step.wrote => {
            pipeline.trade(gone, Share::of(job));
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

//! Moves: the effect of each event on a job's row, once it is admitted.

use crate::event::{Act, Stopper, Verdict};
use crate::id::{CallId, PoolId, Worker};
use crate::job::{Delivery, Entry, Job, Late, Outcome, State};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::transition::{Action, Next, Stamp, Step, backoff};

/// The row moves to `state`, with no deadline.
fn enter(now: Timestamp, row: &mut Job, state: State, reason: Reason) -> Step {
    row.state = state;
    row.reason = reason;
    row.since = now;
    row.until = Timestamp::MAX;
    row.timeout_at = Timestamp::MAX;
    Step::WROTE
}

/// The row moves to a state in which nobody holds it.
pub(crate) fn release(now: Timestamp, row: &mut Job, state: State, reason: Reason) -> Step {
    row.delivery = None;
    let step = enter(now, row, state, reason);
    if state == State::Pending {
        count_from(now, row);
    }
    step
}

/// A worker may take the job from now on: its deadlines count from the first such moment. What goes on after a snooze or a
/// callback has been taken before.
fn count_from(now: Timestamp, row: &mut Job) {
    let policy = row.spec.policy;
    let after = |ms: u32| if ms == 0 { Timestamp::MAX } else { now.after_millis(u64::from(ms)) };
    if row.start_by == Timestamp::MAX && row.entry == Entry::Run {
        row.start_by = after(policy.start_by_ms);
    }
    if row.finish_by == Timestamp::MAX {
        row.finish_by = after(policy.finish_by_ms);
    }
}

/// The row waits without a worker until a time.
fn wait(now: Timestamp, row: &mut Job, state: State, until: Timestamp, reason: Reason) -> Step {
    let step = release(now, row, state, reason);
    row.until = until.max(now);
    step
}

pub(crate) fn decide(now: Timestamp, row: &mut Job, verdict: Verdict) -> Step {
    // A suspended job that is sent on without its callback begins anew.
    row.entry = Entry::Run;
    match verdict {
        Verdict::Enqueue(reason) => release(now, row, State::Pending, reason),
        Verdict::Delay(until, reason) => wait(now, row, State::Delayed, until, reason),
        Verdict::Await(until, reason) => wait(now, row, State::Suspended, until, reason),
        Verdict::Skip(reason) => release(now, row, State::Skipped, reason),
        Verdict::Reuse(reason) => release(now, row, State::Reused, reason),
    }
}

pub(crate) fn deliver(now: Timestamp, row: &mut Job, worker: Worker, pool: PoolId, pull: CallId) -> Step {
    let step = enter(now, row, State::Scheduled, Reason::Pulled);
    row.delivery = Some(Delivery { worker, pool, pull, version: row.version, write: row.write });
    row.until = now.after_millis(u64::from(row.spec.policy.ack_ms));
    Step { action: Action::Assign, ..step }
}

/// The row runs, if it did not before.
fn start(now: Timestamp, row: &mut Job) {
    if row.state == State::Running {
        return;
    }
    enter(now, row, State::Running, Reason::Acked);
    row.start_by = Timestamp::MAX;
    let policy = &row.spec.policy;
    row.until = now.after_millis(u64::from(policy.lease_ms));
    row.timeout_at = match policy.timeout_ms {
        0 => Timestamp::MAX,
        limit => now.after_millis(u64::from(limit)),
    };
}

pub(crate) fn work(now: Timestamp, row: &mut Job, act: Act, stamp: &Stamp) -> Step {
    let lease = now.after_millis(u64::from(row.spec.policy.lease_ms));
    match act {
        // A repeated ack is fine, and changes nothing.
        Act::Ack if row.state != State::Scheduled => Step::SAME,
        Act::Ack => {
            start(now, row);
            Step::WROTE
        }
        Act::Heartbeat if row.state == State::Aborting => Step::SAME,
        Act::Heartbeat => {
            row.until = row.until.max(lease);
            Step::WROTE
        }
        Act::Pause(until) => {
            unpause(now, row, lease);
            let longer = until.millis_since(lease);
            row.until = lease.after_millis(longer);
            if row.timeout_at != Timestamp::MAX {
                row.timeout_at = row.timeout_at.after_millis(longer);
            }
            Step::WROTE
        }
        Act::Resume => unpause(now, row, lease),
        Act::Nack => nack(now, row, stamp),
        Act::Snooze(until) => {
            row.entry = Entry::Resume;
            wait(now, row, State::Delayed, until, Reason::Snoozed)
        }
        Act::Suspend(until) => {
            let step = enter(now, row, State::Suspended, Reason::Callback);
            row.until = until.max(now);
            step
        }
        Act::Poll(at) => {
            if row.state != State::Polling {
                // The limit counts from the acknowledgement, however often the result is asked for.
                start(now, row);
            }
            let limit = row.timeout_at;
            let step = enter(now, row, State::Polling, Reason::External);
            row.timeout_at = limit;
            row.until = at.max(now);
            step
        }
        Act::Report(outcome) => report(now, row, outcome, stamp),
    }
}

/// The pause ends: its unspent part is taken off the time limit again. Without a pause the lease is just extended.
fn unpause(now: Timestamp, row: &mut Job, lease: Timestamp) -> Step {
    if row.timeout_at != Timestamp::MAX {
        let unspent = row.until.millis_since(lease);
        let limit = row.timeout_at.as_millis().saturating_sub(unspent);
        row.timeout_at = Timestamp::from_millis(limit).max(now);
    }
    row.until = lease;
    Step::WROTE
}

fn nack(now: Timestamp, row: &mut Job, stamp: &Stamp) -> Step {
    if row.state == State::Aborting {
        return stopped(now, row, Reason::Reported, stamp);
    }
    row.tally.nacks = row.tally.nacks.saturating_add(1);
    let nacks = row.tally.nacks;
    if nacks >= row.spec.policy.max_nacks {
        return release(now, row, State::Dead, Reason::Nacked { delay_ms: 0, nacks });
    }
    let delay_ms = backoff(&row.spec.policy, nacks, stamp.chance);
    let until = now.after_millis(delay_ms);
    wait(now, row, State::Delayed, until, Reason::Nacked { delay_ms, nacks })
}

fn report(now: Timestamp, row: &mut Job, outcome: Outcome, stamp: &Stamp) -> Step {
    row.outcome = Some(outcome);
    if row.state == State::Aborting {
        // Recorded, not applied: the abort came first.
        return stopped(now, row, row.reason, stamp);
    }
    match outcome {
        Outcome::Succeeded => release(now, row, State::Succeeded, Reason::Reported),
        Outcome::Failed { .. } => failed(now, row, State::Failed, Reason::Reported, stamp),
        Outcome::FailedForGood { .. } => release(now, row, State::Failed, Reason::Reported),
    }
}

/// An attempt ends badly; another follows if the policy has one left.
fn failed(now: Timestamp, row: &mut Job, state: State, reason: Reason, stamp: &Stamp) -> Step {
    row.tally.failures = row.tally.failures.saturating_add(1);
    let (failures, limit) = (row.tally.failures, row.spec.policy.max_attempts);
    ended(now, row, state, reason, (failures, limit), stamp)
}

/// An attempt ends; another follows while the count of such ends is below its limit.
fn ended(
    now: Timestamp,
    row: &mut Job,
    state: State,
    reason: Reason,
    (count, limit): (u16, u16),
    stamp: &Stamp,
) -> Step {
    let step = release(now, row, state, reason);
    let delay_ms = backoff(&row.spec.policy, count, stamp.chance);
    // An attempt that could only begin when the job must have ended is none.
    let next = count < limit && now.after_millis(delay_ms) < row.finish_by;
    let next = next.then_some(Next { delay_ms, reason: Reason::Retry { delay_ms } });
    Step { next, ..step }
}

/// An abort is over: `TimedOut` if it was the time limit's, which may be tried again, or the deadline's for the whole job,
/// which may not; else `Aborted`.
fn stopped(now: Timestamp, row: &mut Job, reason: Reason, stamp: &Stamp) -> Step {
    if matches!(row.reason, Reason::NotFinished { .. }) {
        release(now, row, State::TimedOut, row.reason)
    } else if matches!(row.reason, Reason::OverTime { .. }) {
        failed(now, row, State::TimedOut, row.reason, stamp)
    } else {
        release(now, row, State::Aborted, reason)
    }
}

/// The deadline of a row that is due has passed.
pub(crate) fn expire(now: Timestamp, row: &mut Job, stamp: &Stamp) -> Step {
    let due = row.due().unwrap_or(now);
    let over = row.timeout_at <= now;
    if row.finish_by <= now && !matches!(row.state, State::Scheduled | State::Aborting) {
        let reason = Reason::NotFinished { due: row.finish_by };
        let runs = row.state == State::Running;
        return if runs { stop(now, row, reason) } else { release(now, row, State::TimedOut, reason) };
    }
    match row.state {
        State::Pending => {
            let state = if row.spec.policy.late == Late::Fails { State::Failed } else { State::Skipped };
            release(now, row, state, Reason::NotStarted { due })
        }
        State::Scheduled => unacked(now, row, |unacked| Reason::NoAck { due, unacked }),
        State::Running if over => {
            let due = row.timeout_at;
            stop(now, row, Reason::OverTime { due })
        }
        State::Running => crashed(now, row, |crashes| Reason::LeaseLost { due, crashes }, stamp),
        State::Polling if over => {
            let due = row.timeout_at;
            failed(now, row, State::TimedOut, Reason::OverTime { due }, stamp)
        }
        State::Polling => {
            // Asked for again should the answer be lost.
            row.until = now.after_millis(u64::from(row.spec.policy.lease_ms));
            Step { action: Action::Poll, ..Step::WROTE }
        }
        State::Suspended if !matches!(row.reason, Reason::Held { .. }) => {
            release(now, row, State::TimedOut, Reason::OverTime { due })
        }
        State::Suspended | State::Delayed => release(now, row, State::Pending, Reason::DelayOver { due }),
        State::Aborting => stopped(now, row, Reason::AbortUnanswered { due }, stamp),
        State::Unstart
        | State::Succeeded
        | State::Failed
        | State::Aborted
        | State::TimedOut
        | State::Skipped
        | State::Reused
        | State::Superseded
        | State::Dead => Step::SAME,
    }
}

/// The worker fell silent after its acknowledgement. That spends none of the attempts that failures are given: it says
/// less about the job.
fn crashed(now: Timestamp, row: &mut Job, reason: impl FnOnce(u16) -> Reason, stamp: &Stamp) -> Step {
    row.tally.crashes = row.tally.crashes.saturating_add(1);
    let (crashes, limit) = (row.tally.crashes, row.spec.policy.max_crashes);
    let state = if crashes >= limit { State::Dead } else { State::Failed };
    ended(now, row, state, reason(crashes), (crashes, limit), stamp)
}

/// The worker that holds the row is dead: what would happen when its deadline passes happens now.
pub(crate) fn gone(now: Timestamp, row: &mut Job, stamp: &Stamp) -> Step {
    let reason = |crashes| Reason::WorkerGone { crashes };
    if row.state == State::Running {
        return crashed(now, row, reason, stamp);
    }
    let reason = reason(row.tally.crashes);
    if row.state == State::Aborting {
        return stopped(now, row, reason, stamp);
    }
    unacked(now, row, |_| reason)
}

/// The delivery was never acknowledged; that says nothing about the job.
fn unacked(now: Timestamp, row: &mut Job, reason: impl FnOnce(u16) -> Reason) -> Step {
    row.tally.unacked = row.tally.unacked.saturating_add(1);
    let unacked = row.tally.unacked;
    if unacked >= row.spec.policy.max_unacked {
        return release(now, row, State::Dead, Reason::NeverAcked { unacked });
    }
    release(now, row, State::Pending, reason(unacked))
}

/// The worker is told to stop.
fn stop(now: Timestamp, row: &mut Job, reason: Reason) -> Step {
    let step = enter(now, row, State::Aborting, reason);
    row.until = now.after_millis(u64::from(row.spec.policy.abort_ms));
    Step { action: Action::Abort, ..step }
}

pub(crate) fn abort(now: Timestamp, row: &mut Job, stopper: Stopper) -> Step {
    let reason = match stopper {
        Stopper::User => Reason::AbortAsked,
        Stopper::Pipeline => Reason::PipelineAborted,
    };
    match row.state {
        State::Running | State::Polling => stop(now, row, reason),
        State::Aborting if matches!(row.reason, Reason::OverTime { .. } | Reason::NotFinished { .. }) => {
            // The time limit was first, but somebody wants no further attempt.
            row.reason = reason;
            Step::WROTE
        }
        State::Aborting => Step::SAME,
        State::Unstart
        | State::Pending
        | State::Scheduled
        | State::Suspended
        | State::Delayed
        | State::Succeeded
        | State::Failed
        | State::Aborted
        | State::TimedOut
        | State::Skipped
        | State::Reused
        | State::Superseded
        | State::Dead => release(now, row, State::Aborted, reason),
    }
}

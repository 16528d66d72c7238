//! One job, one event: what the row becomes. A total, pure function.

use crate::event::{Act, Event, Stopper, Verdict};
use crate::id::{CallId, LeaseToken, PoolId, Version, Worker, WriteId};
use crate::job::{Delivery, Entry, Job, Outcome, Policy, State, Tally};
use crate::reason::{Reason, Refused};
use crate::rng::mix;
use crate::table::{Cell, Rule, cell};
use crate::time::Timestamp;

/// What a change is signed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The change's write id, unique for ever.
    pub write: WriteId,
    /// Chance for jitter, from a seed.
    pub chance: u64,
}

/// What must be done once a change is committed, and not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Nothing more than the row says.
    None,
    /// Give the job to the worker that the row names.
    Assign,
    /// Tell the worker that the row names to stop.
    Abort,
    /// Ask for the external result.
    Poll,
}

/// A change of a job that may be proposed: write both rows, or neither, if the job's row still has its old version.
#[must_use = "a transition happens only once it is persisted"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transition {
    /// The row as it becomes; equal to the old one, version included, if nothing changes.
    pub row: Job,
    /// The next attempt's row, to be inserted.
    pub next: Option<Job>,
    /// What follows the commit.
    pub action: Action,
}

impl Transition {
    /// Whether there is anything to persist.
    #[must_use]
    pub fn changes(&self, old: &Job) -> bool {
        self.next.is_some() || self.row.version != old.version
    }
}

/// What `event` makes of `job` at `now`.
///
/// The result's row has the next version and `stamp`'s write id. Whether the job's pipeline still allows it is not
/// asked here: see [`Pipeline::absorb`](crate::Pipeline::absorb), whose row goes into the same write.
///
/// # Errors
///
/// The rule that refuses the event: the [table](crate::table::cell)'s, or [`Refused::Unknown`],
/// [`Refused::StaleLease`], [`Refused::NotOwner`] for a token that is another row's, another delivery's, another
/// worker's, and [`Refused::NotDue`] before the row's deadline.
pub fn transition(now: Timestamp, job: &Job, event: &Event, stamp: &Stamp) -> Result<Transition, Refused> {
    let mut row = *job;
    let step = step(now, &mut row, event, stamp)?;
    let next = step.next.map(|next| attempt(now, &row, stamp, next));
    Ok(Transition { row, next, action: step.action })
}

/// The attempt that follows an ended one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    delay_ms: u64,
    reason: Reason,
}

/// What an event did to a row in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Whether the row itself was written.
    pub(crate) wrote: bool,
    pub(crate) next: Option<Next>,
    pub(crate) action: Action,
}

impl Step {
    /// The row was written, and that is all.
    const WROTE: Self = Self { wrote: true, next: None, action: Action::None };
    /// The event is right, and there is nothing to write.
    const SAME: Self = Self { wrote: false, next: None, action: Action::None };

    /// Whether there is anything to persist.
    pub(crate) const fn changes(&self) -> bool {
        self.wrote || self.next.is_some()
    }
}

/// Does in place what [`transition`] says. A refusal, or an event after which there is nothing to write, leaves the row
/// as it was.
pub(crate) fn step(now: Timestamp, row: &mut Job, event: &Event, stamp: &Stamp) -> Result<Step, Refused> {
    let allowed = admit(row, event)?;
    let (state, version, write) = (row.state, row.version, row.write);
    refuse_early(now, row, event)?;
    row.version = version.next();
    row.write = stamp.write;
    let step = match *event {
        Event::Decide(verdict) => decide(now, row, verdict),
        Event::Deliver { worker, pool, pull } => deliver(now, row, worker, pool, pull),
        Event::Work { act, .. } => work(now, row, act, stamp),
        Event::Callback { .. } => {
            row.entry = Entry::Callback;
            release(now, row, State::Pending, Reason::Called)
        }
        Event::Approve => release(now, row, State::Pending, Reason::Approved),
        Event::Supersede { by } => release(now, row, State::Superseded, Reason::Superseded { by }),
        Event::Expire => expire(now, row, stamp),
        Event::Abort(stopper) => abort(now, row, stopper),
        Event::Gone { .. } => gone(now, row, stamp),
        Event::Retry => Step { next: Some(Next { delay_ms: 0, reason: Reason::Revived }), ..Step::SAME },
    };
    if !step.wrote {
        (row.version, row.write) = (version, write);
    }
    debug_assert!(match allowed {
        Cell::To(states) => states.contains(&row.state),
        Cell::New => step.next.is_some() && !step.wrote && row.state == state,
        Cell::No(_) => false,
    });
    Ok(step)
}

/// What the table allows and the row's own numbers do not.
fn refuse_early(now: Timestamp, row: &Job, event: &Event) -> Result<(), Refused> {
    let refused = match event {
        Event::Expire if row.due().is_none_or(|due| due > now) => Refused::NotDue,
        Event::Gone { worker } if row.delivery.is_none_or(|delivery| delivery.worker != *worker) => Refused::NotOwner,
        Event::Approve if !matches!(row.reason, Reason::Approval | Reason::Held { .. }) => {
            Refused::WrongState(row.state)
        }
        Event::Decide(_)
        | Event::Deliver { .. }
        | Event::Work { .. }
        | Event::Callback { .. }
        | Event::Approve
        | Event::Supersede { .. }
        | Event::Expire
        | Event::Abort(_)
        | Event::Retry
        | Event::Gone { .. } => return Ok(()),
    };
    Err(refused)
}

/// The rules that need no clock: tokens first, then the table.
fn admit(job: &Job, event: &Event) -> Result<Cell, Refused> {
    let state = job.state;
    let allowed = cell(state, event.kind());
    let claim = match *event {
        Event::Work { worker, token, .. } => Some((Some(worker), token)),
        Event::Callback { token } => Some((None, token)),
        Event::Decide(_)
        | Event::Deliver { .. }
        | Event::Approve
        | Event::Supersede { .. }
        | Event::Expire
        | Event::Abort(_)
        | Event::Retry
        | Event::Gone { .. } => None,
    };
    if let Some((worker, token)) = claim {
        check_token(job, worker, token)?;
    }
    match allowed {
        Cell::To(_) | Cell::New => Ok(allowed),
        Cell::No(Rule::Terminal) => Err(Refused::Terminal(state)),
        Cell::No(Rule::StaleLease) => Err(Refused::StaleLease),
        Cell::No(Rule::WrongState) => Err(Refused::WrongState(state)),
        Cell::No(Rule::NotDue) => Err(Refused::NotDue),
        Cell::No(Rule::StillOpen) => Err(Refused::StillOpen(state)),
    }
}

fn check_token(job: &Job, worker: Option<Worker>, token: LeaseToken) -> Result<(), Refused> {
    if token.key.job != job.key.job || token.key.attempt > job.key.attempt {
        return Err(Refused::Unknown);
    }
    if token.key.attempt < job.key.attempt {
        return Err(Refused::StaleLease);
    }
    if job.state.is_terminal() {
        return Err(Refused::Terminal(job.state));
    }
    if job.token() != Some(token) {
        return Err(Refused::StaleLease);
    }
    // Whoever polls an external result is not the worker that began it: the token alone speaks.
    let owner = job.delivery.map(|d| d.worker);
    if job.state != State::Polling && worker.is_some() && worker != owner {
        return Err(Refused::NotOwner);
    }
    Ok(())
}

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
fn release(now: Timestamp, row: &mut Job, state: State, reason: Reason) -> Step {
    row.delivery = None;
    enter(now, row, state, reason)
}

/// The row waits without a worker until a time.
fn wait(now: Timestamp, row: &mut Job, state: State, until: Timestamp, reason: Reason) -> Step {
    let step = release(now, row, state, reason);
    row.until = until.max(now);
    step
}

fn decide(now: Timestamp, row: &mut Job, verdict: Verdict) -> Step {
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

fn deliver(now: Timestamp, row: &mut Job, worker: Worker, pool: PoolId, pull: CallId) -> Step {
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
    let policy = &row.spec.policy;
    row.until = now.after_millis(u64::from(policy.lease_ms));
    row.timeout_at = match policy.timeout_ms {
        0 => Timestamp::MAX,
        limit => now.after_millis(u64::from(limit)),
    };
}

fn work(now: Timestamp, row: &mut Job, act: Act, stamp: &Stamp) -> Step {
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
    let next = (count < limit).then(|| {
        let delay_ms = backoff(&row.spec.policy, count, stamp.chance);
        Next { delay_ms, reason: Reason::Retry { delay_ms } }
    });
    Step { next, ..step }
}

/// An abort is over: `TimedOut` if it was the time limit's, which may be tried again, else `Aborted`.
fn stopped(now: Timestamp, row: &mut Job, reason: Reason, stamp: &Stamp) -> Step {
    if matches!(row.reason, Reason::OverTime { .. }) {
        failed(now, row, State::TimedOut, row.reason, stamp)
    } else {
        release(now, row, State::Aborted, reason)
    }
}

/// The deadline of a row that is due has passed.
fn expire(now: Timestamp, row: &mut Job, stamp: &Stamp) -> Step {
    let due = row.due().unwrap_or(now);
    let over = row.timeout_at <= now;
    match row.state {
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
        | State::Pending
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
fn gone(now: Timestamp, row: &mut Job, stamp: &Stamp) -> Step {
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
    release(now, row, State::Pending, reason(row.tally.unacked))
}

/// The worker is told to stop.
fn stop(now: Timestamp, row: &mut Job, reason: Reason) -> Step {
    let step = enter(now, row, State::Aborting, reason);
    row.until = now.after_millis(u64::from(row.spec.policy.abort_ms));
    Step { action: Action::Abort, ..step }
}

fn abort(now: Timestamp, row: &mut Job, stopper: Stopper) -> Step {
    let reason = match stopper {
        Stopper::User => Reason::AbortAsked,
        Stopper::Pipeline => Reason::PipelineAborted,
    };
    match row.state {
        State::Running | State::Polling => stop(now, row, reason),
        State::Aborting if matches!(row.reason, Reason::OverTime { .. }) => {
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

/// The row of the attempt after `job`'s, to be inserted.
pub(crate) fn attempt(now: Timestamp, job: &Job, stamp: &Stamp, next: Next) -> Job {
    let mut row = *job;
    let state = if next.delay_ms == 0 { State::Pending } else { State::Delayed };
    release(now, &mut row, state, next.reason);
    row.key.attempt = job.key.attempt.next();
    row.version = Version::FIRST;
    row.write = stamp.write;
    row.entry = Entry::Run;
    row.outcome = None;
    if next.delay_ms > 0 {
        row.until = now.after_millis(next.delay_ms);
    }
    // What ended earlier attempts is remembered, as it speaks of the job; a revival forgives it.
    let Tally { failures, crashes, .. } = job.tally;
    let kept = Tally { failures, crashes, ..Tally::default() };
    row.tally = if next.reason == Reason::Revived { Tally::default() } else { kept };
    row
}

/// The row of an ended job's next attempt, which waits for its batch again.
///
/// # Errors
///
/// What [`Event::Retry`] is refused with.
pub fn revive(now: Timestamp, job: &Job, stamp: &Stamp) -> Result<Job, Refused> {
    admit(job, &Event::Retry)?;
    let mut row = attempt(now, job, stamp, Next { delay_ms: 0, reason: Reason::Revived });
    row.state = State::Unstart;
    Ok(row)
}

/// The `count`-th back-off in milliseconds: doubled each time, capped, and a part of its upper half left to chance
/// ("equal jitter": Brooker, "Exponential Backoff And Jitter", 2015).
#[must_use]
pub fn backoff(policy: &Policy, count: u16, chance: u64) -> u64 {
    let doublings = u32::from(count.saturating_sub(1)).min(31);
    let full = (u64::from(policy.backoff_ms) << doublings).min(u64::from(policy.backoff_cap_ms));
    let half = full / 2;
    full - mix(chance) % (half + 1)
}

//! Transitions: what one event makes of one job's row. A total, pure function.

use crate::event::Event;
use crate::id::{LeaseToken, Version, Worker, WriteId};
use crate::job::{Entry, Job, Policy, State, Tally};
use crate::moves::{abort, decide, deliver, expire, gone, release, work};
use crate::reason::{Reason, Refused};
use crate::rng::mix;
use crate::table::{Cell, Rule, cell};
use crate::time::Timestamp;

/// The maximum difference, in milliseconds, between the clocks of engines, or between two readings of one clock.
///
/// A reading that is behind the last one by no more is lifted to it. One further behind says that a clock was wrong: what
/// was set by a time that has not come counts from the new reading on.
pub const CLOCK_SKEW_MS: u64 = 5_000;

/// The stamp of a change: its write id, and randomness for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The change's write id, unique for ever.
    pub write: WriteId,
    /// The random number for jitter, drawn from a seed.
    pub chance: u64,
}

/// The action to take once a change is committed, and not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// No action.
    None,
    /// Give the job to the worker that the row names.
    Assign,
    /// Tell the worker that the row names to stop.
    Abort,
    /// Ask for the external result.
    Poll,
}

/// A proposed change of a job: write both rows, or neither, if the job's row still has its old version.
#[must_use = "a transition happens only once it is persisted"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transition {
    /// The job's new row; equal to the old one, version included, if nothing changes.
    pub row: Job,
    /// The next attempt's row, to be inserted.
    pub next: Option<Job>,
    /// The action to take after the commit.
    pub action: Action,
}

impl Transition {
    /// Whether there is anything to persist.
    #[must_use]
    pub fn changes(&self, old: &Job) -> bool {
        self.next.is_some() || self.row.version != old.version
    }
}

/// Computes the transition of `job` by `event` at `now`.
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
    pub(crate) delay_ms: u64,
    pub(crate) reason: Reason,
}

/// The effect of an event on a row in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Whether the row itself was written.
    pub(crate) wrote: bool,
    pub(crate) next: Option<Next>,
    pub(crate) action: Action,
}

impl Step {
    /// The row was written, and that is all.
    pub(crate) const WROTE: Self = Self { wrote: true, next: None, action: Action::None };
    /// The event is right, and there is nothing to write.
    pub(crate) const SAME: Self = Self { wrote: false, next: None, action: Action::None };

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

/// Refuses events that the table allows and the row's own numbers do not.
fn refuse_early(now: Timestamp, row: &Job, event: &Event) -> Result<(), Refused> {
    let refused = match event {
        // A row of a time that has not come was written by a clock that was wrong: whoever watches it decides.
        Event::Expire if row.due().is_none_or(|due| due > now && row.since.millis_since(now) <= CLOCK_SKEW_MS) => {
            Refused::NotDue
        }
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
    match event {
        Event::Work { worker, token, .. } => check_token(job, Some(worker), token)?,
        Event::Callback { token } => check_token(job, None, token)?,
        Event::Decide(_)
        | Event::Deliver { .. }
        | Event::Approve
        | Event::Supersede { .. }
        | Event::Expire
        | Event::Abort(_)
        | Event::Retry
        | Event::Gone { .. } => {}
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

fn check_token(job: &Job, worker: Option<&Worker>, token: &LeaseToken) -> Result<(), Refused> {
    if token.key.job != job.key.job || token.key.attempt > job.key.attempt {
        return Err(Refused::Unknown);
    }
    if token.key.attempt < job.key.attempt {
        return Err(Refused::StaleLease);
    }
    if job.state.is_terminal() {
        return Err(Refused::Terminal(job.state));
    }
    let Some(delivery) = &job.delivery else { return Err(Refused::StaleLease) };
    if (delivery.version, delivery.write) != (token.version, token.write) {
        return Err(Refused::StaleLease);
    }
    // Whoever polls an external result is not the worker that began it: the token alone speaks.
    if job.state != State::Polling && worker.is_some_and(|worker| *worker != delivery.worker) {
        return Err(Refused::NotOwner);
    }
    Ok(())
}

/// The row of the attempt after `job`'s, to be inserted.
pub(crate) fn attempt(now: Timestamp, job: &Job, stamp: &Stamp, next: Next) -> Job {
    let mut row = *job;
    row.entry = Entry::Run;
    row.start_by = Timestamp::MAX;
    if next.reason == Reason::Revived {
        row.finish_by = Timestamp::MAX;
    }
    let state = if next.delay_ms == 0 { State::Pending } else { State::Delayed };
    release(now, &mut row, state, next.reason);
    row.key.attempt = job.key.attempt.next();
    row.version = Version::FIRST;
    row.write = stamp.write;
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
    (row.start_by, row.finish_by) = (Timestamp::MAX, Timestamp::MAX);
    Ok(row)
}

/// The `count`-th back-off in milliseconds: doubled each time, capped, then longer by a random part of up to a half.
///
/// A third of the result is random, as "equal jitter" leaves a half (Brooker, "Exponential Backoff And Jitter", 2015).
///
/// ```
/// use tenon_jobqueue::{Policy, backoff};
///
/// let policy = Policy { backoff_ms: 1_000, backoff_cap_ms: 60_000, ..Policy::default() };
/// assert!((4_000..=6_000).contains(&backoff(&policy, 3, 42))); // doubled twice, then up to a half longer
/// ```
#[must_use]
pub fn backoff(policy: &Policy, count: u16, chance: u64) -> u64 {
    let doublings = u32::from(count.saturating_sub(1)).min(31);
    let full = (u64::from(policy.backoff_ms) << doublings).min(u64::from(policy.backoff_cap_ms));
    full + mix(chance) % (full / 2 + 1)
}

//! Commands that wait for a write or a read, and how they are tried.

use alloc::vec::Vec;

use super::Engine;
use super::Purpose;
use super::flight::Origin;
use crate::effect::{Answer, Change, Row, Want};
use crate::event::{Act, Event};
use crate::id::{CallId, JobId, PipelineId, PoolId, Ticket, Worker};
use crate::job::{Job, State};
use crate::pipeline::{Pipeline, PipelineState};
use crate::reason::{Reason, Refused};
use crate::store::NONE;
use crate::time::Timestamp;
use crate::transition::{Step, attempt, revive, step};

/// A pull under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Pull {
    pub(crate) pool: PoolId,
    pub(crate) worker: Worker,
    pub(crate) want: u32,
    /// When its patience ends.
    pub(crate) until: Timestamp,
    /// Deliveries, or readings of lost ones, under way.
    pub(crate) flying: u32,
    /// Jobs assigned.
    pub(crate) got: u32,
}

/// What a command wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Work {
    Submit(PipelineId),
    Event(JobId, Event),
    AbortPipeline(PipelineId),
    RetryPipeline(PipelineId),
    Pull(Pull),
}

/// A command that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Call {
    pub(crate) work: Work,
    /// How often it met a conflict.
    pub(crate) tries: u32,
    /// Whether the rows were read since it last waited; only then may it be refused.
    pub(crate) fresh: bool,
    /// Whether the engine asked it of itself, so that nobody waits for the answer.
    pub(crate) silent: bool,
}

impl Engine {
    /// Tries a command. `rows` are those just read for it, if any.
    pub(super) fn run(&mut self, id: CallId, rows: &[Row]) {
        let Some(call) = self.calls.get(id).copied() else { return };
        match call.work {
            Work::Event(job, event) => self.run_event(id, call, job, event, rows),
            Work::AbortPipeline(pipeline) => self.run_abort(id, call, pipeline, rows),
            Work::RetryPipeline(pipeline) => self.run_retry(id, call, pipeline, rows),
            Work::Submit(_) | Work::Pull(_) => {}
        }
    }

    /// Reads the rows before saying no, or says no if they were read.
    pub(super) fn refuse(&mut self, id: CallId, want: Want, why: Refused) {
        match self.calls.get(id) {
            Some(call) if call.fresh => self.answer(id, Answer::Refused(why)),
            Some(_) => self.ask(want, Purpose::Call(id)),
            None => {}
        }
    }

    /// The call is tried again when the write is settled; what was read for it is old by then.
    pub(super) fn wait_for(&mut self, id: CallId, ticket: Ticket) {
        if let Some(call) = self.calls.get_mut(id) {
            call.fresh = false;
        }
        if let Some(flight) = self.flights.get_mut(ticket) {
            flight.waiters.push(id);
        }
    }

    fn run_event(&mut self, id: CallId, call: Call, job: JobId, event: Event, rows: &[Row]) {
        let want = Want::Job(job);
        let at = self.store.find_job(job);
        let (old, pipe) = if let Some(at) = at {
            let Some(slot) = self.store.jobs.get(at) else { return };
            if let Some(ticket) = slot.lock.ticket() {
                return self.wait_for(id, ticket);
            }
            let pipe = Some(slot.pipe);
            let Some(row) = self.store.row(at) else { return };
            (row, pipe)
        } else {
            // An ended job is not kept in memory; what was read speaks for it.
            let Some(row) = latest(rows, job) else { return self.refuse(id, want, Refused::Unknown) };
            (row, self.store.find_pipe(row.pipeline))
        };
        let ticket = self.ticket();
        let mut row = old;
        let step = match step(self.now, &mut row, &event, &self.stamp(ticket)) {
            Ok(step) => step,
            Err(why) => return self.refuse(id, want, why),
        };
        if !step.changes() {
            // A repeated ack is believed only of a row that was read again.
            if call.fresh {
                return self.answer(id, done(&row));
            }
            return self.ask(want, Purpose::Call(id));
        }
        if self.is_thin(&old, &event) {
            return self.answer(id, done(&old));
        }
        let moves = moves_pipeline(&old, &row, &step);
        let slot = pipe.and_then(|pipe| self.store.pipes.get(pipe));
        if let Some(other) = slot.and_then(|slot| slot.lock.ticket()).filter(|_| moves) {
            return self.wait_for(id, other);
        }
        let known = slot.and_then(|slot| slot.row).or_else(|| pipeline_row(rows, old.pipeline));
        if known.is_none() && moves {
            return self.refuse(id, want, Refused::Unknown);
        }
        if let Some(key) = old.held_key().filter(|_| !self.key_is_clear(&old, &row)) {
            return self.wait_for_key(id, key);
        }
        if at.is_none() && !old.state.is_terminal() {
            // It had no room, or its pipeline has ended; while it is written it must have a place.
            self.apply_job(&old, None);
            self.whole(old.pipeline);
        }
        self.stage(ticket, at.unwrap_or(NONE), (&old, &row), step, known);
        self.propose(ticket, Origin::Call(id));
    }

    /// Puts a job's change, and what it moves in its pipeline, into the next write.
    pub(super) fn stage(
        &mut self,
        ticket: Ticket,
        at: u32,
        (old, row): (&Job, &Job),
        step: Step,
        pipeline: Option<Pipeline>,
    ) {
        let stamp = self.stamp(ticket);
        let mut next = step.next.map(|next| attempt(self.now, row, &stamp, next));
        if let Some(mut pipeline) = pipeline.filter(|_| moves_pipeline(old, row, &step)) {
            let expect = Some(pipeline.version);
            if !step.wrote {
                // Somebody revives the job.
                pipeline.aborted_at = None;
            } else if pipeline.aborted_at.is_some() {
                // Whoever aborted the pipeline wants no further attempt.
                next = None;
            }
            pipeline.absorb(Some(old), Some(next.as_ref().unwrap_or(row)));
            let place = self.store.jobs.get(at).map_or(NONE, |slot| slot.pipe);
            self.put(place, &Change { expect, row: Row::Pipeline(pipeline.written(stamp.write)) });
        }
        if step.wrote {
            self.put(at, &Change { expect: Some(old.version), row: Row::Job(*row) });
            if old.spec.key.is_some() {
                self.stage_key(old, row, stamp.write);
            }
        }
        if let Some(next) = next {
            self.put(NONE, &Change { expect: None, row: Row::Job(next) });
        }
    }

    /// Whether a heartbeat comes so soon after the last that it need not be written.
    fn is_thin(&self, row: &Job, event: &Event) -> bool {
        let Event::Work { act: Act::Heartbeat, .. } = event else { return false };
        let lease = u64::from(row.spec.policy.lease_ms);
        let left = row.until.millis_since(self.now);
        lease.saturating_sub(left) * 100 < lease * u64::from(self.config.heartbeat_percent)
    }

    fn run_abort(&mut self, id: CallId, call: Call, pipeline: PipelineId, rows: &[Row]) {
        let want = Want::Pipeline(pipeline);
        let slot = self.store.find_pipe(pipeline).and_then(|at| self.store.pipes.get(at));
        if let Some(ticket) = slot.and_then(|slot| slot.lock.ticket()) {
            return self.wait_for(id, ticket);
        }
        let known = slot.and_then(|slot| slot.row).or_else(|| pipeline_row(rows, pipeline));
        let Some(mut row) = known else { return self.refuse(id, want, Refused::Unknown) };
        match row.state() {
            PipelineState::Open if row.aborted_at.is_some() && call.fresh => self.answer(id, Answer::Aborting),
            PipelineState::Open if row.aborted_at.is_some() => self.ask(want, Purpose::Call(id)),
            PipelineState::Open => {
                let ticket = self.ticket();
                let expect = Some(row.version);
                row.aborted_at = Some(self.now);
                let row = row.written(self.write_id(ticket));
                self.put(NONE, &Change { expect, row: Row::Pipeline(row) });
                self.propose(ticket, Origin::Call(id));
            }
            ended @ (PipelineState::Succeeded | PipelineState::Failed | PipelineState::Aborted) => {
                self.refuse(id, want, Refused::Closed(ended));
            }
        }
    }

    fn run_retry(&mut self, id: CallId, call: Call, pipeline: PipelineId, rows: &[Row]) {
        let want = Want::Pipeline(pipeline);
        if !call.fresh {
            return self.ask(want, Purpose::Call(id));
        }
        let lock = self.store.find_pipe(pipeline).and_then(|at| self.store.pipes.get(at)?.lock.ticket());
        if let Some(ticket) = lock {
            return self.wait_for(id, ticket);
        }
        let Some(mut row) = pipeline_row(rows, pipeline) else { return self.refuse(id, want, Refused::Unknown) };
        let expect = Some(row.version);
        let ticket = self.ticket();
        let stamp = self.stamp(ticket);
        let mut ended: Vec<Job> = rows.iter().filter_map(job_row).filter(|job| job.pipeline == pipeline).collect();
        ended.sort_unstable_by_key(|job| core::cmp::Reverse(job.key));
        ended.dedup_by_key(|job| job.id());
        ended.reverse();
        let mut revived = 0;
        for old in ended.iter().filter(|job| is_retried(job)) {
            let Ok(next) = revive(self.now, old, &stamp) else { continue };
            row.absorb(Some(old), Some(&next));
            self.put(NONE, &Change { expect: None, row: Row::Job(next) });
            revived += 1;
        }
        if revived == 0 {
            return self.refuse(id, want, Refused::Nothing);
        }
        row.aborted_at = None;
        row.order = 0;
        self.put(NONE, &Change { expect, row: Row::Pipeline(row.written(stamp.write)) });
        self.propose(ticket, Origin::Call(id));
    }
}

/// Whether a retry of the pipeline wants this job again: it ended badly, or was skipped because another did.
fn is_retried(job: &Job) -> bool {
    match job.state {
        State::Failed | State::Aborted | State::TimedOut | State::Dead => true,
        State::Skipped => matches!(job.reason, Reason::NotWanted { .. }),
        State::Unstart
        | State::Pending
        | State::Scheduled
        | State::Running
        | State::Suspended
        | State::Delayed
        | State::Polling
        | State::Aborting
        | State::Succeeded
        | State::Reused
        | State::Superseded => false,
    }
}

/// Whether a job's change must be written together with its pipeline's row.
pub(super) fn moves_pipeline(old: &Job, new: &Job, step: &Step) -> bool {
    step.next.is_some() || Pipeline::is_moved_by(old, new)
}

pub(super) fn done(job: &Job) -> Answer {
    Answer::Done { state: job.state, until: job.until }
}

pub(super) fn job_row(row: &Row) -> Option<Job> {
    match row {
        Row::Job(job) => Some(*job),
        Row::Pipeline(_) | Row::Key(_) => None,
    }
}

/// The job's latest attempt among `rows`.
pub(super) fn latest(rows: &[Row], id: JobId) -> Option<Job> {
    rows.iter().filter_map(job_row).filter(|job| job.id() == id).max_by_key(|job| (job.key.attempt, job.version))
}

pub(super) fn pipeline_row(rows: &[Row], id: PipelineId) -> Option<Pipeline> {
    let newest = rows.iter().filter_map(|row| match row {
        Row::Pipeline(pipeline) if pipeline.id == id => Some(*pipeline),
        Row::Pipeline(_) | Row::Job(_) | Row::Key(_) => None,
    });
    newest.max_by_key(|pipeline| pipeline.version)
}

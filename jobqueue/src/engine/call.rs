//! Commands that wait for a write or a read, and how they are tried.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Engine;
use super::Purpose;
use super::flight::Origin;
use crate::effect::{Answer, Row, Want};
use crate::event::{Act, Event};
use crate::id::{CallId, JobId, Key, PipelineId, Ticket, Version, Worker};
use crate::job::{Job, State};
use crate::outcome::JobClass;
use crate::pipeline::{Pipeline, PipelineState};
use crate::plan::{Graph, Plan};
use crate::reason::Refused;
use crate::store::{Due, NONE, Planned};
use crate::time::Timestamp;
use crate::transition::{Step, attempt, revive, step};

/// A pull under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Pull {
    /// The pool's place.
    pub(crate) pool: u32,
    pub(crate) worker: Worker,
    pub(crate) want: u32,
    /// When it came.
    pub(crate) since: Timestamp,
    /// When its patience ends.
    pub(crate) until: Timestamp,
    /// Deliveries, or readings of lost ones, under way.
    pub(crate) flying: u32,
    /// Jobs assigned.
    pub(crate) got: u32,
}

impl Pull {
    /// Whether it waits for nothing.
    pub(crate) fn is_hasty(&self) -> bool {
        self.until == self.since
    }
}

impl Call {
    /// The pull, if it is one.
    pub(super) const fn pull(&self) -> Option<&Pull> {
        match &self.work {
            Work::Pull(pull) => Some(pull),
            Work::Submit(_) | Work::Event(..) | Work::AbortPipeline(_) | Work::RetryPipeline(_) => None,
        }
    }
}

/// The work of a command.
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

impl Default for Call {
    /// An empty call, for no command.
    fn default() -> Self {
        Self { work: Work::Submit(PipelineId::default()), tries: 0, fresh: false, silent: true }
    }
}

/// The knowledge of a job's row that is needed once an event has changed it in place.
pub(super) struct Before {
    pub(super) expect: Version,
    pub(super) class: JobClass,
    /// The key that it held.
    pub(super) key: Option<Key>,
    until: Timestamp,
}

impl Before {
    pub(super) fn of(row: &Job) -> Self {
        Self { expect: row.version, class: JobClass::of(row), key: row.held_key(), until: row.until }
    }

    /// Whether the change must be written together with the pipeline's row.
    pub(super) fn moves_pipeline(&self, row: &Job, step: &Step) -> bool {
        step.next.is_some() || self.class != JobClass::of(row)
    }
}

impl Engine {
    /// Tries a command. `rows` are those just read for it, if any.
    pub(super) fn run(&mut self, id: CallId, rows: &[Row]) {
        let Some(call) = self.calls.get(id).copied() else { return };
        match call.work {
            Work::Event(job, event) => self.run_event(id, call.fresh, job, &event, rows),
            Work::AbortPipeline(pipeline) => self.run_abort(id, call, pipeline, rows),
            Work::RetryPipeline(pipeline) => self.run_retry(id, call, pipeline, rows),
            Work::Submit(_) | Work::Pull(_) => {}
        }
    }

    /// Reads the rows before saying no, or says no if they were read.
    #[cold]
    pub(super) fn refuse(&mut self, id: CallId, want: Want, why: Refused) {
        match self.calls.get(id) {
            Some(call) if call.fresh => self.answer(id, Answer::Refused(why)),
            Some(_) => self.ask(want, Purpose::Call(id)),
            None => {}
        }
    }

    /// The call is tried again when the write is settled; what was read for it is old by then.
    #[cold]
    pub(super) fn wait_for(&mut self, id: CallId, ticket: Ticket) {
        if let Some(call) = self.calls.get_mut(id) {
            call.fresh = false;
        }
        if let Some(flight) = self.flight(ticket) {
            flight.waiters.push(id);
        }
    }

    pub(super) fn run_event(&mut self, id: CallId, fresh: bool, job: JobId, event: &Event, rows: &[Row]) {
        let at = self.store.find_job(job).unwrap_or(NONE);
        let slot = self.store.jobs.get(at);
        if let Some(ticket) = slot.and_then(|slot| slot.lock.ticket()) {
            return self.wait_for(id, ticket);
        }
        let (is_here, pipe) = (slot.is_some(), slot.map_or(NONE, |slot| slot.pipe));
        let mut row = if let Some(row) = self.store.whole(at) {
            *row
        } else {
            // An ended job is not kept in memory; what was read speaks for it.
            let known = if is_here { self.store.row(at) } else { latest(rows, job) };
            let Some(row) = known else { return self.refuse(id, Want::Job(job), Refused::Unknown) };
            row
        };
        let before = Before::of(&row);
        let ticket = self.ticket();
        let step = match step(self.now, &mut row, event, &self.stamp(ticket)) {
            Ok(step) => step,
            Err(why) => return self.refuse(id, Want::Job(job), why),
        };
        if !step.changes() {
            // A repeated ack is believed only of a row that was read again.
            if fresh {
                return self.answer(id, done(&row));
            }
            return self.ask(Want::Job(job), Purpose::Call(id));
        }
        if matches!(event, Event::Work { act: Act::Heartbeat, .. }) && self.is_thin(&before, &row) {
            return self.answer(id, Answer::Done { state: row.state, until: before.until });
        }
        let (mut pipeline, mut graph) = (None, None);
        if before.moves_pipeline(&row, &step) {
            let pipe = if is_here { Some(pipe) } else { self.store.find_pipe(row.pipeline) };
            let slot = pipe.and_then(|pipe| self.store.pipes.get(pipe));
            if let Some(other) = slot.and_then(|slot| slot.lock.ticket()) {
                return self.wait_for(id, other);
            }
            pipeline = slot.and_then(|slot| slot.row.clone()).or_else(|| pipeline_row(rows, row.pipeline));
            let planned = pipeline.as_ref().is_some_and(|row| !row.outcomes.is_empty());
            let known = slot.and_then(|slot| slot.graph().cloned());
            let read = || plan_row(rows, row.pipeline).map(|plan| Arc::new(Graph::new(plan)));
            graph = if planned { known.or_else(read) } else { None };
            if pipeline.is_none() || planned && graph.is_none() {
                return self.refuse(id, Want::Job(job), Refused::Unknown);
            }
        }
        if let Some(key) = before.key.filter(|_| !self.key_is_clear(before.key, row.held_key())) {
            return self.wait_for_key(id, key);
        }
        let mut at = at;
        if !is_here && let Some(old) = latest(rows, job).filter(|old| !old.state.is_terminal()) {
            // It had no room, or its pipeline has ended; while it is written it must have a place.
            self.apply_job(&old, NONE);
            self.whole(old.pipeline);
            at = self.store.find_job(job).unwrap_or(NONE);
        }
        self.stage(ticket, at, (&before, &row), step, pipeline.map(|row| (row, graph)));
        self.propose(ticket, Origin::Call(id));
    }

    /// Puts a job's change, and what it moves in its pipeline, into the next write.
    pub(super) fn stage(
        &mut self,
        ticket: Ticket,
        at: u32,
        (before, row): (&Before, &Job),
        step: Step,
        pipeline: Option<(Pipeline, Option<Arc<Graph>>)>,
    ) {
        let mut next = None;
        if step.wrote {
            self.put_job(ticket, at, before.expect, row);
            if row.spec.key.is_some() {
                self.stage_key(before.key, row);
            }
        }
        if step.next.is_some() {
            let stamp = self.stamp(ticket);
            next = step.next.map(|next| attempt(self.now, row, &stamp, next));
        }
        if let Some((mut pipeline, graph)) = pipeline {
            let expect = Some(pipeline.version);
            let revived = !step.wrote && pipeline.aborted_at.is_some();
            if !step.wrote {
                // Somebody revives the job.
                pipeline.aborted_at = None;
            } else if pipeline.aborted_at.is_some() {
                // Whoever aborted the pipeline wants no further attempt.
                next = None;
            }
            let number = graph.as_ref().and_then(|graph| graph.place(row.id()));
            pipeline.trade(number, Some(before.class), Some(JobClass::of(next.as_ref().unwrap_or(row))));
            let place = self.store.jobs.get(at).map(|slot| slot.pipe);
            let place = place.unwrap_or_else(|| self.store.pipe(pipeline.id));
            if let (Some(graph), Some(number)) = (graph, number) {
                self.touch(place, &mut pipeline, &graph, (number, revived));
            }
            self.put_pipeline(ticket, place, expect, pipeline.written(self.write_id(ticket)));
        }
        if let Some(next) = next {
            self.put_new_job(&next);
        }
    }

    /// Notes which jobs are owed something now that the one at `number` stands elsewhere, or that all may be.
    fn touch(&mut self, pipe: u32, row: &mut Pipeline, graph: &Arc<Graph>, (number, all): (usize, bool)) {
        let all = all || row.aborted_at.is_some();
        let touched = if all { graph.places().collect() } else { graph.touched(&row.outcomes, number) };
        let owed = touched.into_iter().filter(|at| graph.owed(row, usize::from(*at)).is_some());
        let owed: Vec<u16> = owed.collect();
        row.owes = (row.owes && !all) || !owed.is_empty();
        if let Some(slot) = self.store.pipes.get_mut(pipe) {
            let planned = Planned { graph: Arc::clone(graph), due: Due::All };
            slot.planned.get_or_insert_with(|| Box::new(planned)).add(owed);
        }
    }

    /// Whether a heartbeat comes so soon after the last that it need not be written.
    fn is_thin(&self, before: &Before, row: &Job) -> bool {
        let lease = u64::from(row.spec.policy.lease_ms);
        let left = before.until.millis_since(self.now);
        lease.saturating_sub(left) * 100 < lease * u64::from(self.config.heartbeat_percent)
    }

    #[cold]
    fn run_abort(&mut self, id: CallId, call: Call, pipeline: PipelineId, rows: &[Row]) {
        let want = Want::Pipeline(pipeline);
        let slot = self.store.find_pipe(pipeline).and_then(|at| self.store.pipes.get(at));
        if let Some(ticket) = slot.and_then(|slot| slot.lock.ticket()) {
            return self.wait_for(id, ticket);
        }
        let known = slot.and_then(|slot| slot.row.clone()).or_else(|| pipeline_row(rows, pipeline));
        let Some(mut row) = known else { return self.refuse(id, want, Refused::Unknown) };
        match row.state() {
            PipelineState::Open if row.aborted_at.is_some() && call.fresh => self.answer(id, Answer::Aborting),
            PipelineState::Open if row.aborted_at.is_some() => self.ask(want, Purpose::Call(id)),
            PipelineState::Open => {
                let ticket = self.ticket();
                let expect = Some(row.version);
                row.aborted_at = Some(self.now);
                // Whoever reads the row goes on with the stopping; the next decision says what is left.
                row.owes = !row.outcomes.is_empty();
                let row = row.written(self.write_id(ticket));
                let at = self.store.pipe(row.id);
                self.put_pipeline(ticket, at, expect, row);
                self.propose(ticket, Origin::Call(id));
            }
            ended @ (PipelineState::Succeeded | PipelineState::Failed | PipelineState::Aborted) => {
                self.refuse(id, want, Refused::Closed(ended));
            }
        }
    }

    #[cold]
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
        let graph = plan_row(rows, pipeline).map(Graph::new);
        if graph.is_none() && !row.outcomes.is_empty() {
            return self.refuse(id, want, Refused::Unknown);
        }
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
            let place = graph.as_ref().and_then(|graph| graph.place(old.id()));
            row.trade(place, Some(JobClass::of(old)), Some(JobClass::of(&next)));
            self.put_new_job(&next);
            revived += 1;
        }
        if revived == 0 {
            return self.refuse(id, want, Refused::Nothing);
        }
        row.aborted_at = None;
        row.order = 0;
        let at = self.store.pipe(row.id);
        if let Some(graph) = graph {
            row.owes = graph.places().any(|at| graph.owed(&row, usize::from(at)).is_some());
            if let Some(slot) = self.store.pipes.get_mut(at) {
                slot.planned = Some(Box::new(Planned { graph: Arc::new(graph), due: Due::All }));
            }
        }
        self.put_pipeline(ticket, at, expect, row.written(stamp.write));
        self.propose(ticket, Origin::Call(id));
    }
}

/// Whether a retry of the pipeline wants this job again: it ended badly, or was skipped because another did.
fn is_retried(job: &Job) -> bool {
    match job.state {
        State::Failed | State::Aborted | State::TimedOut | State::Dead => true,
        State::Skipped => JobClass::of(job) == JobClass::Skipped,
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

pub(super) fn done(job: &Job) -> Answer {
    Answer::Done { state: job.state, until: job.until }
}

pub(super) fn job_row(row: &Row) -> Option<Job> {
    row.as_job().copied()
}

/// The job's latest attempt among `rows`.
pub(super) fn latest(rows: &[Row], id: JobId) -> Option<Job> {
    rows.iter().filter_map(job_row).filter(|job| job.id() == id).max_by_key(|job| (job.key.attempt, job.version))
}

pub(super) fn pipeline_row(rows: &[Row], id: PipelineId) -> Option<Pipeline> {
    let newest = rows.iter().filter_map(Row::as_pipeline).filter(|row| row.id == id);
    newest.max_by_key(|pipeline| pipeline.version).cloned()
}

pub(super) fn plan_row(rows: &[Row], id: PipelineId) -> Option<Plan> {
    rows.iter().find_map(|row| match row {
        Row::Plan(plan) if plan.pipeline == id => Some(plan.clone()),
        Row::Plan(_) | Row::Job(_) | Row::Pipeline(_) | Row::Key(_) | Row::Pool(_) | Row::Life(_) => None,
    })
}

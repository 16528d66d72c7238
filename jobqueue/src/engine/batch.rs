//! Batches: opened, held and stopped.

use alloc::vec::Vec;

use super::call::Before;
use super::flight::Origin;
use super::{Engine, Purpose};
use crate::decide;
use crate::effect::{Effect, Want};
use crate::event::{Event, Verdict};
use crate::id::{PipelineId, Version};
use crate::job::{Job, State};
use crate::pipeline::{Pipeline, PipelineState};
use crate::reason::Reason;
use crate::store::NONE;
use crate::transition::step;

impl Engine {
    /// Opens the pipeline's next batch, or stops its jobs if it was aborted.
    pub(super) fn decide(&mut self, id: PipelineId) {
        let Some(at) = self.store.find_pipe(id) else { return };
        let Some(slot) = self.store.pipes.get(at) else { return };
        if !slot.lock.is_free() || !slot.row.as_ref().is_some_and(wants_decision) {
            return;
        }
        let Some(mut row) = slot.row.clone() else { return };
        if slot.lacks_jobs(&row) {
            self.whole(id);
            // Which batch is next cannot be told yet; what shall stop can.
            if row.aborted_at.is_none() {
                return;
            }
        }
        let expect = Some(row.version);
        let mut batch = core::mem::take(&mut self.batch);
        batch.clear();
        let free = |at: &u32| self.store.jobs.get(*at).is_some_and(|slot| slot.lock.is_free());
        // A key that a job may have to give back must be known.
        let is_clear = |job: &Job| self.key_is_clear(job.held_key(), None);
        batch.extend(self.store.jobs_of(at).filter(free).filter_map(|at| self.store.row(at)).filter(is_clear));
        batch.sort_unstable_by_key(|job| (job.spec.order, job.sequence, job.id()));
        let ticket = self.ticket();
        let stamp = self.stamp(ticket);
        if decide::decide(self.now, &mut row, &mut batch, &self.filters, &stamp) > 0 {
            for job in batch.iter().filter(|job| job.write == stamp.write) {
                // A decision writes each job once.
                let expect = Version::new(job.version.get() - 1);
                let place = self.store.find_job(job.id()).unwrap_or(NONE);
                self.put_job(ticket, place, expect, job);
                if let Some(before) = job.spec.key.and_then(|_| self.store.row(place)) {
                    self.stage_key(before.held_key(), job);
                }
            }
            self.put_pipeline(ticket, at, expect, row.clone());
            self.propose(ticket, Origin::Decide);
        } else if row.aborted_at.is_none() {
            self.ask_host(&row, &batch);
        }
        self.batch = batch;
    }

    /// Asks the host about each job of the next batch that it must judge, once.
    fn ask_host(&mut self, row: &Pipeline, jobs: &[Job]) {
        let Some(order) = decide::next_order(jobs) else { return };
        let asked = jobs.iter().filter(|job| job.spec.order == order);
        for job in asked.filter(|job| self.filters.must_ask(self.now, row, job)) {
            if self.judging.insert(job.id()) {
                self.effects.push_back(Effect::Judge { job: job.key, pipeline: row.id });
            }
        }
    }

    /// Sends what a window holds to the queues.
    pub(super) fn release_held(&mut self, filter: u32) {
        let is_held = |job: &Job| matches!(job.reason, Reason::Held { filter: of, .. } if of == filter);
        let held = self.store.jobs.places().filter(|(_, slot)| slot.state == State::Suspended && slot.lock.is_free());
        let held = held.filter_map(|(at, _)| Some((self.store.row(at)?, at))).filter(|(job, _)| is_held(job));
        let mut held: Vec<(Job, u32)> = held.collect();
        held.sort_unstable_by_key(|(job, _)| job.key);
        for (old, at) in held {
            let ticket = self.ticket();
            let event = Event::Decide(Verdict::Enqueue(Reason::Released { filter }));
            let (mut job, before) = (old, Before::of(&old));
            let Ok(step) = step(self.now, &mut job, &event, &self.stamp(ticket)) else { continue };
            self.stage(ticket, at, (&before, &job), step, None);
            self.propose(ticket, Origin::Decide);
        }
    }

    /// Reads a pipeline and all its jobs, unless that is under way or has just shown the same.
    pub(super) fn whole(&mut self, id: PipelineId) {
        let at = self.store.pipe(id);
        let Some(slot) = self.store.pipes.get_mut(at) else { return };
        let read = slot.row.is_some() && slot.read_at == slot.row.as_ref().map(|row| row.version);
        if !slot.asked && !read {
            slot.asked = true;
            self.ask(Want::Pipeline(id), Purpose::Pipeline(id));
        }
    }

    /// Trusts nothing that is in memory about a pipeline, and reads it again.
    pub(super) fn doubt(&mut self, id: PipelineId) {
        let at = self.store.pipe(id);
        if let Some(slot) = self.store.pipes.get_mut(at) {
            slot.row = None;
        }
        self.whole(id);
    }
}

/// Whether a pipeline's row leaves something to decide: a batch to open, or jobs to stop.
pub(super) const fn wants_decision(row: &Pipeline) -> bool {
    let is_idle = row.remaining == 0 && row.unstarted > 0;
    is_idle || (row.aborted_at.is_some() && matches!(row.state(), PipelineState::Open))
}

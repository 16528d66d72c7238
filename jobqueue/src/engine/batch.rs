//! Batches: opened, held and stopped.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cell::RefCell;

use super::call::{Before, latest};
use super::flight::Origin;
use super::keys::Opening;
use super::{Engine, Purpose};
use crate::decide::{self, Judged};
use crate::effect::{Effect, Row, Want};
use crate::event::{Event, Verdict};
use crate::filter::weather;
use crate::id::{JobId, Key, PipelineId, Ticket, Version};
use crate::job::{Condition, Job, OnNewer, State};
use crate::pipeline::{Pipeline, PipelineState};
use crate::plan::Graph;
use crate::reason::Reason;
use crate::store::NONE;
use crate::transition::step;

/// Keys in whose way a decision stands.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// Keys that must be read before a job is opened.
    unread: BTreeSet<Key>,
    /// Keys of which this write opens a job.
    opened: BTreeMap<Key, JobId>,
}

impl Engine {
    /// Opens what waits for nothing any more, or stops a pipeline's jobs if it was aborted.
    pub(super) fn decide(&mut self, id: PipelineId) {
        self.decide_with(id, &[]);
    }

    /// Decides a pipeline from `rows`, those just read of it, if any.
    pub(super) fn decide_with(&mut self, id: PipelineId, rows: &[Row]) {
        let Some(at) = self.store.find_pipe(id) else { return };
        let Some(slot) = self.store.pipes.get(at) else { return };
        if !slot.lock.is_free() || !slot.row.as_ref().is_some_and(wants_decision) {
            return;
        }
        let Some(row) = slot.row.clone() else { return };
        if slot.lacks_plan() {
            return self.whole(id);
        }
        match slot.graph().cloned() {
            Some(graph) if row.aborted_at.is_none() => self.pay(at, row, &graph, rows),
            graph => self.decide_batch(at, row, graph.as_deref()),
        }
    }

    /// Opens the next batch of a pipeline without a plan, or stops the jobs of any.
    fn decide_batch(&mut self, at: u32, mut row: Pipeline, graph: Option<&Graph>) {
        let Some(slot) = self.store.pipes.get(at) else { return };
        let id = row.id;
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
        let later = RefCell::default();
        let judge = |row: &Pipeline, job: &Job, unwanted: Option<Reason>| self.judge(row, job, unwanted, &later);
        let changed = decide::decide_up_to(decide::PAID, self.now, &mut row, graph, &mut batch, &judge, &stamp);
        self.open_later_all(&later.into_inner(), id);
        if changed > 0 {
            for job in batch.iter().filter(|job| job.write == stamp.write) {
                self.put_decided(ticket, job);
            }
            self.put_pipeline(ticket, at, expect, row);
            self.propose(ticket, Origin::Decide);
        } else if row.aborted_at.is_none()
            && let Some(order) = decide::next_order(&batch)
        {
            let asked: Vec<Job> = batch.iter().filter(|job| job.spec.order == order).copied().collect();
            self.ask_host(&row, &asked);
        }
        self.batch = batch;
    }

    /// Judges a job that no longer waits: first its filters, then its key.
    pub(super) fn judge(&self, row: &Pipeline, job: &Job, unwanted: Option<Reason>, later: &RefCell<Later>) -> Judged {
        let Some(verdict) = self.filters.judge(self.now, row, job, unwanted) else { return Judged::Ask };
        if matches!(verdict, Verdict::Skip(_) | Verdict::Reuse(_)) {
            return Judged::So(Event::Decide(verdict));
        }
        match self.key_opens(job) {
            Opening::KeptOut(by) => Judged::So(Event::Supersede { by }),
            Opening::Unknown(key) => {
                later.borrow_mut().unread.insert(key);
                Judged::Later
            }
            Opening::Free => {
                // Of one key one job is opened in a write: the next is judged by what the first has written.
                let rule = job.spec.key.filter(|_| job.spec.on_newer != OnNewer::Waits);
                let mut later = later.borrow_mut();
                match rule {
                    Some(key) if later.opened.get(&key).is_some_and(|first| *first != job.id()) => {
                        later.unread.insert(key);
                        Judged::Later
                    }
                    Some(key) => {
                        later.opened.insert(key, job.id());
                        Judged::So(Event::Decide(verdict))
                    }
                    None => Judged::So(Event::Decide(verdict)),
                }
            }
        }
    }

    fn open_later_all(&mut self, later: &Later, id: PipelineId) {
        for key in &later.unread {
            self.open_later(*key, id);
        }
    }

    /// A decision about a job goes into the next write. It writes each job once.
    fn put_decided(&mut self, ticket: Ticket, job: &Job) {
        let expect = Version::new(job.version.get() - 1);
        let place = self.store.find_job(job.id()).unwrap_or(NONE);
        self.put_job(ticket, place, expect, job);
        if let Some(before) = job.spec.key.and_then(|_| self.store.row(place)) {
            self.stage_key(before.held_key(), job);
            if before.state == State::Unstart {
                self.stage_opening(job);
            }
        }
    }

    /// Gives the jobs of a pipeline with a plan what they are owed.
    fn pay(&mut self, at: u32, mut row: Pipeline, graph: &Graph, rows: &[Row]) {
        let Some(planned) = self.store.pipes.get_mut(at).and_then(|slot| slot.planned.as_mut()) else { return };
        let (id, expect, due) = (row.id, row.version, planned.take());
        let ticket = self.ticket();
        let stamp = self.stamp(ticket);
        let find = |job: JobId| match self.store.find_job(job).and_then(|at| Some((at, self.store.jobs.get(at)?))) {
            Some((at, slot)) => self.store.row(at).filter(|_| slot.lock.is_free()),
            None => latest(rows, job),
        };
        let owed = row.owes;
        let later = RefCell::default();
        let judge = |row: &Pipeline, job: &Job, unwanted: Option<Reason>| self.judge(row, job, unwanted, &later);
        let paid = decide::pay(self.now, &mut row, graph, due, find, &judge, &stamp, decide::PAID);
        self.open_later_all(&later.into_inner(), id);
        let Some(slot) = self.store.pipes.get_mut(at) else { return };
        if let Some(planned) = slot.planned.as_mut() {
            planned.add(paid.rest.iter().chain(&paid.missing).copied());
            planned.add(paid.asked.iter().filter_map(|job| u16::try_from(graph.place(job.id())?).ok()));
        }
        if !paid.missing.is_empty() && rows.is_empty() {
            // An ended job's row is not kept: it is read when it is to be revived.
            slot.read_at = None;
            self.whole(id);
        }
        self.ask_host(&row, &paid.asked);
        if paid.rows.is_empty() && row.owes == owed {
            return;
        }
        for job in &paid.rows {
            if job.version == Version::FIRST { self.put_new_job(job) } else { self.put_decided(ticket, job) }
        }
        self.put_pipeline(ticket, at, Some(expect), row.written(stamp.write));
        self.propose(ticket, Origin::Decide);
    }

    /// Asks the host about each of these jobs that it must judge, once.
    fn ask_host(&mut self, row: &Pipeline, jobs: &[Job]) {
        for job in jobs.iter().filter(|job| job.spec.condition == Condition::Ask) {
            let unwanted = if row.outcomes.is_empty() { weather(row, job) } else { None };
            if self.filters.judge(self.now, row, job, unwanted).is_none() && self.judging.insert(job.id()) {
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

/// Whether a pipeline's row leaves something to decide: jobs to open, to revive or to stop.
pub(super) const fn wants_decision(row: &Pipeline) -> bool {
    let is_idle = row.outcomes.is_empty() && row.remaining == 0 && row.unstarted > 0;
    is_idle || row.owes || (row.aborted_at.is_some() && matches!(row.state(), PipelineState::Open))
}

//! Sweeps: looking for changes by other engines, page by page, and whenever the host brings news.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Engine, Purpose};
use crate::effect::{Row, Want};
use crate::id::{AskId, JobId, Key, PipelineId};
use crate::pipeline::PipelineState;
use crate::time::Timestamp;

/// How many pipelines a page holds at most.
const PAGE: u32 = 1_000;
/// How many pipelines are read again at most, at the end of a pass, because no page showed them.
const READ_AGAIN: usize = 1_000;

/// How far the passes over all open rows have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Sweep {
    /// When the next page is read; [`Timestamp::MAX`] while there is nothing to look for.
    pub(super) due: Timestamp,
    /// Where the next page begins.
    from: PipelineId,
    /// Whether a page is being read.
    asked: bool,
    /// The number of this pass, which every pipeline carries that was seen in it.
    pub(super) pass: u8,
    /// Where the next look at keys begins.
    pub(super) key: Key,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { due: Timestamp::MAX, from: PipelineId::new(0), asked: false, pass: 0, key: Key::new(0) }
    }
}

impl Engine {
    /// The first look is due a while after the first thing that happens here.
    pub(super) fn start_sweeping(&mut self) {
        if self.config.recheck_ms > 0 && self.sweep.due == Timestamp::MAX {
            self.sweep.due = self.now.after_millis(u64::from(self.config.recheck_ms));
        }
    }

    /// Tells that another engine wrote rows of this pipeline. They are read now, and not only when a page shows them.
    ///
    /// Tell this for each pipeline that a notification of the database names (`LISTEN` and `NOTIFY`, say). It may be told
    /// late, twice, or not at all: the regular pass finds everything.
    pub fn handle_news(&mut self, now: Timestamp, pipeline: PipelineId) {
        self.lift(now);
        let is_known = self.store.find_pipe(pipeline).is_some();
        if is_known || self.store.pipes.used < self.config.limits().pipelines {
            self.look_again(pipeline);
        }
        self.pump();
    }

    /// Reads a pipeline afresh, whatever is known of it.
    fn look_again(&mut self, id: PipelineId) {
        let at = self.store.pipe(id);
        if let Some(slot) = self.store.pipes.get_mut(at) {
            slot.read_at = None;
        }
        self.whole(id);
    }

    /// Looks for what other engines did, if that is due.
    pub(super) fn sweep(&mut self) {
        if self.config.recheck_ms == 0 || self.sweep.due > self.now {
            return;
        }
        self.sweep.due = self.now.after_millis(u64::from(self.config.recheck_ms));
        self.recheck_keys();
        self.recheck_shares();
        if !self.sweep.asked {
            self.sweep.asked = true;
            let want = Want::Open { from: self.sweep.from, limit: PAGE };
            self.ask(want, Purpose::Page);
            if self.sweep.from != PipelineId::new(0) {
                // A pass over many pages takes its time; what nobody pays for is looked for at once.
                self.ask(Want::Owing { limit: PAGE }, Purpose::Owing);
            }
        }
    }

    /// A page was read: what is new is taken, and what it should show and does not show is read again.
    pub(super) fn read_page(&mut self, rows: &[Row]) {
        self.sweep.asked = false;
        let _told = self.take_all(rows);
        self.compare(rows);
        let pipelines = || rows.iter().filter_map(Row::as_pipeline).map(|row| row.id);
        let is_full = pipelines().count() >= PAGE as usize;
        let last = pipelines().max().filter(|_| is_full);
        match last.and_then(|last| last.get().checked_add(1)) {
            Some(next) => self.sweep.from = PipelineId::new(next),
            None => self.end_pass(),
        }
    }

    /// Jobs here of the pipelines in these rows that are not among them have ended elsewhere.
    pub(super) fn compare(&mut self, rows: &[Row]) {
        let jobs: BTreeSet<JobId> = rows.iter().filter_map(Row::as_job).map(|job| job.key.job).collect();
        let mut doubtful = Vec::new();
        for row in rows.iter().filter_map(Row::as_pipeline).filter(|row| row.state() == PipelineState::Open) {
            let Some(at) = self.store.find_pipe(row.id) else { continue };
            let Some(slot) = self.store.pipes.get_mut(at) else { continue };
            slot.pass = self.sweep.pass;
            // What is newer here was written after the page was read.
            let is_newer = slot.row.as_ref().is_some_and(|known| known.version > row.version);
            let lacks = slot.row.as_ref().is_some_and(|row| slot.lacks_jobs(row) || row.owes) || slot.lacks_plan();
            let is_gone =
                |at: u32| self.store.jobs.get(at).is_some_and(|job| job.lock.is_free() && !jobs.contains(&job.id()));
            if !is_newer && (lacks || self.store.jobs_of(at).any(is_gone)) {
                doubtful.push(row.id);
            }
        }
        for id in doubtful {
            self.look_again(id);
        }
    }

    /// All pages were read: pipelines here that none of them showed may have closed elsewhere.
    fn end_pass(&mut self) {
        let pass = self.sweep.pass;
        let unseen = self.store.pipes.places().filter(|(_, slot)| slot.pass != pass && slot.lock.is_free());
        let mut unseen: Vec<PipelineId> = unseen.map(|(_, slot)| slot.id).collect();
        unseen.sort_unstable();
        unseen.truncate(READ_AGAIN);
        self.sweep.from = PipelineId::new(0);
        self.sweep.pass = pass.wrapping_add(1);
        self.store.pass = self.sweep.pass;
        let now = self.sweep.pass;
        self.gone.retain(|_, pass| now.wrapping_sub(*pass) < 3);
        for id in unseen {
            self.look_again(id);
        }
    }

    /// Tells that the rows of a read could not be read.
    ///
    /// They are asked for again, or with the next look at what they are about.
    pub fn handle_unread(&mut self, now: Timestamp, ask: AskId) {
        self.lift(now);
        let Some((want, purpose)) = self.asks.remove(&ask) else {
            self.counters.ignored += 1;
            return self.pump();
        };
        match purpose {
            // The next look is not far.
            Purpose::Page => self.sweep.asked = false,
            Purpose::Owing => {}
            Purpose::Call(_)
            | Purpose::Resolve(_)
            | Purpose::Pipeline(_)
            | Purpose::Again(..)
            | Purpose::Key(_)
            | Purpose::Pool(_)
            | Purpose::Charged(..) => {
                self.sleepers.insert((now.max(self.now).after_millis(RETRY_MS), super::Sleeper::Ask(self.next_ask)));
                self.asks.insert(AskId::new(self.next_ask), (want, purpose));
                self.next_ask += 1;
            }
        }
        self.pump();
    }

    /// A read that failed is tried again.
    pub(super) fn ask_again(&mut self, ask: u64) {
        let ask = AskId::new(ask);
        if let Some((want, _)) = self.asks.get(&ask).copied() {
            self.effects.push_back(crate::effect::Effect::Fetch { ask, want });
        }
    }
}

/// How long after a failed read it is tried again, in milliseconds.
pub(super) const RETRY_MS: u64 = 200;

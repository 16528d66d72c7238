//! Keys: of all jobs with one key, so many are out at a time as the key's limit allows, and the others stand in no
//! queue's way.
//!
//! A job whose key is taken is noticed when a pull comes upon it: it is set aside, and the best of those set aside goes
//! back to its queue when the key has room. The key's row in the database decides; what is known here of it may be old, so
//! it is read again every while as long as somebody is set aside, and whenever a write of it conflicts.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::flight::Origin;
use super::{Engine, Purpose, Sleeper};
use crate::effect::{Row, Want};
use crate::id::{CallId, JobId, JobKey, Key, PipelineId, Ticket};
use crate::job::{Job, JobSpec, OnNewer, State};
use crate::key::KeyRow;
use crate::lane::Rank;
use crate::rate::Rate;
use crate::store::{Hangs, NONE};
use crate::time::Timestamp;

/// The knowledge of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySlot {
    pub(super) row: Option<KeyRow>,
    /// Whether the row is known; one that is known and not there does not exist.
    pub(super) known: bool,
    pub(super) asked: bool,
    pub(super) lock: Option<Ticket>,
    /// Jobs that were set aside, best first.
    pub(super) aside: BTreeSet<(Rank, u32)>,
    /// Commands that wait for the row to be read.
    pub(super) callers: Vec<CallId>,
    /// Pipelines that wait for the row to be read before they open a job.
    pub(super) openers: BTreeSet<PipelineId>,
    /// Jobs here that hold the key, as far as their rows here say.
    holders: BTreeSet<JobId>,
    /// Jobs here.
    jobs: u32,
    /// How often one of its jobs may be given out.
    pub(super) rate: Option<Rate>,
    /// Whether the claim and the newest that the key's row names still count, from the jobs just read.
    ///
    /// Set only while the answer to that reading is acted on.
    fresh: Option<Named>,
    /// The newest job that was found not to count any more.
    void_newest: Option<JobKey>,
}

/// Which of the names in a key's row count.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    claim: Option<JobKey>,
    newest: Option<JobKey>,
}

/// Whether a job may be opened as far as its key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The job may be opened.
    Free,
    /// Another job keeps it out.
    KeptOut(JobId),
    /// The key's row must be read first.
    Unknown(Key),
}

impl KeySlot {
    /// Whether a job that holds so much of a limit fits in, as far as is known here.
    fn fits(&self, spec: &JobSpec) -> bool {
        let used = self.row.map_or(0, |row| row.used);
        self.lock.is_none() && used.saturating_add(spec.key_weight) <= spec.key_limit
    }

    /// The job that the key is kept for, if it is.
    fn kept_for(&self, now: Timestamp) -> Option<JobKey> {
        let row = self.row?;
        row.next.filter(|_| now < row.next_until)
    }

    /// Whether a job that gives way does not know that none newer is there.
    fn must_give_way(&self, job: &Job) -> bool {
        let newest = self.row.and_then(|row| row.newest);
        job.spec.on_newer == OnNewer::GivesWay
            && newest.is_some_and(|newest| newest.job != job.id() && self.void_newest != Some(newest))
    }

    /// When its rate lets the next job go, if none may go now.
    pub(super) fn throttled_until(&self, now: Timestamp) -> Option<Timestamp> {
        let bucket = self.row?.bucket(now);
        let rate = self.rate.filter(|rate| bucket.room(now, *rate) == 0)?;
        Some(bucket.ready_at(now, rate))
    }

    /// The newest job that was found not to count, for a snapshot.
    pub(super) const fn void_newest(&self) -> Option<JobKey> {
        self.void_newest
    }

    pub(super) const fn set_void_newest(&mut self, job: Option<JobKey>) {
        self.void_newest = job;
    }
}

impl Engine {
    /// Whether the job may be delivered as far as its key goes.
    #[cold]
    pub(super) fn key_admits(&self, job: &Job) -> bool {
        let Some(slot) = job.spec.key.and_then(|key| self.keys.get(&key)) else { return true };
        let is_kept = slot.kept_for(self.now).is_some_and(|next| next.job != job.id());
        slot.fits(&job.spec)
            && !is_kept
            && slot.throttled_until(self.now).is_none()
            && !slot.must_give_way(job)
            && !self.is_behind(slot, job)
    }

    /// Whether a better job is set aside for which there is no room yet: a lighter one does not overtake it.
    fn is_behind(&self, slot: &KeySlot, job: &Job) -> bool {
        let Some((rank, first)) = slot.aside.first() else { return false };
        let mine = self.store.find_job(job.id()).and_then(|at| self.store.jobs.get(at));
        let is_better = mine.is_some_and(|mine| *rank < Rank::of(mine, self.config.ageing_ms));
        is_better && self.store.spec(*first).is_some_and(|spec| !slot.fits(spec))
    }

    /// Whether it is known what a change of a job that held `old` and then holds `new` does to the key.
    pub(super) fn key_is_clear(&self, old: Option<Key>, new: Option<Key>) -> bool {
        match (old, new) {
            (Some(key), None) => self.keys.get(&key).is_some_and(|slot| slot.known && slot.lock.is_none()),
            (Some(_), Some(_)) | (None, _) => true,
        }
    }

    /// The command is tried again when the key's write is settled or its row is read.
    #[cold]
    pub(super) fn wait_for_key(&mut self, id: CallId, key: Key) {
        let slot = self.keys.entry(key).or_default();
        if let Some(ticket) = slot.lock {
            return self.wait_for(id, ticket);
        }
        slot.callers.push(id);
        self.ask_key(key);
    }

    /// Puts what a job's change does to its key into the next write: it held `old`, and `row` is what it becomes.
    pub(super) fn stage_key(&mut self, old: Option<Key>, row: &Job) {
        let wait_ms = 2 * u64::from(self.config.recheck_ms);
        match (old, row.held_key()) {
            (None, Some(key)) => {
                let rate = self.keys.get(&key).and_then(|slot| slot.rate).filter(|_| row.state == State::Scheduled);
                let now = self.now;
                self.put_key(key, row.write.ticket, |key| {
                    key.holder = Some(row.key);
                    key.used = key.used.saturating_add(row.spec.key_weight);
                    if key.next.is_some_and(|next| next.job == row.id()) {
                        key.next = None;
                    }
                    key.next_until = Timestamp::MAX;
                    if let Some(rate) = rate {
                        key.spend(now, rate);
                    }
                });
            }
            (Some(key), None) => {
                let until = self.now.after_millis(wait_ms);
                self.put_key(key, row.write.ticket, |key| {
                    key.holder = key.holder.filter(|holder| *holder != row.key);
                    key.used = key.used.saturating_sub(row.spec.key_weight);
                    key.next_until = until;
                });
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// Puts the name of a job that is opened into the next write, if its rule is about newer ones.
    pub(super) fn stage_opening(&mut self, row: &Job) {
        let Some(key) = row.spec.key.filter(|_| row.spec.on_newer != OnNewer::Waits) else { return };
        if row.state.is_terminal() || row.state == State::Unstart {
            return;
        }
        let named = self.keys.get(&key).and_then(|slot| slot.fresh).unwrap_or_default();
        let gives_way = row.spec.on_newer == OnNewer::GivesWay;
        self.put_key(key, row.write.ticket, |key| {
            if gives_way {
                key.newest = Some(row.key);
            } else {
                key.claim = Some(row.key);
            }
        });
        if let Some(older) = named.newest.filter(|older| gives_way && older.job != row.id()) {
            self.superseded.push_back((older.job, row.id()));
        }
    }

    /// Puts a key's row, changed, into the next write.
    fn put_key(&mut self, key: Key, ticket: Ticket, change: impl FnOnce(&mut KeyRow)) {
        let write = self.write_id(ticket);
        let known = self.keys.get(&key).and_then(|slot| slot.row);
        let old = known.unwrap_or(KeyRow::new(key));
        let mut row = KeyRow { version: old.version.next(), write, ..old };
        change(&mut row);
        self.scratch.add(known.map(|known| known.version), Row::Key(row), NONE);
        self.lock_key(key, ticket);
    }

    /// Whether a job may be opened as far as its key goes.
    pub(super) fn key_opens(&self, job: &Job) -> Opening {
        let Some(key) = job.spec.key.filter(|_| job.spec.on_newer != OnNewer::Waits) else { return Opening::Free };
        let slot = self.keys.get(&key).filter(|slot| slot.known && slot.lock.is_none());
        let Some(named) = slot.and_then(|slot| slot.fresh) else { return Opening::Unknown(key) };
        match named.claim.filter(|claim| claim.job != job.id()) {
            Some(claim) => Opening::KeptOut(claim.job),
            None => Opening::Free,
        }
    }

    /// The pipeline is decided again once the key's row was read.
    pub(super) fn open_later(&mut self, key: Key, pipeline: PipelineId) {
        self.keys.entry(key).or_default().openers.insert(pipeline);
        self.ask_key(key);
    }

    #[cold]
    pub(super) fn lock_key(&mut self, key: Key, ticket: Ticket) {
        self.keys.entry(key).or_default().lock = Some(ticket);
    }

    #[cold]
    pub(super) fn unlock_key(&mut self, key: Key, ticket: Ticket) {
        if let Some(slot) = self.keys.get_mut(&key).filter(|slot| slot.lock == Some(ticket)) {
            slot.lock = None;
            // What was read meanwhile was not taken.
            let unread = !slot.known || !slot.callers.is_empty() || !slot.openers.is_empty();
            self.stir_holders(key);
            if unread {
                self.ask_key(key);
            }
        }
    }

    /// The key's row as it is.
    #[cold]
    pub(super) fn apply_key(&mut self, row: &KeyRow) {
        let slot = self.keys.entry(row.key).or_default();
        slot.row = Some(*row);
        // While it is being read there was a doubt, which an own write of long ago does not settle.
        slot.known |= !slot.asked;
        self.free_up(row.key);
    }

    /// Takes a key's row from outside; returns whether it was newer.
    pub(super) fn take_key(&mut self, row: &KeyRow) -> bool {
        let known = self.keys.get(&row.key);
        if known.is_none() && row.used == 0 {
            return false;
        }
        let older = |slot: &KeySlot| slot.lock.is_some() || slot.row.is_some_and(|known| known.version >= row.version);
        if known.is_some_and(older) {
            return false;
        }
        self.apply_key(row);
        true
    }

    /// Nothing is believed about the key until it was read.
    #[cold]
    pub(super) fn ask_key(&mut self, key: Key) {
        let slot = self.keys.entry(key).or_default();
        if !core::mem::replace(&mut slot.asked, true) {
            self.ask(Want::Key(key), Purpose::Key(key));
        }
    }

    /// The key's row was read, with the jobs that it names and those that hold it, and taken; unless a write of it is
    /// under way: then it is read again.
    #[cold]
    pub(super) fn read_key(&mut self, key: Key, rows: &[Row]) {
        let Some(slot) = self.keys.get_mut(&key) else { return };
        slot.asked = false;
        if slot.lock.is_some() {
            return;
        }
        slot.known = true;
        let told = rows.iter().find_map(|row| row.as_key().filter(|row| row.key == key)).copied();
        if told.map(|row| row.version) == slot.row.map(|row| row.version) {
            self.weigh(key, rows);
        }
        let Some(slot) = self.keys.get_mut(&key) else { return };
        let (callers, openers) = (core::mem::take(&mut slot.callers), core::mem::take(&mut slot.openers));
        for pipeline in openers {
            self.decide(pipeline);
            // One of them has written the key: the others read it again.
            let Some(slot) = self.keys.get_mut(&key) else { continue };
            if slot.lock.is_some() {
                slot.fresh = None;
            }
        }
        if let Some(slot) = self.keys.get_mut(&key) {
            slot.fresh = None;
        }
        self.free_up(key);
        self.stir_holders(key);
        for call in callers {
            self.run(call, &[]);
        }
    }

    /// Looks which names in a key's row still count, and mends the row where it does not say who holds the key.
    fn weigh(&mut self, key: Key, rows: &[Row]) {
        let Some(slot) = self.keys.get_mut(&key) else { return };
        let row = slot.row.unwrap_or(KeyRow::new(key));
        let jobs = || rows.iter().filter_map(Row::as_job);
        let lives = |name: &JobKey| {
            let latest = jobs().filter(|job| job.id() == name.job).max_by_key(|job| job.key.attempt);
            latest.is_some_and(|job| !job.state.is_terminal())
        };
        let counts = |name: &JobKey| {
            let latest = jobs().filter(|job| job.id() == name.job).max_by_key(|job| job.key.attempt);
            latest.is_some_and(|job| {
                !matches!(job.state, State::Aborted | State::Superseded | State::Skipped | State::Reused)
            })
        };
        slot.fresh = Some(Named { claim: row.claim.filter(lives), newest: row.newest.filter(counts) });
        slot.void_newest = row.newest.filter(|newest| !counts(newest));
        let held: u32 = jobs().filter(|job| job.held_key() == Some(key)).map(|job| job.spec.key_weight).sum();
        let next = row.next.filter(lives);
        // Of the jobs here that give way, those that are older than the newest go.
        if let Some(newest) = row.newest.filter(counts) {
            let older = slot.aside.iter().filter_map(|(_, at)| Some((*at, self.store.jobs.get(*at)?.id())));
            let older = older.filter(|(at, id)| {
                *id != newest.job && self.store.spec(*at).is_some_and(|spec| spec.on_newer == OnNewer::GivesWay)
            });
            self.superseded.extend(older.map(|(_, id)| (id, newest.job)));
        }
        if slot.row.is_some() && (held != row.used || next != row.next) {
            let ticket = self.ticket();
            let until = self.now.after_millis(2 * u64::from(self.config.recheck_ms));
            self.put_key(key, ticket, |key| {
                (key.used, key.next) = (held, next);
                if held == 0 {
                    (key.holder, key.next_until) = (None, until);
                }
            });
            self.propose(ticket, Origin::Decide);
        }
    }

    /// Acts on the key's holders, which could not be done while the key was unknown or locked.
    #[cold]
    fn stir_holders(&mut self, key: Key) {
        let Some(slot) = self.keys.get(&key) else { return };
        let holders: Vec<JobId> = slot.holders.iter().copied().collect();
        for holder in holders {
            let at = self.store.find_job(holder);
            let pipe = at.and_then(|at| self.store.jobs.get(at)).map(|slot| slot.pipe);
            if let Some(pipe) = pipe {
                self.undecided.extend(self.store.pipes.get(pipe).map(|slot| slot.id));
                self.catch_up(pipe);
            }
        }
    }

    /// The best of the jobs set aside goes back to its queue, if the key has room for it.
    pub(super) fn free_up(&mut self, key: Key) {
        let Some(slot) = self.keys.get_mut(&key) else { return };
        if slot.lock.is_some() || slot.aside.is_empty() {
            return;
        }
        if let Some(until) = slot.throttled_until(self.now) {
            self.sleepers.insert((until, Sleeper::Key(key)));
            return;
        }
        let kept = slot.kept_for(self.now);
        let is_it = |at: u32| kept.is_none_or(|next| self.store.jobs.get(at).is_some_and(|job| job.id() == next.job));
        let Some(first) = slot.aside.iter().find(|(_, at)| is_it(*at)).copied() else {
            // Another engine has its turn; once that is over, somebody here may have his.
            if let Some(row) = slot.row.filter(|row| row.next_until != Timestamp::MAX) {
                self.sleepers.insert((row.next_until, Sleeper::Key(key)));
            }
            return;
        };
        let fits = self.store.spec(first.1).is_some_and(|spec| slot.fits(spec));
        if !fits {
            return;
        }
        slot.aside.remove(&first);
        if let Some(slot) = self.store.jobs.get_mut(first.1) {
            slot.hangs = Hangs::No;
        }
        self.place(first.1);
    }

    /// Sets a job aside that a pull came upon and whose key is taken.
    #[cold]
    pub(super) fn set_aside(&mut self, at: u32) {
        let Some(key) = self.store.spec(at).and_then(|spec| spec.key) else { return };
        let Some(slot) = self.store.jobs.get_mut(at) else { return };
        slot.hangs = Hangs::Aside;
        let rank = Rank::of(slot, self.config.ageing_ms);
        let slot = self.keys.entry(key).or_default();
        slot.aside.insert((rank, at));
        let fits = self.store.spec(at).is_some_and(|spec| slot.fits(spec));
        if let Some(until) = slot.throttled_until(self.now).filter(|_| fits) {
            self.sleepers.insert((until, Sleeper::Key(key)));
        }
        self.start_sweeping();
    }

    /// The pull has found the key of these jobs taken: what must be known or noted of it is asked for or written.
    #[cold]
    pub(super) fn found_taken(&mut self, at: u32) {
        let Some(job) = self.store.row(at) else { return };
        let Some(key) = job.spec.key else { return };
        let Some(slot) = self.keys.get(&key).filter(|slot| slot.lock.is_none()) else { return };
        if slot.must_give_way(&job) {
            return self.ask_key(key);
        }
        let Some(row) = slot.row.filter(|row| row.used > 0 && row.next.is_none() && slot.known) else { return };
        // A holder that this engine gave the key to is heard of here; another engine's may be waited for in turn only.
        let is_own = row.write.engine == self.config.engine;
        if !is_own && self.config.recheck_ms > 0 {
            let ticket = self.ticket();
            self.put_key(key, ticket, |key| key.next = Some(job.key));
            self.propose(ticket, Origin::Decide);
        }
    }

    /// Reads the keys again that jobs here wait for, at most so many at a time; returns whether there is any.
    pub(super) fn recheck_keys(&mut self) -> bool {
        let waits = |slot: &KeySlot| !slot.aside.is_empty() && !slot.asked && slot.lock.is_none();
        let from = self.sweep.key;
        let later = self.keys.range(from..).filter(|(_, slot)| waits(slot)).map(|(key, _)| *key);
        let earlier = self.keys.range(..from).filter(|(_, slot)| waits(slot)).map(|(key, _)| *key);
        let due: Vec<Key> = later.chain(earlier).take(64).collect();
        self.sweep.key = due.last().map_or(Key::new(0), |key| Key::new(key.get().wrapping_add(1)));
        for key in &due {
            self.ask_key(*key);
        }
        !due.is_empty()
    }

    /// The job no longer waits for its key: it goes, or its row changes.
    #[cold]
    pub(super) fn take_back(&mut self, at: u32) {
        let key = self.store.spec(at).and_then(|spec| spec.key);
        let Some(slot) = self.store.jobs.get_mut(at).filter(|slot| slot.hangs == Hangs::Aside) else { return };
        slot.hangs = Hangs::No;
        let rank = Rank::of(slot, self.config.ageing_ms);
        if let Some(key) = key.and_then(|key| self.keys.get_mut(&key)) {
            key.aside.remove(&(rank, at));
        }
    }

    /// A job with a key has come here, or its row is another.
    #[cold]
    pub(super) fn key_comes(&mut self, old: Option<&Job>, job: &Job) {
        let Some(key) = job.spec.key else { return };
        let slot = self.keys.entry(key).or_default();
        slot.jobs += u32::from(old.is_none());
        if job.held_key().is_none() {
            slot.holders.remove(&job.id());
            return;
        }
        slot.holders.insert(job.id());
        // A row that does not name a holder may be an old one.
        if slot.row.is_none_or(|row| row.used == 0 || row.holder != Some(job.key) && job.spec.key_limit == 1) {
            slot.known = false;
            self.ask_key(key);
        }
    }

    /// A job with a key goes.
    #[cold]
    pub(super) fn key_goes(&mut self, job: &Job) {
        let Some(key) = job.spec.key else { return };
        let many = self.keys.len() > self.config.limits().keys as usize;
        let Some(slot) = self.keys.get_mut(&key) else { return };
        slot.jobs -= 1;
        slot.holders.remove(&job.id());
        if many
            && slot.jobs == 0
            && slot.rate.is_none()
            && slot.lock.is_none()
            && !slot.asked
            && slot.callers.is_empty()
            && slot.openers.is_empty()
        {
            self.keys.remove(&key);
        }
    }
}

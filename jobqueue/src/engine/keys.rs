//! Keys: of all jobs with one key, one is out at a time, and the others stand in no queue's way.
//!
//! A job whose key is taken is noticed when a pull comes upon it: it is set aside, and the best of those set aside goes
//! back to its queue when the key is free.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Engine, Purpose, Sleeper};
use crate::effect::{Row, Want};
use crate::id::{CallId, JobId, Key, Ticket, Version};
use crate::job::{Job, OnNewer, State};
use crate::key::KeyRow;
use crate::lane::Rank;
use crate::rate::{Bucket, Rate};
use crate::store::{Hangs, NONE};
use crate::time::Timestamp;

/// What is known about a key.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySlot {
    pub(super) row: Option<KeyRow>,
    /// Whether the row is known; one that is known and not there does not exist.
    pub(super) known: bool,
    pub(super) asked: bool,
    pub(super) lock: Option<Ticket>,
    /// Jobs that were set aside, best first.
    pub(super) aside: BTreeSet<(Rank, u32)>,
    /// Jobs here that are pending, oldest first.
    pending: BTreeSet<(u64, JobId)>,
    /// Commands that wait for the row to be read.
    pub(super) callers: Vec<CallId>,
    /// Jobs here that hold the key, as far as their rows here say.
    holders: BTreeSet<JobId>,
    /// Jobs here.
    jobs: u32,
    /// How often one of its jobs may be given out.
    pub(super) rate: Option<Rate>,
    pub(super) bucket: Bucket,
}

impl KeySlot {
    /// Whether nobody has it, as far as is known here.
    fn is_free(&self) -> bool {
        self.lock.is_none() && self.row.is_none_or(|row| row.holder.is_none())
    }

    /// When its rate lets the next job go, if none may go now.
    pub(super) fn throttled_until(&self, now: Timestamp) -> Option<Timestamp> {
        let rate = self.rate.filter(|rate| self.bucket.room(now, *rate) == 0)?;
        Some(self.bucket.ready_at(now, rate))
    }
}

impl Engine {
    /// Whether the job may be delivered as far as its key goes.
    #[cold]
    pub(super) fn key_admits(&self, job: &Job) -> bool {
        let slot = job.spec.key.and_then(|key| self.keys.get(&key));
        slot.is_none_or(|slot| slot.is_free() && slot.throttled_until(self.now).is_none())
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
        let (key, holder) = match (old, row.held_key()) {
            (None, Some(key)) => (key, Some(row.key)),
            (Some(key), None) => (key, None),
            (Some(_), Some(_)) | (None, None) => return,
        };
        let known = self.keys.get(&key).and_then(|slot| slot.row);
        if holder.is_none() && known.is_none_or(|known| known.holder != Some(row.key)) {
            return;
        }
        let version = known.map_or(Version::FIRST, |known| known.version.next());
        let expect = known.map(|known| known.version);
        let known = known.unwrap_or(KeyRow::new(key));
        self.scratch.add(expect, Row::Key(KeyRow { version, write: row.write, holder, ..known }), NONE);
        self.lock_key(key, row.write.ticket);
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
            let unread = !slot.known || !slot.callers.is_empty();
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
        if known.is_none() && row.holder.is_none() {
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

    /// The key's row was read, and taken if there is one, unless a write of it is under way: then it is read again.
    #[cold]
    pub(super) fn read_key(&mut self, key: Key) {
        let Some(slot) = self.keys.get_mut(&key) else { return };
        slot.asked = false;
        if slot.lock.is_some() {
            return;
        }
        slot.known = true;
        let callers = core::mem::take(&mut slot.callers);
        self.free_up(key);
        self.stir_holders(key);
        for call in callers {
            self.run(call, &[]);
        }
    }

    /// What could not be done to the key's holders while the key was unknown or locked.
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

    /// The best of the jobs set aside goes back to its queue, if the key is free.
    pub(super) fn free_up(&mut self, key: Key) {
        let Some(slot) = self.keys.get_mut(&key) else { return };
        if !slot.is_free() || slot.aside.is_empty() {
            return;
        }
        if let Some(until) = slot.throttled_until(self.now) {
            self.sleepers.insert((until, Sleeper::Key(key)));
            return;
        }
        let Some((_, at)) = slot.aside.pop_first() else { return };
        if let Some(slot) = self.store.jobs.get_mut(at) {
            slot.hangs = Hangs::No;
        }
        self.place(at);
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
        if let Some(until) = slot.throttled_until(self.now).filter(|_| slot.is_free()) {
            self.sleepers.insert((until, Sleeper::Key(key)));
        }
    }

    /// A job of the key is given out.
    pub(super) fn spend_key(&mut self, key: Key) {
        if let Some(slot) = self.keys.get_mut(&key)
            && let Some(rate) = slot.rate
        {
            slot.bucket.take(self.now, rate);
        }
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
        let place = (job.sequence, job.id());
        if job.state == State::Pending {
            slot.pending.insert(place);
            self.collapse(key, job);
        } else {
            slot.pending.remove(&place);
        }
        let slot = self.keys.entry(key).or_default();
        if job.held_key().is_none() {
            slot.holders.remove(&job.id());
            return;
        }
        slot.holders.insert(job.id());
        // A row that does not name a holder is an old one.
        if slot.row.is_none_or(|row| row.holder != Some(job.key)) {
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
        slot.pending.remove(&(job.sequence, job.id()));
        slot.holders.remove(&job.id());
        if many
            && slot.jobs == 0
            && slot.rate.is_none()
            && slot.lock.is_none()
            && !slot.asked
            && slot.callers.is_empty()
        {
            self.keys.remove(&key);
        }
    }

    /// Of the pending jobs that give way, all older than the newest are superseded by it; what is newer than a job that
    /// keeps others out is superseded by that one.
    fn collapse(&mut self, key: Key, job: &Job) {
        let Some(slot) = self.keys.get(&key) else { return };
        let place = (job.sequence, job.id());
        let rule = |id: JobId| self.store.find_job(id).and_then(|at| self.store.spec(at)).map(|spec| spec.on_newer);
        let older = slot.pending.range(..place).map(|(_, id)| *id);
        let mut keepers = slot.holders.iter().copied().chain(older).filter(|id| rule(*id) == Some(OnNewer::KeepsOut));
        if let Some(keeper) = keepers.find(|id| *id != job.id()) {
            self.superseded.push_back((job.id(), keeper));
            return;
        }
        if job.spec.on_newer == OnNewer::KeepsOut {
            let newer = slot.pending.range(place..).map(|(_, id)| *id).filter(|id| *id != job.id());
            self.superseded.extend(newer.map(|id| (id, job.id())));
            return;
        }
        let Some((_, newest)) = slot.pending.last().copied() else { return };
        if newest != job.id() {
            if job.spec.on_newer == OnNewer::GivesWay {
                self.superseded.push_back((job.id(), newest));
            }
            return;
        }
        let older = slot.pending.range(..place).map(|(_, id)| *id);
        self.superseded.extend(older.filter(|id| rule(*id) == Some(OnNewer::GivesWay)).map(|id| (id, newest)));
    }
}

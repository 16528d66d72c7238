//! Limits of pools that several engines share: looked at, taken, given back, and taken back from the dead.

use alloc::vec::Vec;

use super::call::{Call, Pull};
use super::flight::{Flight, Origin};
use super::{Engine, Purpose, Sleeper};
use crate::effect::{Row, Want};
use crate::id::{CallId, Incarnation, PoolId, Ticket, Version};
use crate::pool_row::{LifeRow, PoolRow};
use crate::queues::Pool;
use crate::share::{self, Bounds, Share, Wish};
use crate::store::NONE;
use crate::time::Timestamp;

/// For how many looks a share counts without being renewed.
const TERM_LOOKS: u64 = 5;
/// How many lives are remembered that the host knows to be dead.
const DEAD: usize = 1_000;

/// The row of this engine's life, as far as it is known. Each delivery for a shared pool is guarded by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct OwnLife {
    pub(super) row: Option<LifeRow>,
    /// The write that is under way for it.
    pub(super) lock: Option<Ticket>,
}

impl Engine {
    // ---- asked ------------------------------------------------------------------------------------------------------

    /// Tells that another engine of this database is dead: the host saw it die.
    ///
    /// The shares of pools' limits that it held are reclaimed by engines that need them, at once and not only when they
    /// have lapsed. Safe if the engine lives after all: it notices, and starts anew.
    pub fn handle_engine_gone(&mut self, now: Timestamp, life: Incarnation) {
        self.lift(now);
        let until = self.now.after_millis(self.term_ms());
        let is_other = life != self.config.engine && self.config.recheck_ms > 0;
        if is_other && self.gone_lives.len() < DEAD && self.gone_lives.insert(life, until).is_none() {
            for share in self.queues.pools.iter_mut().filter_map(|pool| pool.share.as_mut()) {
                share.due = share.due.min(now);
            }
            self.look_at_shares(|_| true);
        } else {
            self.counters.ignored += 1;
        }
        self.pump();
    }

    /// Tells that another engine has given back, or waits for, a part of a pool's limits.
    ///
    /// The pool's row is read now, and not only with the next regular look. May be told late, twice, or not at all.
    pub fn handle_pool_news(&mut self, now: Timestamp, pool: PoolId) {
        self.lift(now);
        match self.queues.pool(pool) {
            Some(at) if self.queues.pools[at as usize].share.is_some() => {
                if let Some(share) = self.share(at) {
                    share.due = Timestamp::ZERO;
                }
                self.look_at_shares(|other| other.spec.id == pool);
            }
            Some(_) | None => self.counters.ignored += 1,
        }
        self.pump();
    }

    /// Looks at all shares that this engine has or wants, and forgets the dead whose shares have lapsed.
    pub(super) fn recheck_shares(&mut self) {
        let now = self.now;
        self.gone_lives.retain(|_, until| *until > now);
        self.look_at_shares(|_| true);
    }

    /// Whether the pool's limits are shared, as they now are.
    pub(super) fn share_pool(&mut self, at: u32) {
        let pool = &mut self.queues.pools[at as usize];
        let is_limited = pool.spec.max_leases < u32::MAX || pool.spec.rate.is_some();
        if self.config.recheck_ms == 0 || !is_limited {
            pool.share = None;
        } else if pool.share.is_none() {
            pool.share = Some(alloc::boxed::Box::default());
        }
    }

    /// For how long a share counts without being renewed, in milliseconds.
    fn term_ms(&self) -> u64 {
        TERM_LOOKS * u64::from(self.config.recheck_ms)
    }

    fn share(&mut self, at: u32) -> Option<&mut Share> {
        self.queues.pools.get_mut(at as usize)?.share.as_deref_mut()
    }

    /// Notes that this many jobs could not be given out for want of leases or tokens.
    pub(super) fn seek_share(&mut self, at: u32, missed: u32) {
        let (now, is_raising) = (self.now, self.life.lock.is_some());
        let Some(share) = self.share(at) else { return };
        share.missed = share.missed.max(missed);
        if !share.is_moving() && share.due <= now && !is_raising {
            self.look_at_share(at);
        }
    }

    /// Work has come to pools whose workers wait, and which this engine may not give it to yet.
    pub(super) fn seek_shares(&mut self) {
        if self.config.recheck_ms == 0 {
            return;
        }
        let starved = self.queues.woken.iter().copied().filter(|at| {
            let pool = &self.queues.pools[*at as usize];
            !pool.parked.is_empty() && pool.is_starved(self.now)
        });
        for at in starved.collect::<Vec<u32>>() {
            self.seek_share(at, 0);
        }
    }

    /// The row of a pool is read, unless that is under way.
    fn look_at_share(&mut self, at: u32) {
        let Some(pool) = self.queues.pools.get_mut(at as usize) else { return };
        let id = pool.spec.id;
        if let Some(share) = pool.share.as_mut().filter(|share| !share.is_moving()) {
            share.asked = true;
            if share.recount {
                let life = self.config.engine;
                share.counting = self.life.lock.is_none();
                return self.ask(Want::Charged { pool: id, life }, Purpose::Charged(at, life));
            }
            self.ask(Want::Pool(id), Purpose::Pool(at));
        }
    }

    /// Looks at the shares that this engine has or wants, among these pools.
    pub(super) fn look_at_shares(&mut self, among: impl Fn(&Pool) -> bool) {
        let (life, now) = (self.config.engine, self.now);
        let has = |share: &Share| share.row.as_ref().is_some_and(|row| row.share(life).is_some());
        let is_due = |pool: &Pool| {
            let share = pool.share.as_ref().filter(|share| !share.is_moving());
            share.is_some_and(|share| has(share) || share.missed > 0) || (share.is_some() && pool.is_starved(now))
        };
        let due = self.queues.pools.iter().zip(0..).filter(|(pool, _)| among(pool) && is_due(pool));
        let due: Vec<u32> = due.map(|(_, at)| at).collect();
        for at in due {
            self.look_at_share(at);
        }
    }

    /// A pool's rate, or another look at its shares, may let something go.
    pub(super) fn wake_pool(&mut self, at: u32) {
        self.queues.stir(at);
        let pool = &self.queues.pools[at as usize];
        if pool.is_starved(self.now) && !pool.parked.is_empty() {
            self.seek_share(at, 0);
        }
    }

    // ---- read -------------------------------------------------------------------------------------------------------

    /// A pool's row was read, with the lives that have shares in it.
    pub(super) fn read_pool(&mut self, at: u32, rows: &[Row]) {
        let Some(pool) = self.queues.pools.get_mut(at as usize) else { return };
        let id = pool.spec.id;
        let Some(share) = pool.share.as_mut() else { return };
        share.asked = false;
        self.take_lives(rows);
        let row = rows.iter().filter_map(Row::as_pool).find(|row| row.pool == id).cloned().unwrap_or(PoolRow::new(id));
        self.settle_share(at, row);
    }

    /// Writes into a pool's row what this engine wants of it now, or goes on without.
    fn settle_share(&mut self, at: u32, row: PoolRow) {
        let need = self.need(at);
        let (now, life) = (self.now, self.config.engine);
        let (recheck_ms, term_ms) = (u64::from(self.config.recheck_ms), self.term_ms());
        let (known, lock) = (self.life.row, self.life.lock);
        let gone = &self.gone_lives;
        let Some(pool) = self.queues.pools.get_mut(at as usize) else { return };
        let used = pool.charged + pool.flying;
        let bounds = Bounds { leases: pool.spec.max_leases, rate: pool.spec.rate, term_ms };
        let Some(share) = pool.share.as_mut().filter(|share| share.lock.is_none()) else { return };
        share.missed = need;
        if lock.is_some() {
            // The life's own row is being written: looked at again after that.
            share.leases = 0;
            return;
        }
        if share.recount {
            return self.look_at_share(at);
        }
        let is_doubtful = share.doubt.is_some_and(|version| version == row.version);
        if !is_doubtful {
            share.doubt = None;
        }
        let wish = Wish { life, used, need, tokens: share.tokens, is_humble: share.humble > now, is_doubtful };
        let settled = share::settle(&row, bounds, wish, |life| gone.contains_key(&life));
        share.missed = 0;
        let before = row.share(life).map_or(0, |share| share.leases);
        let mine = settled.row.as_ref().unwrap_or(&row).share(life).copied().unwrap_or_default();
        // Lowered before it is written, raised after.
        let sure = if is_doubtful { share.leases } else { u32::MAX };
        share.leases = before.min(mine.leases).min(sure);
        share.keep = settled.keep;
        share.ready = settled.ready_ms.map(|ms| now.after_millis(ms));
        if settled.gave_way {
            share.humble = now.after_millis(2 * recheck_ms);
        }
        share.due = match share.ready {
            _ if mine.leases.min(settled.keep).saturating_sub(used) < need => now.after_millis(recheck_ms),
            Some(ready) => ready,
            None => now,
        };
        if share.due > now {
            self.sleepers.insert((share.due, Sleeper::Pool(at)));
        }
        let Some(new) = settled.row else {
            share.row = Some(row);
            return self.settled(at);
        };
        share.taking = settled.tokens;
        let ticket = self.ticket();
        if known.is_none() {
            let row = LifeRow { life, version: Version::FIRST, write: self.write_id(ticket) };
            self.scratch.add(None, Row::Life(row), NONE);
            self.life.lock = Some(ticket);
        }
        self.put_pool_row(at, ticket, row, new, Origin::Share(at));
    }

    /// Writes a pool's row that was `old`.
    fn put_pool_row(&mut self, at: u32, ticket: Ticket, old: PoolRow, new: PoolRow, origin: Origin) {
        let expect = (old.version != Version::new(0)).then_some(old.version);
        let (version, write) = (old.version.next(), self.write_id(ticket));
        let Some(share) = self.share(at) else { return };
        share.lock = Some(ticket);
        share.row = Some(old);
        let row = PoolRow { version, write, clock: Timestamp::ZERO, ..new };
        self.scratch.add(expect, Row::Pool(row), NONE);
        self.propose(ticket, origin);
    }

    /// How many jobs the pool's workers would take now, as far as is known.
    fn need(&self, at: u32) -> u32 {
        let pool = &self.queues.pools[at as usize];
        let parked = pool.parked.iter().take(1_000).filter_map(|id| self.calls.get(*id)?.pull());
        let parked = parked.map(|pull| pull.want - pull.got);
        let missed = pool.share.as_ref().map_or(0, |share| share.missed);
        let wanted = parked.fold(0, u32::saturating_add).max(missed);
        wanted.min(self.queues.depth_of(at, wanted))
    }

    /// Nothing of the pool's row is under way any more: what the dead hold is looked for, and hasty pulls are answered.
    fn settled(&mut self, at: u32) {
        let life = self.config.engine;
        let term_ms = self.term_ms();
        let gone = &self.gone_lives;
        let Some(pool) = self.queues.pools.get_mut(at as usize) else { return };
        let id = pool.spec.id;
        let Some(share) = pool.share.as_mut() else { return };
        let row = share.row.as_ref().filter(|row| row.share(life).is_some_and(|share| share.wanted > 0));
        let dead =
            row.and_then(|row| share::next_dead(row, life, share.after, term_ms, |life| gone.contains_key(&life)));
        if let Some(dead) = dead {
            (share.asked, share.after) = (true, dead);
            return self.ask(Want::Charged { pool: id, life: dead }, Purpose::Charged(at, dead));
        }
        share.after = Incarnation::new(0);
        self.queues.stir(at);
        self.serve_hasty(at);
    }

    /// Pulls that wait for nothing but the look at the pool's row are served with what there is now.
    pub(super) fn serve_hasty(&mut self, at: u32) {
        let Some(pool) = self.queues.pools.get(at as usize) else { return };
        let is_hasty = |id: &CallId| self.calls.get(*id).and_then(Call::pull).is_some_and(Pull::is_hasty);
        let hasty: Vec<CallId> = pool.parked.iter().copied().filter(is_hasty).collect();
        for id in hasty {
            self.unpark(id);
            self.serve(id);
        }
    }

    /// A life's row was read, and then the jobs that are charged to it.
    pub(super) fn read_charged(&mut self, at: u32, life: Incarnation, rows: &[Row]) {
        self.take(rows);
        let is_raising = self.life.lock.is_some();
        let Some(pool) = self.queues.pools.get_mut(at as usize) else { return };
        let id = pool.spec.id;
        let Some(share) = pool.share.as_mut() else { return };
        share.asked = false;
        if share.lock.is_some() {
            return;
        }
        if life == self.config.engine {
            if !is_raising {
                share.recount &= !core::mem::take(&mut share.counting);
                self.look_at_share(at);
            }
            return;
        }
        let Some(row) = share.row.clone() else { return self.look_at_share(at) };
        let fence = rows.iter().filter_map(Row::as_life).find(|row| row.life == life).copied();
        let Some(fence) = fence.filter(|fence| fence.write.engine != life) else {
            return self.end_life(at, life, fence);
        };
        let charged = rows.iter().filter_map(Row::as_job).filter(|job| job.charged() == Some((id, life))).count();
        match share::reclaim(&row, life, u32::try_from(charged).unwrap_or(u32::MAX)) {
            Some(new) => {
                let ticket = self.ticket();
                // Not counted anew since: the life is still ended.
                self.scratch.add(Some(fence.version), Row::Life(fence), NONE);
                self.put_pool_row(at, ticket, row, new, Origin::Reclaim(at));
            }
            None => self.settled(at),
        }
    }

    /// Ends another life: what it gives out from now on is not written.
    fn end_life(&mut self, at: u32, life: Incarnation, known: Option<LifeRow>) {
        let ticket = self.ticket();
        let Some(share) = self.share(at) else { return };
        share.lock = Some(ticket);
        let version = known.map_or(Version::FIRST, |row| row.version.next());
        let row = LifeRow { life, version, write: self.write_id(ticket) };
        self.scratch.add(known.map(|row| row.version), Row::Life(row), NONE);
        self.propose(ticket, Origin::EndLife(at, life));
    }

    // ---- this engine's own life --------------------------------------------------------------------------------------

    /// Looks among rows for this engine's life: another engine may have ended it.
    pub(super) fn take_lives(&mut self, rows: &[Row]) -> u32 {
        let own = rows.iter().filter_map(Row::as_life).filter(|row| row.life == self.config.engine);
        let Some(row) = own.max_by_key(|row| row.version).copied() else { return 0 };
        if self.life.lock.is_some() || self.life.row.is_some_and(|known| known.version >= row.version) {
            return 0;
        }
        self.life.row = Some(row);
        if row.write.engine != self.config.engine {
            self.raise_life(row);
        }
        1
    }

    /// Another engine took this one for dead. It starts anew: its life's row is raised once more, and only then is it
    /// read what is left of its shares.
    fn raise_life(&mut self, row: LifeRow) {
        for pool in &mut self.queues.pools {
            if let Some(share) = pool.share.as_mut() {
                (share.leases, share.recount, share.counting) = (0, true, false);
                share.missed = share.missed.max(1);
            }
        }
        let ticket = self.ticket();
        self.life.lock = Some(ticket);
        let new = LifeRow { version: row.version.next(), write: self.write_id(ticket), ..row };
        self.scratch.add(Some(row.version), Row::Life(new), NONE);
        self.propose(ticket, Origin::RaiseLife);
    }

    /// Reads this engine's life again, since it is not known any more.
    pub(super) fn doubt_life(&mut self) {
        let life = self.config.engine;
        let first = self.queues.pools.iter().zip(0..).find(|(pool, _)| {
            let share = pool.share.as_ref();
            share.is_some_and(|share| !share.is_moving())
        });
        let Some((id, at)) = first.map(|(pool, at)| (pool.spec.id, at)) else { return };
        if let Some(share) = self.share(at) {
            share.asked = true;
        }
        self.ask(Want::Charged { pool: id, life }, Purpose::Charged(at, life));
    }

    // ---- written, or not ---------------------------------------------------------------------------------------------

    /// A write about shares was made.
    pub(super) fn land_share(&mut self, flight: &Flight, ticket: Ticket) {
        let (life, had_lock) = (self.config.engine, self.life.lock.is_some());
        for change in &flight.changes {
            if let Some(row) = change.row.as_life().filter(|row| row.life == life && self.life.lock == Some(ticket)) {
                self.life = OwnLife { row: Some(*row), lock: None };
            }
            if let Some(row) = change.row.as_pool() {
                self.land_pool_row(row, flight.origin);
            }
        }
        match flight.origin {
            // The row is new: what the store's clock says is told with its first reading.
            Origin::Share(at) if self.share(at).is_some_and(|share| share.is_new()) => self.look_at_share(at),
            Origin::Share(at) => self.settled(at),
            Origin::Reclaim(at) => {
                let row = self.share(at).and_then(|share| share.row.clone());
                if let Some(row) = row {
                    self.settle_share(at, row);
                }
            }
            Origin::EndLife(at, dead) => {
                let Some(pool) = self.queues.pools.get_mut(at as usize) else { return };
                let id = pool.spec.id;
                if let Some(share) = pool.share.as_mut() {
                    (share.lock, share.asked) = (None, true);
                    self.ask(Want::Charged { pool: id, life: dead }, Purpose::Charged(at, dead));
                }
            }
            Origin::RaiseLife => {}
            Origin::Call(_) | Origin::Pull(..) | Origin::Expire | Origin::Decide => return,
        }
        if had_lock && self.life.lock.is_none() {
            // Others waited for this engine's life; and pulls that wait for nothing else, whose jobs may be gone.
            let waits = |pool: &Pool| {
                let missed = pool.share.as_ref().map(|share| share.missed);
                missed.is_some_and(|missed| missed > 0 || !pool.parked.is_empty())
            };
            let waiting = self.queues.pools.iter().zip(0..).filter(|(pool, _)| waits(pool)).map(|(_, at)| at);
            for at in waiting.collect::<Vec<u32>>() {
                self.look_at_share(at);
            }
        }
    }

    fn land_pool_row(&mut self, row: &PoolRow, origin: Origin) {
        let life = self.config.engine;
        let at = self.queues.pool(row.pool);
        let Some(share) = at.and_then(|at| self.share(at)) else { return };
        let clock = share.row.as_ref().map_or(Timestamp::ZERO, |old| old.clock);
        share.lock = None;
        share.row = Some(PoolRow { clock, ..row.clone() });
        if matches!(origin, Origin::Share(_)) {
            share.leases = row.share(life).map_or(0, |share| share.leases);
            share.tokens += core::mem::take(&mut share.taking);
        }
    }

    /// A write about shares was not made: nothing is locked by it any more.
    pub(super) fn unlock_share(&mut self, origin: Origin, ticket: Ticket) {
        if self.life.lock == Some(ticket) {
            self.life.lock = None;
        }
        if let Origin::Share(at) | Origin::Reclaim(at) | Origin::EndLife(at, _) = origin
            && let Some(share) = self.share(at).filter(|share| share.lock == Some(ticket))
        {
            (share.lock, share.taking) = (None, 0);
        }
    }

    /// A write is given up of which nobody knows whether it will yet be made. A delivery is kept from it by a new version
    /// of the life that guards it; a pool's row, by another write of that row.
    pub(super) fn doubt_share(&mut self, flight: &Flight) {
        match flight.origin {
            Origin::Pull(_, at) if self.share(at).is_some() && self.life.lock.is_none() => {
                if let Some(row) = self.life.row {
                    self.raise_life(row);
                }
            }
            Origin::Share(at) => {
                let base = flight.changes.iter().find(|change| matches!(change.row, Row::Pool(_)));
                let base = base.map(|change| change.expect.unwrap_or(Version::new(0)));
                if let Some(share) = self.share(at) {
                    share.doubt = base;
                }
            }
            Origin::Pull(..)
            | Origin::Call(_)
            | Origin::Expire
            | Origin::Decide
            | Origin::Reclaim(_)
            | Origin::EndLife(..)
            | Origin::RaiseLife => {}
        }
    }

    /// Tries the purpose of a failed write about shares again.
    pub(super) fn again_share(&mut self, origin: Origin) {
        match origin {
            Origin::Share(at) | Origin::Reclaim(at) | Origin::EndLife(at, _) => self.look_at_share(at),
            Origin::RaiseLife if self.life.lock.is_none() => self.doubt_life(),
            Origin::Pull(_, at) => {
                // The rate has given nothing out.
                let has_rate = self.queues.pools[at as usize].spec.rate.is_some();
                if let Some(share) = self.share(at).filter(|_| has_rate) {
                    share.tokens += 1;
                }
            }
            Origin::RaiseLife | Origin::Call(_) | Origin::Expire | Origin::Decide => {}
        }
    }

    /// Reschedules reads that were due at a time that has not come by the new clock.
    pub(super) fn step_shares_back(&mut self, now: Timestamp) {
        let soon = now.after_millis(2 * u64::from(self.config.recheck_ms));
        for share in self.queues.pools.iter_mut().filter_map(|pool| pool.share.as_mut()) {
            share.due = share.due.min(now);
            share.humble = share.humble.min(soon);
            share.ready = share.ready.map(|ready| ready.min(soon));
        }
        let late = now.after_millis(self.term_ms());
        for until in self.gone_lives.values_mut() {
            *until = (*until).min(late);
        }
    }
}

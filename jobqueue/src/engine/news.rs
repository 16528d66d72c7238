//! News for a concurrent engine: what it must know of each of its engines.

use alloc::vec::Vec;

use super::Engine;
use crate::config::Service;
use crate::id::PoolId;
use crate::reason::Refused;
use crate::time::Timestamp;

impl Engine {
    /// From now on, what comes for pools is noted.
    pub(crate) fn watch(&mut self) {
        self.queues.news = Some(Vec::new());
    }

    /// A pool that something came for since this was asked last, how much, and whether there are more such pools to be
    /// asked about.
    pub(crate) fn take_news(&mut self) -> Option<(PoolId, u32, bool)> {
        let news = self.queues.news.as_mut()?;
        let (pool, jobs) = news.pop()?;
        Some((self.queues.pools[pool as usize].spec.id, jobs, !news.is_empty()))
    }

    /// The latest time that was told.
    pub(crate) const fn time(&self) -> Timestamp {
        self.now
    }

    /// Whether a pull would find something; if only a rate is in its way, that is news when it no longer is.
    pub(crate) fn can_serve(&mut self, now: Timestamp, pool: PoolId) -> Result<bool, Refused> {
        let at = self.queues.pool(pool).ok_or(Refused::Disabled)?;
        let slot = &self.queues.pools[at as usize];
        if slot.spec.service == Service::Closed {
            return Err(Refused::Disabled);
        }
        self.lift(now);
        let slot = &self.queues.pools[at as usize];
        let found = slot.has_work() && slot.room(self.now) > 0;
        // Whoever asks first learns what this engine may give out.
        let may_learn = slot.is_starved(self.now)
            && slot.share.as_ref().is_some_and(|share| share.is_moving() || share.due <= self.now);
        if !found {
            self.doze(at);
        }
        Ok(found || may_learn)
    }
}

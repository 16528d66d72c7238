//! What a face over many engines must know of one.

use alloc::collections::BTreeMap;

use super::Engine;
use crate::config::Service;
use crate::id::PoolId;
use crate::reason::Refused;
use crate::time::Timestamp;

impl Engine {
    /// From now on, what comes for pools is noted.
    pub(crate) fn watch(&mut self) {
        self.queues.news = Some(BTreeMap::new());
    }

    /// How much came for each pool since this was asked last.
    pub(crate) fn take_news(&mut self) -> BTreeMap<PoolId, u32> {
        let Some(news) = self.queues.news.as_mut().filter(|news| !news.is_empty()) else { return BTreeMap::new() };
        let news = core::mem::take(news);
        news.into_iter().map(|(pool, jobs)| (self.queues.pools[pool as usize].spec.id, jobs)).collect()
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
        if !found {
            self.doze(at);
        }
        Ok(found)
    }
}

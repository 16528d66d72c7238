//! The kit's own model: the instances and requests that exist, by the events that it brought about itself.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Chance, Event, Progress};
use crate::effect::{Effect, RequestKind};
use crate::id::{GroupId, MetricId, PoolId, RequestId};
use crate::num::Milli;
use crate::{Engine, Timestamp};

/// One request, as it really went.
#[derive(Clone, Copy, Debug)]
struct Entry {
    group: GroupId,
    pool: PoolId,
    kind: RequestKind,
    count: u32,
    /// How many of a launch were cancelled and are not gone yet.
    over: u32,
    came: Progress,
}

impl Entry {
    fn open(&self) -> u32 {
        self.count - self.came.done - self.came.failed - self.came.cancelled
    }

    /// How many may still come, or fail: what was cancelled can only go.
    fn free(&self) -> u32 {
        self.open() - self.over
    }
}

#[derive(Debug, Default)]
pub(super) struct Books {
    requests: BTreeMap<RequestId, Entry>,
    /// Who serves and was not asked to go.
    serving: BTreeMap<(GroupId, PoolId), u32>,
    published: BTreeMap<(GroupId, MetricId), Vec<(Timestamp, Milli)>>,
}

impl Books {
    /// The instances died with their host; what was published stays published.
    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.serving.clear();
    }

    /// Takes in that an effect was acted on; whether it had been before.
    pub(super) fn act(&mut self, effect: &Effect) -> bool {
        let (group, pool, kind, count) = match *effect {
            Effect::Launch { group, pool, count, .. } => (group, pool, RequestKind::Launch, count),
            Effect::Release { group, pool, count, .. } => (group, pool, RequestKind::Release, count),
            Effect::Cancel { request, keep, .. } => {
                let Some(entry) = self.requests.get_mut(&request) else { return false };
                let over = entry.open().saturating_sub(keep.saturating_sub(entry.came.done));
                let again = over <= entry.over;
                entry.over = over.max(entry.over);
                return again;
            }
        };
        let again = self.requests.contains_key(&effect.request());
        if !again {
            let mut came = Progress::default();
            if kind == RequestKind::Release {
                // Who died before it was asked to go is gone already.
                let serving = self.serving.entry((group, pool)).or_default();
                let there = count.min(*serving);
                *serving -= there;
                came.done = count - there;
            }
            self.requests.insert(effect.request(), Entry { group, pool, kind, count, over: 0, came });
        }
        again
    }

    /// Something that may become of a request.
    pub(super) fn advance(&self, chance: &mut Chance) -> Option<Event> {
        let open: Vec<(&RequestId, &Entry)> = self.requests.iter().filter(|(_, entry)| entry.open() > 0).collect();
        let (request, entry) = *open.get(chance.index(open.len())?)?;
        let request = *request;
        if entry.over > 0 && (entry.free() == 0 || chance.below(2) == 0) {
            return Some(Event::Stop { request, count: 1 + chance.below(entry.over) });
        }
        let count = 1 + chance.below(entry.free());
        Some(match entry.kind {
            RequestKind::Release => Event::Leave { request, count },
            RequestKind::Launch if chance.below(5) == 0 => Event::Fail { request, count },
            RequestKind::Launch => Event::Start { request, count },
        })
    }

    /// The next event that brings a request to its end, at its best.
    pub(super) fn finish(&self) -> Option<Event> {
        let (request, entry) = self.requests.iter().find(|(_, entry)| entry.open() > 0)?;
        let (request, count, over) = (*request, entry.free(), entry.over);
        Some(match entry.kind {
            RequestKind::Release => Event::Leave { request, count },
            RequestKind::Launch if over > 0 => Event::Stop { request, count: over },
            RequestKind::Launch => Event::Start { request, count },
        })
    }

    pub(super) fn death(&self, chance: &mut Chance) -> Option<Event> {
        let alive: Vec<(&(GroupId, PoolId), &u32)> = self.serving.iter().filter(|(_, count)| **count > 0).collect();
        let ((group, pool), count) = *alive.get(chance.index(alive.len())?)?;
        Some(Event::Die { group: *group, pool: *pool, count: 1 + chance.below(*count) })
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Measured { group, metric, at, value } => {
                self.published.entry((group, metric)).or_default().push((at, value));
            }
            Event::Start { request, count } => {
                if let Some(entry) = self.requests.get_mut(&request) {
                    entry.came.done += count;
                    *self.serving.entry((entry.group, entry.pool)).or_default() += count;
                }
            }
            Event::Fail { request, count } => {
                if let Some(entry) = self.requests.get_mut(&request) {
                    entry.came.failed += count;
                }
            }
            Event::Stop { request, count } => {
                if let Some(entry) = self.requests.get_mut(&request) {
                    entry.came.cancelled += count;
                    entry.over -= count;
                }
            }
            Event::Leave { request, count } => {
                if let Some(entry) = self.requests.get_mut(&request) {
                    entry.came.done += count;
                }
            }
            Event::Die { group, pool, count } => {
                if let Some(serving) = self.serving.get_mut(&(group, pool)) {
                    *serving -= count;
                }
            }
        }
    }

    /// A reading is something that was published, with its own instant: a gap is neither a zero nor news.
    pub(super) fn check_reading(
        &self,
        group: GroupId,
        metric: MetricId,
        found: Option<(Timestamp, Milli)>,
    ) -> Result<(), String> {
        let known = self.published.get(&(group, metric)).map_or(&[][..], Vec::as_slice);
        match found {
            Some((at, value)) if !known.contains(&(at, value)) => {
                let (at, newest) = (at.as_millis(), known.last());
                Err(format!("metric {metric} reads {value} of {at}, which was never published; last was {newest:?}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_progress(&self, request: RequestId, told: Progress) -> Result<(), String> {
        match self.requests.get(&request) {
            None => Err(format!("request {request} was never acted on")),
            Some(entry) if entry.came != told => {
                Err(format!("request {request} came to {:?}, and {told:?} is told", entry.came))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether all that requests of a group in a pool came to has been told.
    pub(super) fn is_told(&self, engine: &Engine, group: GroupId, pool: PoolId) -> bool {
        engine.requests().filter(|(_, held)| held.group == group && held.pool == pool).all(|(id, held)| {
            let came = self.requests.get(&id).map(|entry| entry.came);
            came == Some(held.came)
        })
    }

    pub(super) fn check_census(&self, group: GroupId, pool: PoolId, told: u32) -> Result<(), String> {
        let serving = self.serving.get(&(group, pool)).copied().unwrap_or(0);
        if told == serving {
            Ok(())
        } else {
            Err(format!("{serving} instances of group {group} serve in pool {pool}, and {told} are counted"))
        }
    }

    /// After a restart, every request that the engine has open is one that was acted on, of the same kind and size.
    pub(super) fn check_known(&self, engine: &Engine) -> Result<(), String> {
        for (id, held) in engine.requests() {
            let same = self.requests.get(&id).is_some_and(|entry| {
                (entry.group, entry.pool, entry.kind, entry.count) == (held.group, held.pool, held.kind, held.count)
            });
            if !same {
                return Err(format!("after a restart, request {id} is not the one that the cloud was asked"));
            }
        }
        Ok(())
    }

    /// No instance is there that nobody asked for, and none is missing.
    pub(super) fn check_existing(&self, pool: PoolId, told: u32) -> Result<(), String> {
        let open: u32 = self.requests.values().filter(|entry| entry.pool == pool).map(Entry::open).sum();
        let serving: u32 = self.serving.iter().filter(|((_, held), _)| *held == pool).map(|(_, count)| *count).sum();
        if told == open + serving {
            Ok(())
        } else {
            Err(format!("pool {pool} should have {} instances, and has {told}", open + serving))
        }
    }
}

//! Pods: created, starting, ready, gone.

use tenon_scaler::Timestamp;
use tenon_scaler::hpa::{Deletion, Phase, Pod, ReadyCondition, Requests};

use super::sums::Lives;
use super::{Level, Plant};

/// The pods of a workload, in the order of their ids.
pub(super) struct Fleet {
    pods: Vec<Pod>,
    /// When each pod is ready.
    ready_at: Vec<u64>,
    starting: u32,
    next_id: u32,
    requests: Requests,
    start_ms: u64,
    /// How many pods the nodes have room for, and how long a node takes.
    room: Option<(u32, u64)>,
    stop_ms: u64,
    pub(super) lives: Lives,
}

/// Pods of the start have been there for a day.
const LONG_MS: u64 = 86_400_000;

impl Fleet {
    pub(super) fn new(initial: u32, requests: Requests, plant: &Plant) -> Self {
        let mut fleet = Self {
            pods: Vec::new(),
            ready_at: Vec::new(),
            starting: 0,
            next_id: 0,
            requests,
            start_ms: 0,
            room: None,
            stop_ms: plant.stop_ms,
            lives: Lives::default(),
        };
        let before = plant.from.saturating_sub(LONG_MS);
        fleet.resize(before, initial);
        fleet.wake(before);
        (fleet.start_ms, fleet.lives.started) = (plant.start_ms, 0);
        fleet.room = plant.nodes.map(|(room, node_ms)| (room.max(initial), node_ms));
        fleet
    }

    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.pods.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn ready(&self) -> u32 {
        self.size() - self.starting
    }

    pub(super) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    pub(super) fn level(&self, at: u64) -> Level {
        Level { at, ready: self.ready(), starting: self.starting }
    }

    /// When the next pod that starts is ready.
    pub(super) fn next_ready(&self) -> u64 {
        if self.starting == 0 {
            return u64::MAX;
        }
        let starting = self.pods.iter().zip(&self.ready_at).filter(|(pod, _)| pod.phase == Phase::Pending);
        starting.map(|(_, at)| *at).min().unwrap_or(u64::MAX)
    }

    /// Pods become ready. Returns whether any did.
    pub(super) fn wake(&mut self, now: u64) -> bool {
        if self.starting == 0 {
            return false;
        }
        let before = self.starting;
        for (pod, at) in self.pods.iter_mut().zip(&self.ready_at) {
            if pod.phase == Phase::Pending && *at <= now {
                pod.phase = Phase::Running;
                pod.ready = ReadyCondition::Ready(Timestamp::from_millis(*at));
                self.starting -= 1;
            }
        }
        self.starting < before
    }

    /// Creates pods, or removes them: those first that are not ready, then the youngest.
    pub(super) fn resize(&mut self, now: u64, size: u32) {
        let created = Timestamp::from_millis(now);
        while self.size() < size {
            let mut wait = self.start_ms;
            if let Some((room, node_ms)) = &mut self.room
                && u32::try_from(self.pods.len()).unwrap_or(u32::MAX) >= *room
            {
                wait += *node_ms;
                *room += 1;
            }
            self.pods.push(Pod {
                id: self.next_id,
                phase: Phase::Pending,
                ready: ReadyCondition::NotReady(created),
                started: Some(created),
                deletion: Deletion::None,
                requests: self.requests,
            });
            self.ready_at.push(now.saturating_add(wait));
            self.next_id = self.next_id.wrapping_add(1);
            self.starting += 1;
            self.lives.started += 1;
        }
        while self.size() > size {
            let starting = self.pods.iter().rposition(|pod| pod.phase == Phase::Pending);
            let place = starting.unwrap_or(self.pods.len() - 1);
            self.starting -= u32::from(starting.is_some());
            self.pods.remove(place);
            self.ready_at.remove(place);
            if self.stop_ms > 0 {
                self.lives.going.push(now.saturating_add(self.stop_ms));
            }
        }
        self.lives.peak = self.lives.peak.max(self.size());
    }
}

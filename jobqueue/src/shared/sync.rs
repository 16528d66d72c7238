//! Locks and counters: `parking_lot`'s and the machine's, or `shuttle`'s where a test picks every interleaving.

#[cfg(not(shuttle))]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(shuttle)]
use shuttle::sync::atomic::{AtomicU64, Ordering};

/// A lock that is only ever held for the length of a closure.
#[derive(Debug, Default)]
pub(super) struct Mutex<T>(Inner<T>);

#[cfg(not(shuttle))]
type Inner<T> = parking_lot::Mutex<T>;
#[cfg(shuttle)]
type Inner<T> = shuttle::sync::Mutex<T>;

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    #[cfg(not(shuttle))]
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.0.lock())
    }

    #[cfg(shuttle)]
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        let mut inside = self.0.lock().unwrap_or_else(shuttle::sync::PoisonError::into_inner);
        act(&mut inside)
    }
}

/// A number that threads count together, in one order for all of them.
#[derive(Debug)]
pub(super) struct Counter(AtomicU64);

impl Default for Counter {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns what it was before.
    pub(super) fn add(&self, step: i64) -> u64 {
        self.0.fetch_add(step.cast_unsigned(), Ordering::SeqCst)
    }
}

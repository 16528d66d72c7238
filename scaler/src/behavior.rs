//! How fast a group may move: cool-down and stabilisation, per direction.

use smallvec::SmallVec;

use crate::Timestamp;

/// Limits on how fast metric rules may move a group. Timed rules and operators are not held up by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Behavior {
    /// In the growing direction.
    pub out: Pace,
    /// In the shrinking direction.
    pub inward: Pace,
}

/// The pace of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pace {
    /// For how long, in ms, after a move in this direction, no further one is made.
    pub cooldown_ms: u64,
    /// For how long, in ms, every rule must have agreed: growth takes the least wanted within the window, shrinking the
    /// most.
    pub stabilize_ms: u64,
}

/// As many runs as one history holds.
const MAX_RUNS: usize = 64;

/// What was wanted lately, as far as it still matters for one extreme: a monotone queue (the sliding-window maximum of
/// Lemire, "Streaming maximum-minimum filter using no more than three comparisons per element", 2006).
///
/// A run is a wanted count and the last instant at which it was wanted. From front to back, runs grow younger and less
/// extreme; the front is the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Recent(SmallVec<[(u32, Timestamp); 2]>);

/// Which extreme a history keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extreme {
    Least,
    Most,
}

impl Recent {
    /// Takes in that `wanted` is wanted at `now`, and forgets what is `window_ms` old.
    ///
    /// A history with no room left lets its second oldest run take over the value of the oldest's place: the group then
    /// waits longer, never less.
    pub(crate) fn push(&mut self, extreme: Extreme, wanted: u32, now: Timestamp, window_ms: u64) {
        if window_ms == 0 {
            self.0.clear();
            return;
        }
        while self.0.last().is_some_and(|(held, _)| !more(extreme, *held, wanted)) {
            self.0.pop();
        }
        self.forget(now, window_ms);
        if self.0.len() >= MAX_RUNS {
            let (_, younger) = self.0.remove(1);
            self.0[0].1 = younger;
        }
        self.0.push((wanted, now));
    }

    /// The extreme of the window; `None` where nothing is kept.
    pub(crate) fn extreme(&self) -> Option<u32> {
        self.0.first().map(|(held, _)| *held)
    }

    /// When the extreme leaves the window, if nothing is added.
    pub(crate) fn changes_at(&self, window_ms: u64) -> Timestamp {
        self.0.first().map_or(Timestamp::MAX, |(_, last)| last.after_millis(window_ms))
    }

    /// Takes in that what was wanted last was still wanted at `until`.
    pub(crate) fn coast(&mut self, until: Timestamp, window_ms: u64) {
        if let Some((_, last)) = self.0.last_mut() {
            *last = until.max(*last);
        }
        self.forget(until, window_ms);
    }

    fn forget(&mut self, now: Timestamp, window_ms: u64) {
        let old = self.0.iter().take_while(|(_, last)| now.millis_since(*last) >= window_ms).count();
        self.0.drain(..old);
    }

    pub(crate) fn is_sound(&self, extreme: Extreme) -> bool {
        self.0.len() <= MAX_RUNS
            && self.0.windows(2).all(|two| more(extreme, two[0].0, two[1].0) && two[0].1 < two[1].1)
    }
}

const fn more(extreme: Extreme, held: u32, than: u32) -> bool {
    match extreme {
        Extreme::Least => held < than,
        Extreme::Most => held > than,
    }
}

//! Schedules: when a pipeline is to be started by the clock, as a pure decision over a row of the host's.
//!
//! A host keeps a [`Schedule`] as a row with a version, and looks at those whose `next` has come. [`Schedule::decide`]
//! says what to do; the host writes the row that the decision holds *in the transaction that writes the pipeline's own
//! rows*, each only from its expected version. So however many servers look at one schedule, and whenever they stop, each
//! firing is one pipeline: a firing cannot be lost, since the row did not move, and not be doubled, since it did.
//!
//! The crate knows no time zones. It is given a function that says what the clocks of a zone show at a moment, such as
//! one made of `jiff` and its zone data.
//!
//! ```
//! use tenon_jobqueue::Timestamp;
//! use tenon_jobqueue::schedule::{Missed, Schedule};
//! use tenon_jobqueue::trigger::{Civil, Cron};
//!
//! // Clocks of a zone without summer time: 1970 began on a Thursday. (`jiff` knows real ones.)
//! let utc = |at: Timestamp| {
//!     let (minutes, days) = (at.as_millis() / 60_000, at.as_millis() / 86_400_000);
//!     let of = |number: u64| u8::try_from(number).unwrap_or(0);
//!     Civil { minute: of(minutes % 60), hour: of(minutes / 60 % 24), day: of(days + 1), month: 1, weekday: of((days + 4) % 7) }
//! };
//! let hourly = Cron::new("0 * * * *")?;
//! let hour = |hour: u64| Timestamp::from_millis(hour * 3_600_000);
//! let schedule = Schedule::new(&hourly, Missed::Once, hour(0), utc);
//! assert_eq!(schedule.next, Some(hour(1)));
//!
//! // Nothing looked until after three o'clock: one firing stands for the three.
//! let decision = schedule.decide(&hourly, hour(3).after_millis(5), utc).expect("it is due");
//! assert_eq!(decision.fire, Some(hour(3)));
//! assert_eq!((decision.missed, decision.schedule.next), (2, Some(hour(4))));
//! # Ok::<(), tenon_jobqueue::trigger::PatternError>(())
//! ```

use crate::time::Timestamp;
use crate::trigger::{Civil, Cron};

const MINUTE: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
/// A change of the clocks is at most this large, in minutes; larger ones are taken for a change of the date.
const LARGEST_CHANGE: u64 = 180;
/// How far ahead a firing is looked for: from one 29 February to the next there may be eight years.
const HORIZON_DAYS: u64 = 9 * 366;
/// How many missed firings are counted one by one: what is older than these is passed over in one step.
const COUNTED: u32 = 100_000;

/// The policy for missed firings: those that no engine was running for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Missed {
    /// Missed firings are skipped, unless the last is not older than [`Schedule::LATE_MS`].
    #[default]
    Skip = 0,
    /// The last missed firing is made up for, in place of all.
    Once = 1,
    /// All missed firings are made up for, the oldest first.
    All = 2,
}

impl Missed {
    /// The stable number of the value, as databases keep it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The value with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Skip),
            1 => Some(Self::Once),
            2 => Some(Self::All),
            _ => None,
        }
    }
}

/// The part of a schedule's row that decisions are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Schedule {
    /// The policy for missed firings.
    pub missed: Missed,
    /// The last firing that was decided about, made or not. Before the first, the time when the schedule was made.
    pub last: Timestamp,
    /// The next firing; `None` if the schedule names no minute of the coming nine years.
    pub next: Option<Timestamp>,
}

/// The decision about a schedule that is due.
#[must_use = "a decision that is not written is made again"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decision {
    /// The minute to start a pipeline for, in the write that moves the schedule; `None` if the schedule moves alone.
    pub fire: Option<Timestamp>,
    /// The number of firings that this decision leaves out, up to 100,000.
    pub missed: u32,
    /// The schedule as it is to be written.
    pub schedule: Schedule,
}

impl Schedule {
    /// The maximum delay of a firing, in milliseconds, before it counts as missed.
    pub const LATE_MS: u64 = 60_000;

    /// A new schedule, whose first firing is after `now`.
    ///
    /// `clocks` converts a time to what the clocks of its zone show.
    #[must_use]
    pub fn new(cron: &Cron, missed: Missed, now: Timestamp, clocks: impl Fn(Timestamp) -> Civil) -> Self {
        Self { missed, last: now, next: next_after(cron, now, &clocks) }
    }

    /// The decision to carry out now; `None` if the next firing is yet to come.
    ///
    /// ```
    /// use tenon_jobqueue::Timestamp;
    /// use tenon_jobqueue::schedule::{Missed, Schedule};
    /// use tenon_jobqueue::trigger::{Civil, Cron};
    ///
    /// let minute = |at: Timestamp| u8::try_from(at.as_millis() / 60_000 % 60).unwrap_or(0);
    /// let utc = |at: Timestamp| Civil { minute: minute(at), hour: 0, day: 1, month: 1, weekday: 4 };
    /// let cron = Cron::new("*/5 * * * *")?;
    /// let schedule = Schedule::new(&cron, Missed::Skip, Timestamp::ZERO, utc);
    /// let due = schedule.next.expect("every fifth minute");
    /// assert_eq!(schedule.decide(&cron, due, utc).and_then(|decision| decision.fire), Some(due));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn decide(&self, cron: &Cron, now: Timestamp, clocks: impl Fn(Timestamp) -> Civil) -> Option<Decision> {
        let first = self.next.filter(|next| *next <= now)?;
        let after = |at| next_after(cron, at, &clocks);
        if self.missed == Missed::All {
            let schedule = Self { last: first, next: after(first), ..*self };
            return Some(Decision { fire: Some(first), missed: 0, schedule });
        }
        let (mut last, mut passed) = (first, 0);
        let mut next = after(first);
        while let Some(due) = next.filter(|next| *next <= now) {
            passed += 1;
            last = due;
            // Of what was missed for months only the end is looked at.
            let yesterday = Timestamp::from_millis(now.as_millis().saturating_sub(DAY_MINUTES * MINUTE));
            next = after(if passed == COUNTED { yesterday.max(due) } else { due });
        }
        let fires = self.missed == Missed::Once || now.millis_since(last) < Self::LATE_MS;
        let missed = if fires { passed } else { passed + 1 };
        Some(Decision { fire: fires.then_some(last), missed, schedule: Self { last, next, ..*self } })
    }
}

/// The first minute after `after` that the schedule names, by the clocks of a zone; `None` if none in the coming nine
/// years.
///
/// A schedule whose hour is fixed fires once a day that it names, as `cron` does: what the clocks skip fires with the
/// first minute after the gap, and what they show twice fires the first time. One whose hour is `*` fires as time passes.
#[must_use]
pub fn next_after(cron: &Cron, after: Timestamp, clocks: &impl Fn(Timestamp) -> Civil) -> Option<Timestamp> {
    let first = after.as_millis() / MINUTE + 1;
    let end = (first + HORIZON_DAYS * DAY_MINUTES).min(u64::MAX / MINUTE);
    // What the clocks did shortly before tells which minutes are shown for the second time.
    let mut scan = Scan::new(first.saturating_sub(LARGEST_CHANGE + 1), clocks);
    while scan.minute < end {
        let at = scan.minute;
        if at >= first && scan.fires(cron) {
            return Some(Timestamp::from_millis(at * MINUTE));
        }
        // Of days that are not named only their ends are looked at, since the clocks may change there.
        let to_midnight = DAY_MINUTES - minute_of_day(scan.shown);
        let jump = if at >= first && to_midnight > 2 * LARGEST_CHANGE && !cron.names_day(scan.shown) {
            to_midnight - LARGEST_CHANGE
        } else {
            1
        };
        scan.go(jump, clocks);
    }
    None
}

/// A walk over minutes, with what the clocks did on the way.
struct Scan {
    /// Minutes since the epoch.
    minute: u64,
    shown: Civil,
    /// How many of the coming minutes, this one included, the clocks show for the second time.
    again: u64,
    /// The minutes that the clocks skipped just before this one: their start, and their number.
    skipped: Option<(Civil, u64)>,
}

impl Scan {
    fn new(minute: u64, clocks: &impl Fn(Timestamp) -> Civil) -> Self {
        Self { minute, shown: clocks(Timestamp::from_millis(minute * MINUTE)), again: 0, skipped: None }
    }

    fn go(&mut self, minutes: u64, clocks: &impl Fn(Timestamp) -> Civil) {
        let before = self.shown;
        self.minute += minutes;
        self.shown = clocks(Timestamp::from_millis(self.minute * MINUTE));
        self.again = self.again.saturating_sub(minutes);
        let moved = (minute_of_day(self.shown) + DAY_MINUTES - minute_of_day(before)) % DAY_MINUTES;
        let change = (moved + 2 * DAY_MINUTES - minutes % DAY_MINUTES) % DAY_MINUTES;
        self.skipped = None;
        // A longer step was taken on a day that the schedule does not name: what the clocks did there is of no interest.
        if minutes == 1 && (1..=LARGEST_CHANGE).contains(&change) {
            self.skipped = Some((before, change));
        }
        if minutes == 1 && change >= DAY_MINUTES - LARGEST_CHANGE {
            self.again = DAY_MINUTES - change;
        }
    }

    fn fires(&self, cron: &Cron) -> bool {
        if cron.is_every_hour() {
            return cron.matches(&self.shown);
        }
        let now = self.again == 0 && cron.matches(&self.shown);
        now || self.skipped.is_some_and(|(before, minutes)| {
            (1..=minutes).any(|ahead| {
                let minute = minute_of_day(before) + ahead;
                // A gap over midnight belongs to the day that follows it.
                let day = if minute >= DAY_MINUTES { self.shown } else { before };
                let small = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
                let (hour, minute) = (small(minute / 60 % 24), small(minute % 60));
                cron.matches(&Civil { minute, hour, ..day })
            })
        })
    }
}

const fn minute_of_day(shown: Civil) -> u64 {
    shown.hour as u64 * 60 + shown.minute as u64
}

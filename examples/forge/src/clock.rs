//! The time of day, as the engines are told it: it never goes back, and never jumps.
//!
//! The machine's own clock is set by people and by programs, in one step of days if need be. A job does not take two days
//! for that, and nothing ends before it began. So time passes by the monotonic clock, and is led towards the machine's
//! clock slowly: after a step of an hour it is right again after two and a half days.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of the time that passes, this part is what it is corrected by at most.
const SLOWLY: u128 = 64;

/// A clock by two others: one that is right, one that is steady.
#[derive(Debug)]
struct Clock {
    now: Duration,
    steady: Duration,
}

impl Clock {
    const fn at(wall: Duration, steady: Duration) -> Self {
        Self { now: wall, steady }
    }

    fn read(&mut self, wall: Duration, steady: Duration) -> Duration {
        let passed = steady.saturating_sub(self.steady);
        self.steady = self.steady.max(steady);
        let most = Duration::from_nanos(u64::try_from(passed.as_nanos() / SLOWLY).unwrap_or(u64::MAX));
        let plain = self.now + passed;
        let (ahead, behind) = (wall.saturating_sub(plain), plain.saturating_sub(wall));
        self.now = (plain + ahead.min(most)).saturating_sub(behind.min(most));
        self.now
    }
}

/// Milliseconds since 1970, or what they would be had nobody set the clock since this program started.
pub(crate) fn now_ms() -> u64 {
    static CLOCK: OnceLock<(Instant, Mutex<Clock>)> = OnceLock::new();
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (start, clock) = CLOCK.get_or_init(|| (Instant::now(), Mutex::new(Clock::at(wall(), Duration::ZERO))));
    let now = clock.lock().unwrap_or_else(PoisonError::into_inner).read(wall(), start.elapsed());
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const SECOND: Duration = Duration::from_secs(1);

    /// What the clock says after each second, when the machine's clock is set by `set` (which says what it shows after so
    /// many seconds).
    fn seconds(count: u64, set: impl Fn(u64) -> Duration) -> Vec<Duration> {
        let mut clock = Clock::at(set(0), Duration::ZERO);
        (1..=count).map(|n| clock.read(set(n), Duration::from_secs(n))).collect()
    }

    #[test]
    fn a_jump_of_days_is_not_a_duration() {
        let start = 1000 * DAY;
        for jump in
            [|at: Duration| at + 2 * DAY, |at: Duration| at.saturating_sub(2 * DAY), |at: Duration| at + 365 * DAY]
        {
            let read = seconds(60, |n| {
                let at = start + Duration::from_secs(n);
                if n < 10 { at } else { jump(at) }
            });
            for pair in read.windows(2) {
                let passed = pair[1].checked_sub(pair[0]).expect("never back");
                assert!(passed >= SECOND * 63 / 64 && passed <= SECOND * 65 / 64, "{passed:?}");
            }
        }
    }

    #[test]
    fn a_wrong_clock_is_led_back_and_a_right_one_left_alone() {
        let right = seconds(1000, |n| DAY + Duration::from_secs(n));
        assert_eq!(right[999], DAY + Duration::from_secs(1000));
        // A minute wrong: right again after 64 minutes, and it stays so.
        let wrong = seconds(2 * 64 * 60, |n| if n == 0 { DAY } else { DAY + Duration::from_secs(n + 60) });
        assert_eq!(wrong[64 * 60], DAY + Duration::from_secs(64 * 60 + 1 + 60));
        assert_eq!(wrong[2 * 64 * 60 - 1], DAY + Duration::from_mins(2 * 64 + 1));
        // However often it is asked.
        let mut clock = Clock::at(DAY, Duration::ZERO);
        let often = (1..=64_000_u64).map(|n| clock.read(DAY + SECOND, Duration::from_micros(n))).last();
        assert!(often.is_some_and(|now| now > DAY + Duration::from_micros(64_900)), "{often:?}");
    }
}

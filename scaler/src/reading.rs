//! The reading of the host's clock: one wrong reading stalls nothing for long, and takes nothing away.
//!
//! Two readings that agree are needed for whatever cannot be taken back. A tick that is *behind* what was read before does
//! nothing but be remembered; the next one that is behind as well, and later than it, says that the clock went back: then
//! nothing that is remembered stays in the future, and ticks go on. A tick that is far *ahead* of the one before grows what
//! has to grow, and takes nothing away until the next tick confirms it.

use crate::Timestamp;
use crate::decide::Haste;
use crate::engine::Engine;

impl Engine {
    /// The clock as commands and facts read it: it does not go back.
    pub(crate) fn lift(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    /// The time of a tick that is due, and whether it may take anything away; `None` for one that is not due, or that is
    /// behind.
    pub(crate) fn read_clock(&mut self, now: Timestamp) -> Option<(Timestamp, Haste)> {
        let (period, skew) = (self.config.tick_ms, self.config.clock_skew_ms);
        let latest = now.after_millis(skew);
        if self.now > latest || self.next_tick > latest.after_millis(period) {
            let confirmed = self.behind.is_some_and(|before| before < now);
            if !confirmed {
                self.counters.behind += 1;
                self.behind = Some(now);
                return None;
            }
            self.rewind(now);
        }
        self.behind = None;
        let now = self.lift(now);
        if now < self.next_tick {
            return None;
        }
        let leap_ms = self.config.leap_ms.max(period.saturating_mul(4));
        let leapt = self.last_tick.is_some_and(|last| now.millis_since(last) > leap_ms);
        if !leapt {
            self.next_tick = Timestamp::from_millis(now.as_millis() - now.as_millis() % period).after_millis(period);
            return Some((now, Haste::Usual));
        }
        self.counters.leaps += 1;
        self.next_tick = now.after_millis(period.min(CONFIRM_MS));
        Some((now, Haste::Leap))
    }

    /// The clock went back to `now`.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        self.counters.rewinds += 1;
        let Self { slots, due, requests, ledger, costs, config, .. } = self;
        for slot in slots {
            slot.state.rewind(now);
            for sample in slot.samples.iter_mut().flatten() {
                sample.at = sample.at.min(now);
            }
            for holding in &mut slot.holdings {
                holding.since = holding.since.min(now);
            }
            slot.counted = slot.counted.min(now);
            if let Some(fleet) = &mut slot.fleet {
                fleet.at = fleet.at.min(now);
            }
        }
        due.fill(Timestamp::ZERO);
        for request in requests.values_mut() {
            request.at = request.at.min(now);
        }
        ledger.rewind(now, config.back_off);
        costs.rewind(now, |pool| ledger.account(pool).map_or(0, |account| account.pool.price));
        (self.now, self.next_tick) = (now, now);
        self.last_tick = self.last_tick.map(|last| last.min(now));
        self.rewind_plan(now);
    }
}

/// How soon after a leap the next tick is due, in ms: it confirms the leap.
const CONFIRM_MS: u64 = 1_000;

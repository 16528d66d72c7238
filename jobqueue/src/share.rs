//! How engines share a pool's limit and its rate: what one of them writes into the pool's row.
//!
//! Three rules keep the limit in sum. The shares in a row never add up to more than the limit. An engine gives out jobs
//! by what it knows to be written, and each such write is guarded by the row of its life. A share is lowered by its owner,
//! who has ceased to use it; or by another, who has ended that life before and counts what is charged to it.

use alloc::vec::Vec;

use crate::id::{Incarnation, PoolId, Ticket, Version, WriteId};
use crate::pool_row::{PoolRow, PoolShare};
use crate::rate::{Bucket, Rate};
use crate::time::Timestamp;

/// One engine's knowledge of its share in a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Share {
    /// The pool's row as it was last read or written.
    pub(crate) row: Option<PoolRow>,
    /// Whether the row is being read.
    pub(crate) asked: bool,
    /// The write that is under way for the row.
    pub(crate) lock: Option<Ticket>,
    /// Leases that this engine may have out.
    pub(crate) leases: u32,
    /// Leases beyond which it gives out nothing more, as others wait for them.
    pub(crate) keep: u32,
    /// Deliveries that were taken out of the rate for it.
    pub(crate) tokens: u32,
    /// Deliveries that the write under way takes out of the rate.
    pub(crate) taking: u32,
    /// How many jobs could not be given out since the row was read, for want of leases or tokens.
    pub(crate) missed: u32,
    /// Before this time there is nothing new to be read, unless somebody says so.
    pub(crate) due: Timestamp,
    /// Until when it takes no more than its fair part, as it has just given way.
    pub(crate) humble: Timestamp,
    /// When the rate lets the next job go, if that is what keeps it.
    pub(crate) ready: Option<Timestamp>,
    /// The version from which a write of the row was proposed of which nobody knows whether it will yet be made.
    pub(crate) doubt: Option<Version>,
    /// Whether what is charged to this engine must be read before anything else is given out.
    pub(crate) recount: bool,
    /// Whether that is being read, since nothing older can be made any more.
    pub(crate) counting: bool,
    /// The dead life that was looked at last, in this look.
    pub(crate) after: Incarnation,
}

impl Share {
    /// Whether the row is there and was never read.
    pub(crate) fn is_new(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.version == Version::FIRST && row.shares.is_empty())
    }

    /// Whether an answer about the row is on its way.
    pub(crate) const fn is_moving(&self) -> bool {
        self.asked || self.lock.is_some()
    }
}

/// An engine's demand on a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The engine's life.
    pub(crate) life: Incarnation,
    /// Leases that it has out, or is giving out.
    pub(crate) used: u32,
    /// Jobs that it would give out besides.
    pub(crate) need: u32,
    /// Tokens of the rate that it has.
    pub(crate) tokens: u32,
    /// Whether it takes no more than its fair part.
    pub(crate) is_humble: bool,
    /// Whether the row is to be written in any case, so that no older write of it can be made.
    pub(crate) is_doubtful: bool,
}

/// The limits of a pool, as the engine's host has declared them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) leases: u32,
    pub(crate) rate: Option<Rate>,
    /// For how long a share counts without being renewed, in milliseconds.
    pub(crate) term_ms: u64,
}

/// The result of settling a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The row to write, if it changes. Its version and its author are the writer's to fill in.
    pub(crate) row: Option<PoolRow>,
    /// Leases beyond which nothing more is given out, once the row is written.
    pub(crate) keep: u32,
    /// Whether something was given back that others wait for.
    pub(crate) gave_way: bool,
    /// Tokens that the row takes out of the rate.
    pub(crate) tokens: u32,
    /// In how many milliseconds the rate lets the next job go, if none may go now.
    pub(crate) ready_ms: Option<u64>,
}

impl PoolShare {
    /// Whether its owner counts as dead by the store's clock. A share that counts for longer than a term was written while
    /// that clock was wrong: its owner writes it anew at its next look, and who does not look is dead.
    pub(crate) const fn has_lapsed(&self, now: Timestamp, term_ms: u64) -> bool {
        self.until.millis_since(now) > term_ms || now.millis_since(self.until) > 0
    }
}

impl PoolRow {
    /// The row of a pool of which nobody has written yet.
    pub(crate) const fn new(pool: PoolId) -> Self {
        Self {
            pool,
            version: Version::new(0),
            write: WriteId { engine: Incarnation::new(0), ticket: Ticket::new(0) },
            limit: 0,
            shares: Vec::new(),
            missing: 0,
            filled: Timestamp::ZERO,
            clock: Timestamp::ZERO,
        }
    }

    /// The share of a life, if it has one.
    #[must_use]
    pub fn share(&self, life: Incarnation) -> Option<&PoolShare> {
        self.shares.iter().find(|share| share.life == life)
    }

    /// Sets the share of a life, or takes it out if it is of nothing.
    pub(crate) fn set_share(&mut self, share: PoolShare) {
        self.shares.retain(|other| other.life != share.life);
        if share.leases > 0 || share.wanted > 0 {
            self.shares.push(share);
            self.shares.sort_unstable_by_key(|share| share.life);
        }
    }
}

/// The fair part of an engine while others wait.
///
/// A remainder goes to the oldest lives, unless there is less than one for each: then they take turns.
fn fair_part(leases: u32, others: impl Iterator<Item = Incarnation> + Clone, own: Incarnation) -> u32 {
    let count = cut(1 + others.clone().count() as u64);
    let older = cut(others.filter(|life| *life < own).count() as u64);
    let (each, rest) = (leases / count, leases % count);
    each + u32::from(each > 0 && older < rest)
}

fn cut(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The change that the engine with this wish makes to the row. `is_gone` names lives that the host knows to be dead.
pub(crate) fn settle(old: &PoolRow, bounds: Bounds, wish: Wish, is_gone: impl Fn(Incarnation) -> bool) -> Settled {
    let now = old.clock;
    if old.version == Version::new(0) {
        // A store tells its clock with a row. Nothing is taken before that is known.
        let row = PoolRow { limit: bounds.leases, ..old.clone() };
        return Settled { row: Some(row), keep: 0, gave_way: false, tokens: 0, ready_ms: None };
    }
    let mine = old.share(wish.life).copied().unwrap_or(PoolShare { life: wish.life, ..PoolShare::default() });
    let is_dead = |share: &PoolShare| share.has_lapsed(now, bounds.term_ms) || is_gone(share.life);
    let others = || old.shares.iter().filter(|share| share.life != wish.life);
    let lent: u64 = others().map(|share| u64::from(share.leases)).sum();
    let alive = || others().filter(|share| !is_dead(share));
    let contested: u64 = alive().map(|share| u64::from(share.wanted)).sum();
    let fair = fair_part(bounds.leases, alive().map(|share| share.life), wish.life);

    // What is beyond the limit, or beyond the fair part while others wait, goes as soon as it is not in use.
    let excess = cut((lent + u64::from(mine.leases)).saturating_sub(u64::from(bounds.leases)));
    let mut keep = mine.leases.saturating_sub(excess);
    if contested > 0 {
        keep = keep.min(fair.max(mine.leases.saturating_sub(cut(contested))));
    }
    let kept = mine.leases.min(wish.used.max(keep));

    let free = u64::from(bounds.leases).saturating_sub(lent + u64::from(kept));
    let missing = u64::from(wish.used) + u64::from(wish.need);
    let missing = missing.min(u64::from(bounds.leases)).saturating_sub(u64::from(kept));
    let mut take = missing.min(free);
    if contested == 0 && take > 0 {
        // Some more at once, so that not each job costs a write of the row; all of it while there is nobody else, unless it
        // is without end.
        let others = alive().count() as u64;
        let is_whole = others == 0 && bounds.leases < u32::MAX;
        take += if is_whole { free - take } else { (free - take) / (2 * (1 + others)) };
    } else if contested > 0 {
        // The first lease goes to whoever comes first; what nobody else waits for goes to anybody.
        let first = u64::from(kept == 0 && !wish.is_humble);
        let beyond = if wish.is_humble { 0 } else { free.saturating_sub(contested) };
        take = take.min(u64::from(fair.saturating_sub(kept)).max(first).max(beyond));
    }
    let leases = kept + cut(take);
    let wanted = cut(missing.saturating_sub(take));

    let mut row = old.clone();
    row.limit = bounds.leases;
    let (mut tokens, mut ready_ms) = (0, None);
    if let Some(rate) = bounds.rate {
        let mut bucket = Bucket::of(old.missing, old.filled);
        bucket.step_back(now);
        let could = wish.need.min(leases.saturating_sub(wish.used)).saturating_sub(wish.tokens);
        tokens = could.min(bucket.room(now, rate));
        if tokens > 0 {
            bucket.take_all(now, rate, tokens);
            (row.missing, row.filled) = bucket.parts();
        }
        ready_ms = (bucket.room(now, rate) == 0).then(|| bucket.ready_at(now, rate).millis_since(now));
    }
    // What is left of the dead is nothing but their leases.
    row.shares.retain(|share| share.life == wish.life || share.leases > 0 || !is_dead(share));
    let is_late = mine.has_lapsed(now, bounds.term_ms) || mine.until.millis_since(now) < bounds.term_ms / 2;
    let changes = leases != mine.leases || wanted != mine.wanted || tokens > 0 || wish.is_doubtful;
    if changes || (is_late && (leases > 0 || wanted > 0)) {
        row.set_share(PoolShare { life: wish.life, leases, wanted, until: now.after_millis(bounds.term_ms) });
    }
    let changes = changes || row.shares != old.shares;
    Settled {
        keep: keep.saturating_add(cut(take)),
        gave_way: kept < mine.leases && contested > 0,
        row: changes.then_some(row),
        tokens,
        ready_ms,
    }
}

/// The first life after `after` that seems to be dead and still has leases, other than `own`.
pub(crate) fn next_dead(
    row: &PoolRow,
    own: Incarnation,
    after: Incarnation,
    term_ms: u64,
    is_gone: impl Fn(Incarnation) -> bool,
) -> Option<Incarnation> {
    let is_dead = |share: &&PoolShare| share.has_lapsed(row.clock, term_ms) || is_gone(share.life);
    let others = row.shares.iter().filter(|share| share.life != own && share.life > after && share.leases > 0);
    others.filter(is_dead).map(|share| share.life).min()
}

/// The row after somebody has ended a life and counted the jobs that are charged to it; none if the count frees nothing.
pub(crate) fn reclaim(old: &PoolRow, life: Incarnation, charged: u32) -> Option<PoolRow> {
    let share = old.share(life).filter(|share| charged < share.leases)?;
    let mut row = old.clone();
    row.set_share(PoolShare { leases: charged, wanted: 0, until: Timestamp::ZERO, ..*share });
    Some(row)
}

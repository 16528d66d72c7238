//! Pools and their ledger: what is lent, what is free, and that the two always add up.

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::error::Refused;
use crate::id::{IdcId, PoolId, ShapeId, TenantId};

/// The kind of a pool, which decides when it is drawn on.
///
/// Dedicated first, then resident, then emergency; instances go back in the other order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PoolKind {
    /// Dedicated: a zone of one tenant's own.
    Dedicated(TenantId),
    /// Resident: machines that are always there, for all tenants.
    Resident,
    /// Emergency: leased machines, all of which go back at the end of the lease.
    Emergency {
        /// The first instant of the lease.
        from: Timestamp,
        /// The end of the lease; the instant itself is outside.
        until: Timestamp,
    },
}

/// The watermarks of a pool, in thousandths of its stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Watermark {
    /// The high mark. The pool lends nothing past it, and closes when it reaches it.
    pub high_permille: u16,
    /// The low mark, at or below which a closed pool opens again.
    pub low_permille: u16,
}

impl Default for Watermark {
    fn default() -> Self {
        Self { high_permille: 1000, low_permille: 1000 }
    }
}

/// A pool of machines, as the host declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pool {
    /// The id of the pool.
    pub id: PoolId,
    /// The kind of the pool.
    pub kind: PoolKind,
    /// The data centre of its machines.
    pub idc: IdcId,
    /// The price of an instance-hour, in thousandths of the host's currency.
    pub price: u64,
    /// The watermarks, which limit how full it may become.
    pub watermark: Watermark,
    /// The total number of instances of each shape.
    pub stock: Vec<(ShapeId, u32)>,
}

/// Why a pool lent fewer instances than were requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Cause {
    /// All of its stock is lent.
    Stock,
    /// The pool is at its watermark, or has not come down from it.
    Watermark,
    /// The pool's last launches failed; it is asked again later.
    BackOff,
    /// The pool's lease has not begun, or is over.
    Lease,
}

impl Cause {
    /// The stable number of the cause, the same in every version.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Stock => 200,
            Self::Watermark => 201,
            Self::BackOff => 202,
            Self::Lease => 203,
        }
    }
}

/// The stock of one shape in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stock {
    /// The shape.
    pub shape: ShapeId,
    /// The total number of instances, lent and free.
    pub total: u32,
    /// The number of instances that groups have: starting, serving and leaving.
    pub lent: u32,
    /// Whether the pool has reached the high mark and not yet come down to the low one.
    pub closed: bool,
    /// The number of launches that have failed since one succeeded.
    pub strikes: u8,
    /// The time before which nothing is requested of the pool.
    pub blocked_until: Timestamp,
    /// The time before which other pools of its tier are asked first, because its last launches failed.
    pub on_trial_until: Timestamp,
    /// The time at which the youngest launch was requested of which an instance came to serve.
    pub came_of: Timestamp,
    /// Whether the pool was over its mark when a tick last looked: see [`Crossing`].
    pub over: bool,
}

/// A crossing of a watermark by one shape of a pool: raise an alarm, or end one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Crossing {
    /// The id of the pool.
    pub pool: PoolId,
    /// The shape.
    pub shape: ShapeId,
    /// Whether the pool is over: as much is lent as the high mark allows.
    ///
    /// `false` once it has come down to the low mark, or below the high one if both are the same.
    pub over: bool,
    /// The number of instances lent.
    pub lent: u32,
    /// The maximum number of instances that may be lent: the stock up to its high mark.
    pub mark: u32,
}

impl Stock {
    /// The number of instances that are not lent.
    #[must_use]
    pub const fn free(&self) -> u32 {
        self.total - self.lent
    }

    fn mark(&self, permille: u16) -> u32 {
        u32::try_from(u64::from(self.total) * u64::from(permille) / 1000).unwrap_or(self.total)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Account {
    pub(crate) pool: Pool,
    pub(crate) stock: SmallVec<[Stock; 1]>,
}

/// Who has what: the sums of every pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Ledger {
    /// In the order of their ids.
    pub(crate) accounts: Vec<Account>,
}

/// How a pool that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackOff {
    pub(crate) first_ms: u64,
    pub(crate) longest_ms: u64,
}

impl Ledger {
    /// Adds a pool, or changes one.
    pub(crate) fn put(&mut self, pool: Pool, limit: usize) -> Result<(), Refused> {
        let Watermark { high_permille, low_permille } = pool.watermark;
        let twice =
            pool.stock.iter().enumerate().any(|(at, (shape, _))| pool.stock[..at].iter().any(|(s, _)| s == shape));
        if twice || high_permille > 1000 || low_permille > high_permille {
            return Err(Refused::PoolShape(pool.id));
        }
        let place = self.accounts.binary_search_by_key(&pool.id, |account| account.pool.id);
        if place.is_err() && self.accounts.len() >= limit {
            return Err(Refused::Full(limit));
        }
        let held = place.ok().map(|at| &self.accounts[at]);
        if let Some(held) = held {
            let lent: u32 = held.stock.iter().map(|stock| stock.lent).max().unwrap_or(0);
            let same_kind = match (held.pool.kind, pool.kind) {
                (PoolKind::Emergency { .. }, PoolKind::Emergency { .. }) => true,
                (before, after) => before == after,
            };
            if lent > 0 && (held.pool.idc != pool.idc || !same_kind) {
                return Err(Refused::PoolInUse(pool.id));
            }
            for stock in &held.stock {
                let total = pool.stock.iter().find(|(shape, _)| *shape == stock.shape).map_or(0, |(_, total)| *total);
                if total < stock.lent {
                    return Err(Refused::StockBelowLent { pool: pool.id, shape: stock.shape, lent: stock.lent, total });
                }
            }
        }
        let stock = pool.stock.iter().map(|(shape, total)| {
            let fresh = Stock {
                shape: *shape,
                total: *total,
                lent: 0,
                closed: false,
                strikes: 0,
                blocked_until: Timestamp::ZERO,
                on_trial_until: Timestamp::ZERO,
                came_of: Timestamp::ZERO,
                over: false,
            };
            let before = held.and_then(|held| held.stock.iter().find(|stock| stock.shape == *shape));
            let mut now = Stock { total: *total, ..before.copied().unwrap_or(fresh) };
            now.closed = reaches(&now, pool.watermark, now.closed);
            now
        });
        let account = Account { stock: stock.collect(), pool };
        match place {
            Ok(at) => self.accounts[at] = account,
            Err(at) => self.accounts.insert(at, account),
        }
        Ok(())
    }

    /// Forgets what is lent but for `held`; marks and back-offs stay as they are.
    pub(crate) fn keep_only(&mut self, held: impl Iterator<Item = (PoolId, ShapeId, u32)>) {
        for stock in self.accounts.iter_mut().flat_map(|account| &mut account.stock) {
            stock.lent = 0;
        }
        for (pool, shape, count) in held {
            if let Some((stock, _)) = self.stock_mut(pool, shape) {
                stock.lent += count;
            }
        }
    }

    pub(crate) fn account(&self, pool: PoolId) -> Option<&Account> {
        self.accounts.binary_search_by_key(&pool, |account| account.pool.id).ok().map(|at| &self.accounts[at])
    }

    fn stock_mut(&mut self, pool: PoolId, shape: ShapeId) -> Option<(&mut Stock, Watermark)> {
        let at = self.accounts.binary_search_by_key(&pool, |account| account.pool.id).ok()?;
        let account = &mut self.accounts[at];
        let marks = account.pool.watermark;
        account.stock.iter_mut().find(|stock| stock.shape == shape).map(|stock| (stock, marks))
    }

    /// Lends what [`Account::available`] has promised.
    pub(crate) fn lend(&mut self, pool: PoolId, shape: ShapeId, count: u32) {
        if let Some((stock, marks)) = self.stock_mut(pool, shape) {
            debug_assert!(count <= stock.free(), "only what is free is lent");
            stock.lent += count.min(stock.free());
            stock.closed = reaches(stock, marks, stock.closed);
        }
    }

    /// Takes back what was lent.
    ///
    /// # Errors
    /// [`Refused::NeverLent`]; nothing has changed.
    pub(crate) fn take_back(&mut self, pool: PoolId, shape: ShapeId, count: u32) -> Result<(), Refused> {
        let (stock, marks) = self.stock_mut(pool, shape).ok_or(Refused::NoPool(pool))?;
        if count > stock.lent {
            return Err(Refused::NeverLent { pool, shape, lent: stock.lent, asked: count });
        }
        stock.lent -= count;
        stock.closed = reaches(stock, marks, stock.closed);
        Ok(())
    }

    /// Leaves a shape of a pool alone for a while, longer with each failure in a row.
    pub(crate) fn strike(&mut self, pool: PoolId, shape: ShapeId, now: Timestamp, back_off: BackOff) {
        if let Some((stock, _)) = self.stock_mut(pool, shape) {
            let factor = 1_u64 << stock.strikes.min(32);
            stock.strikes = stock.strikes.saturating_add(1);
            let wait = back_off.first_ms.saturating_mul(factor).min(back_off.longest_ms);
            stock.blocked_until = stock.blocked_until.max(now.after_millis(wait));
            stock.on_trial_until = stock.blocked_until.after_millis(back_off.longest_ms);
        }
    }

    /// After the clock went back to `now`: no pool is left alone for longer than a back-off.
    pub(crate) fn rewind(&mut self, now: Timestamp, back_off: BackOff) {
        let blocked = now.after_millis(back_off.longest_ms);
        for stock in self.accounts.iter_mut().flat_map(|account| &mut account.stock) {
            stock.blocked_until = stock.blocked_until.min(blocked);
            stock.came_of = stock.came_of.min(now);
            stock.on_trial_until = stock.on_trial_until.min(blocked.after_millis(back_off.longest_ms));
        }
    }

    /// Whether nothing has come of what was asked of a pool at `since` or later.
    pub(crate) fn hangs(&self, pool: PoolId, shape: ShapeId, since: Timestamp) -> bool {
        let stock = self.account(pool).and_then(|account| account.stock.iter().find(|stock| stock.shape == shape));
        stock.is_some_and(|stock| stock.came_of < since)
    }

    /// An instance has come of a launch that was asked at `asked`.
    pub(crate) fn forgive(&mut self, pool: PoolId, shape: ShapeId, asked: Timestamp) {
        if let Some((stock, _)) = self.stock_mut(pool, shape) {
            stock.came_of = stock.came_of.max(asked);
            (stock.strikes, stock.blocked_until, stock.on_trial_until) = (0, Timestamp::ZERO, Timestamp::ZERO);
        }
    }

    /// The shapes that have crossed their watermark since this was last asked.
    pub(crate) fn crossings(&mut self, crossed: &mut Vec<Crossing>) {
        for Account { pool, stock } in &mut self.accounts {
            for stock in stock {
                let mark = stock.mark(pool.watermark.high_permille);
                let low = stock.mark(pool.watermark.low_permille);
                let stays = stock.over && low < mark && stock.lent > low;
                // What has no stock has no mark to cross.
                let over = stock.total > 0 && (stock.lent >= mark || stays);
                if over != stock.over {
                    stock.over = over;
                    crossed.push(Crossing { pool: pool.id, shape: stock.shape, over, lent: stock.lent, mark });
                }
            }
        }
    }

    /// Whether some emergency lease is over while instances of it are out.
    pub(crate) fn has_overdue(&self, now: Timestamp) -> bool {
        self.accounts.iter().any(|account| account.is_over(now) && account.stock.iter().any(|stock| stock.lent > 0))
    }
}

fn reaches(stock: &Stock, marks: Watermark, closed: bool) -> bool {
    if marks.low_permille >= marks.high_permille {
        return false;
    }
    if closed { stock.lent > stock.mark(marks.low_permille) } else { stock.lent >= stock.mark(marks.high_permille) }
}

impl Account {
    /// The number of instances of a shape that the account may lend: its stock up to the high mark.
    pub(crate) fn marked(&self, shape: ShapeId) -> u32 {
        let stock = self.stock.iter().find(|stock| stock.shape == shape);
        stock.map_or(0, |stock| stock.mark(self.pool.watermark.high_permille))
    }

    /// Whether the last launches of a shape failed, so that other pools of its tier come first.
    pub(crate) fn is_on_trial(&self, shape: ShapeId, now: Timestamp) -> bool {
        self.stock.iter().any(|stock| stock.shape == shape && now < stock.on_trial_until)
    }

    /// The number of instances lent, over all shapes.
    pub(crate) fn lent(&self) -> u64 {
        self.stock.iter().map(|stock| u64::from(stock.lent)).sum()
    }

    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        matches!(self.pool.kind, PoolKind::Emergency { until, .. } if until <= now)
    }

    /// The number of instances of a shape that can be lent now, and the cause that it is not more; `None` without such
    /// a shape.
    pub(crate) fn available(&self, shape: ShapeId, now: Timestamp) -> Option<(u32, Cause)> {
        let stock = self.stock.iter().find(|stock| stock.shape == shape)?;
        if matches!(self.pool.kind, PoolKind::Emergency { from, until } if now < from || until <= now) {
            return Some((0, Cause::Lease));
        }
        if now < stock.blocked_until {
            return Some((0, Cause::BackOff));
        }
        if stock.closed {
            return Some((0, Cause::Watermark));
        }
        let below_mark = stock.mark(self.pool.watermark.high_permille).saturating_sub(stock.lent);
        let cause = if below_mark < stock.free() { Cause::Watermark } else { Cause::Stock };
        Some((below_mark.min(stock.free()), cause))
    }
}

//! How much of every stock is lent after each tick.

use alloc::vec::Vec;

use super::PoolUse;
use crate::engine::Engine;
use crate::pool::Ledger;

/// The number of instances that every pool has lent of every shape after each tick, and the number of open requests
/// then.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// How many numbers a tick has: stock by stock in the order of the ledger, and the requests.
    width: usize,
    /// Tick by tick; the first row is the start.
    rows: Vec<u64>,
}

impl Levels {
    pub(super) fn new(ledger: &Ledger) -> Self {
        let stocks: usize = ledger.accounts.iter().map(|account| account.stock.len()).sum();
        Self { width: stocks + 1, rows: Vec::new() }
    }

    pub(super) fn note(&mut self, engine: &Engine, tick: usize) {
        let stocks = engine.ledger.accounts.iter().flat_map(|account| &account.stock);
        let row = stocks.map(|stock| u64::from(stock.lent)).chain([engine.requests.len() as u64]);
        let from = tick * self.width;
        if self.rows.len() < from + self.width {
            self.rows.resize(from + self.width, 0);
        }
        for (sum, part) in self.rows[from..].iter_mut().zip(row) {
            *sum += part;
        }
    }

    /// Whether there was always something left: of every stock below its mark, and of the requests that may be open.
    pub(super) fn never_short(&self, engine: &Engine) -> bool {
        let marks = engine
            .ledger
            .accounts
            .iter()
            .flat_map(|account| account.stock.iter().map(|stock| u64::from(account.marked(stock.shape))));
        let limits = marks.chain([engine.config.max_requests as u64]);
        limits.enumerate().all(|(at, limit)| self.rows.iter().skip(at).step_by(self.width).all(|level| *level < limit))
    }

    /// The most that each pool lent at one time.
    pub(super) fn peaks(&self, ledger: &Ledger, pools: &mut [PoolUse]) {
        for row in self.rows.chunks(self.width) {
            let mut row = row.iter();
            for (pool, account) in pools.iter_mut().zip(&ledger.accounts) {
                let lent = row.by_ref().take(account.stock.len()).sum();
                pool.peak = pool.peak.max(lent);
            }
        }
    }
}

//! How a write ends whose outcome is not known: the fence is raised, and then the row, the feed and the gates say it.

use crate::commit::{Flow, Phase, Write};
use crate::effect::Effect;
use crate::id::{Ask, Fence, WriteId};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{FeedEntry, Proof, Row, RowState};
use crate::work::Owner;
use crate::write::Outcome;

impl Router {
    /// Raises the fence of the row that granted the write, so that its commit cannot happen any more.
    pub(crate) fn close(&mut self, id: WriteId, write: &mut Write) -> Flow {
        let Some(cell) = self.state.cells.get(&write.repo) else {
            return Flow::Stay;
        };
        if !self.is_recovered(&cell.row) {
            return self.shelve(write);
        }
        let (row, next) = (cell.row.clone(), cell.row.raised());
        write.phase = Phase::Closing(self.state.swap(Owner::Write(id), Some(row), next, None));
        self.wait(write);
        Flow::Stay
    }

    /// A store that was restored from a backup says nothing of a write until the repository is recovered.
    pub(crate) fn shelve(&self, write: &mut Write) -> Flow {
        write.phase = Phase::Resolving(Ask(0));
        self.wait(write);
        Flow::Stay
    }

    /// Finds out, from a row that the store held after the write's last swap was sent, what became of the write.
    pub(crate) fn resolve(&mut self, id: WriteId, write: &mut Write) -> Flow {
        let (Some(cell), Some(base)) = (self.state.cells.get(&write.repo), write.grant) else {
            return Flow::Stay;
        };
        let row = &cell.row;
        if !self.is_recovered(row) {
            return self.shelve(write);
        }
        if row.fence == base.fence {
            if row.newest == base.newest {
                // The commit may still be on its way to the store.
                write.failing = write.failing.or(Some(Reason::FoundUncommitted { fence: base.fence }));
                return self.close(id, write);
            }
            let (newest, reason) = (row.newest, Reason::FoundCommitted { fence: base.fence });
            self.show_row(write.repo);
            return Flow::End(Outcome::Applied(newest), reason);
        }
        let fence = row.fence;
        write.failing = write.failing.or(Some(Reason::Overtaken { fence }));
        if row.newest.version == base.newest.version {
            return self.begin_fencing(write, fence);
        }
        let version = base.newest.version.next();
        let ask = self.state.draw();
        self.state.effects.push_back(Effect::FetchFeed { ask, repo: write.repo, version });
        write.phase = Phase::ReadingFeed(ask, version);
        self.wait(write);
        Flow::Stay
    }

    pub(crate) fn begin_fencing(&mut self, write: &mut Write, fence: Fence) -> Flow {
        write.phase = Phase::Fencing(fence);
        self.wait(write);
        self.show_row(write.repo);
        Flow::Again
    }

    /// The fence is above the write's, at the write's base: it is over once every quorum of votes meets a raised gate,
    /// or another write took its version.
    pub(crate) fn count_gates(&mut self, write: &Write, fence: Fence) -> Flow {
        let (Some(cell), Some(base)) = (self.state.cells.get(&write.repo), write.grant) else {
            return Flow::Stay;
        };
        // Gates of a configuration that is not settled do not hold: a store from a backup may know only the one before.
        if !self.is_settled(cell) && !other_write_took_it(&cell.row, &base) {
            self.probe(write.repo);
            return Flow::Stay;
        }
        let voters = cell.standings.iter().filter(|standing| standing.is_voter());
        let raised = voters.filter(|standing| standing.report().is_some_and(|report| report.fence >= fence)).count();
        let blocked = u32::try_from(raised).unwrap_or(u32::MAX) >= self.config.quorum.blocking();
        if blocked || other_write_took_it(&cell.row, &base) {
            return Flow::End(Outcome::NotApplied, write.failing.unwrap_or(Reason::Overtaken { fence }));
        }
        Flow::Stay
    }

    /// Takes in the feed's entry for the version after the write's base.
    pub(crate) fn feed_told(&mut self, id: WriteId, entry: Option<FeedEntry>) {
        self.with_write(id, |router, write| {
            let (Phase::ReadingFeed(_, version), Some(base)) = (write.phase, write.grant) else {
                return Flow::Stay;
            };
            match entry {
                Some(entry) if entry.fence == base.fence => {
                    Flow::End(Outcome::Applied(entry.stamp), Reason::FoundCommitted { fence: base.fence })
                }
                // A recovery found this version committed, and could not tell under which fence.
                Some(entry) if entry.fence.generation > base.fence.generation => {
                    Flow::End(Outcome::Unknown, Reason::FeedGap { version })
                }
                // Another fence has this version.
                Some(entry) => {
                    write.failing = write.failing.or(Some(Reason::Overtaken { fence: entry.fence }));
                    router.begin_fencing(write, entry.fence)
                }
                None => Flow::End(Outcome::Unknown, Reason::FeedGap { version }),
            }
        });
    }
}

/// Whether another *write* committed the version after `base`: W voters held it, so their gates stand above any older
/// fence. (A deletion or an accepted loss takes a version without votes.)
fn other_write_took_it(row: &Row, base: &Proof) -> bool {
    let by_vote = row.state != RowState::Deleted && row.newest.epoch == base.newest.epoch;
    by_vote && row.newest.version > base.newest.version
}

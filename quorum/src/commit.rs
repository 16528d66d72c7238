//! The course of one write, from its request to an answer that is known.
//!
//! Every fact about a repository makes its writes look again at what is known ([`Router::advance_write`]): what a
//! write does next depends on the state, never on the order in which facts came.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::effect::Effect;
use crate::id::{Ask, Fence, NodeId, RepoId, RequestId, Revision, Stamp, Ticket, Version, WriteId};
use crate::node::{Standing, Verdict};
use crate::read::Token;
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{FeedEntry, Proof, Row};
use crate::store::SwapResult;
use crate::time::Timestamp;
use crate::work::Owner;
use crate::write::{GiveUp, Grant, Outcome, WritePhase, WriteView};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Phase {
    Locating(Ask),
    Gathering,
    Raising(Ticket),
    Voting,
    Committing(Ticket, u32),
    Resolving(Ask),
    ReadingFeed(Ask, Version),
    Closing(Ticket),
    Fencing(Fence),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Write {
    pub(crate) repo: RepoId,
    pub(crate) request: RequestId,
    pub(crate) writer: Option<NodeId>,
    pub(crate) phase: Phase,
    /// The row that granted it.
    pub(crate) grant: Option<Proof>,
    /// The node that it was granted to.
    pub(crate) holder: Option<NodeId>,
    pub(crate) declined: Vec<NodeId>,
    pub(crate) failing: Option<Reason>,
    pub(crate) answered: bool,
    pub(crate) deadline: Timestamp,
    pub(crate) lease_end: Timestamp,
    /// When to ask again for what was asked for.
    pub(crate) retry: Timestamp,
    pub(crate) retries: u32,
    /// The row was shown to the gates since the last retry.
    pub(crate) shown: bool,
    /// How often a row was lost to others before the grant.
    pub(crate) attempts: u32,
    /// The fence of another router's grant beside which a note was left.
    pub(crate) noted: Option<Fence>,
    pub(crate) timer: Timestamp,
}

pub(crate) enum Flow {
    /// Look again.
    Again,
    /// Wait for a fact.
    Stay,
    /// The write is over.
    End(Outcome, Reason),
}

impl Write {
    pub(crate) fn view(&self, router: &Router) -> WriteView {
        let phase = match self.phase {
            Phase::Locating(_) => WritePhase::Locating,
            Phase::Gathering => WritePhase::Gathering,
            Phase::Raising(_) => WritePhase::Raising,
            Phase::Voting => WritePhase::Voting,
            Phase::Committing(..) => WritePhase::Committing,
            Phase::Resolving(_) => WritePhase::Resolving,
            Phase::ReadingFeed(..) => WritePhase::ReadingFeed,
            Phase::Closing(_) => WritePhase::Closing,
            Phase::Fencing(_) => WritePhase::Fencing,
        };
        let Self { repo, request, grant, answered, failing, .. } = *self;
        WriteView { repo, request, phase, waits_for: router.write_waits_for(self), grant, answered, failing }
    }
}

impl Router {
    /// Starts a write whose request was accepted.
    pub(crate) fn start_write(&mut self, write: Write) -> WriteId {
        let id = WriteId(self.state.next_id());
        self.state.work.begin(write.repo, Owner::Write(id));
        self.state.writes.put(id, Box::new(write));
        self.advance_write(id);
        id
    }

    /// The write of `repo` that was granted and is not answered, if there is one.
    pub(crate) fn granted_write(&self, repo: RepoId) -> Option<WriteId> {
        let granted = |id: &WriteId| self.state.writes.get(*id).is_some_and(|w| w.grant.is_some() && !w.answered);
        self.state.work.writes(repo).find(granted)
    }

    /// Takes the write as far as what is known lets it go.
    pub(crate) fn advance_write(&mut self, id: WriteId) {
        if self.state.writes.get(id).is_some_and(|write| self.may_step(write)) {
            self.with_write(id, |_, _| Flow::Again);
        }
    }

    /// Whether what was learned can matter to the write: most reports come while votes are still too few.
    fn may_step(&self, write: &Write) -> bool {
        match write.phase {
            Phase::Raising(_) | Phase::Committing(..) | Phase::Closing(_) | Phase::ReadingFeed(..) => false,
            Phase::Voting => match (self.state.cells.get(&write.repo), &write.grant) {
                (Some(cell), Some(base)) => {
                    cell.row.proof() != *base
                        || self.now >= write.lease_end
                        || self.is_decided(&self.ballot(cell, write, base))
                }
                _ => false,
            },
            Phase::Locating(_) | Phase::Gathering | Phase::Resolving(_) | Phase::Fencing(_) => true,
        }
    }

    /// Does `first` to the write, then takes it as far as it goes, and keeps its timer and its answer in step.
    pub(crate) fn with_write(&mut self, id: WriteId, first: impl FnOnce(&mut Self, &mut Write) -> Flow) {
        let Some(mut write) = self.state.writes.take(id) else {
            return;
        };
        let mut flow = first(self, &mut write);
        let (outcome, reason) = loop {
            match flow {
                Flow::Again => flow = self.step(id, &mut write),
                Flow::Stay => {
                    let wake = if write.answered { write.retry } else { write.retry.min(write.deadline) };
                    let wake = if matches!(write.phase, Phase::Voting) { wake.min(write.lease_end) } else { wake };
                    self.state.set_timer_before(Owner::Write(id), &mut write.timer, wake);
                    self.state.writes.put(id, write);
                    return;
                }
                Flow::End(outcome, reason) => break (outcome, reason),
            }
        };
        self.state.writes.remove(id);
        self.state.set_timer(Owner::Write(id), &mut write.timer, Timestamp::MAX);
        self.state.work.end(write.repo, Owner::Write(id));
        if !(write.answered && outcome == Outcome::Unknown) {
            self.answer(id, &write, outcome, reason);
        }
    }

    fn answer(&mut self, id: WriteId, write: &Write, outcome: Outcome, reason: Reason) {
        let (request, repo) = (write.request, write.repo);
        let base =
            write.grant.unwrap_or(Proof { repo, fence: Fence::default(), revision: Revision(0), newest: Stamp::BLANK });
        let token = match outcome {
            Outcome::Applied(newest) => Some(Token::of(&Proof { newest, ..base })),
            Outcome::NotApplied | Outcome::Unknown => None,
        };
        self.state.effects.push_back(Effect::Answer { write: id, request, repo, outcome, token, reason });
    }

    fn step(&mut self, id: WriteId, write: &mut Write) -> Flow {
        match write.phase {
            Phase::Locating(ask) => self.locate(write, ask),
            Phase::Gathering => self.gather(id, write),
            Phase::Voting => self.count_votes(id, write),
            Phase::Resolving(ask) => match self.state.cells.get(&write.repo) {
                Some(cell) if cell.fetched >= ask && self.is_recovered(&cell.row) => self.resolve(id, write),
                Some(_) | None => Flow::Stay,
            },
            Phase::Fencing(fence) => self.count_gates(write, fence),
            Phase::Raising(_) | Phase::Committing(..) | Phase::Closing(_) | Phase::ReadingFeed(..) => Flow::Stay,
        }
    }

    pub(crate) fn wait(&self, write: &mut Write) {
        write.retry = self.now.after_millis(self.config.retry_ms);
        write.retries = 0;
    }

    fn locate(&mut self, write: &mut Write, ask: Ask) -> Flow {
        if let Some(cell) = self.state.cells.get(&write.repo) {
            if cell.fetched < ask {
                return match self.answered_by_another(ask) {
                    Some(reason) => Flow::End(Outcome::NotApplied, reason),
                    None => Flow::Stay,
                };
            }
            write.phase = Phase::Gathering;
            self.wait(write);
            return Flow::Again;
        }
        match self.state.absent.get(&write.repo) {
            Some(&(as_of, reason)) if as_of >= ask => Flow::End(Outcome::NotApplied, reason),
            Some(_) | None => match self.answered_by_another(ask) {
                Some(reason) => Flow::End(Outcome::NotApplied, reason),
                None => Flow::Stay,
            },
        }
    }

    /// Waits until W voters are known to be able to vote; fails as soon as they cannot be.
    fn gather(&mut self, id: WriteId, write: &mut Write) -> Flow {
        let Some(cell) = self.state.cells.get(&write.repo) else {
            return self.refetch(write);
        };
        let tally = match self.writable(cell, write.writer) {
            Ok(tally) => tally,
            Err(reason) => return Flow::End(Outcome::NotApplied, reason),
        };
        // A learner's word casts the same doubt on the row as a voter's; to ask it again would get the same word.
        let doubted = |standing: &Standing| cell.verdict(standing) == Verdict::RowOld;
        if !tally.is_all_of(cell.standings.len()) && cell.standings.iter().any(doubted) {
            return self.refetch(write);
        }
        if self.is_barred(cell).is_some() {
            return self.wait_in_line(write);
        }
        // Until N - W + 1 gates of the configuration before know this one, that one could still commit.
        let settled = self.is_settled(cell);
        let writer_ready = write.writer.is_none_or(|node| self.is_able(cell, node));
        if tally.able() >= self.config.quorum.write() && writer_ready && settled {
            let (row, next) = (cell.row.clone(), cell.row.leased(self.write_lease()));
            write.phase = Phase::Raising(self.state.swap(Owner::Write(id), Some(row), next, None));
            self.wait(write);
            return Flow::Stay;
        }
        if !settled && !write.shown {
            write.shown = true;
            self.show_row(write.repo);
        }
        self.probe(write.repo);
        Flow::Stay
    }

    /// Fetches the row again, a bounded number of times, and decides on what comes.
    fn refetch(&mut self, write: &mut Write) -> Flow {
        write.attempts = write.attempts.saturating_add(1);
        if write.attempts > self.config.attempts {
            return Flow::End(Outcome::NotApplied, Reason::Contended { attempts: self.config.attempts });
        }
        write.phase = Phase::Locating(self.state.fetch(write.repo));
        self.wait(write);
        Flow::Stay
    }

    fn count_votes(&mut self, id: WriteId, write: &mut Write) -> Flow {
        let (Some(cell), Some(base)) = (self.state.cells.get(&write.repo), write.grant) else {
            return Flow::Stay;
        };
        if cell.row.proof() != base {
            return self.resolve(id, write);
        }
        if !self.is_recovered(&cell.row) {
            return self.shelve(write);
        }
        let needed = self.config.quorum.write();
        let ballot = self.ballot(cell, write, &base);
        let (votes, domains) = (ballot.votes, self.config.ack_domains.into());
        if let Some(stamp) = ballot.stamp.filter(|_| ballot.is_won(needed, domains)) {
            let next = cell.row.committed(stamp);
            let feed = FeedEntry { stamp, fence: base.fence };
            let expect = Some(cell.row.clone());
            let ticket = self.state.swap(Owner::Write(id), expect, next, Some(feed));
            write.phase = Phase::Committing(ticket, votes);
            self.wait(write);
            return Flow::Stay;
        }
        if let Some(reason) = ballot.is_lost(needed, domains) {
            write.failing = Some(reason);
        } else if self.now >= write.lease_end {
            write.failing = Some(Reason::LeaseEnded { votes, needed });
        } else {
            return Flow::Stay;
        }
        self.close(id, write)
    }

    /// The host gives the write up.
    pub(crate) fn give_up(&mut self, id: WriteId, claim: GiveUp) {
        self.with_write(id, |router, write| match write.phase {
            Phase::Locating(_) | Phase::Gathering | Phase::Raising(_) => {
                Flow::End(Outcome::NotApplied, Reason::Aborted)
            }
            Phase::Voting if claim == GiveUp::NothingStaged => Flow::End(Outcome::NotApplied, Reason::Aborted),
            Phase::Voting => {
                write.failing = Some(Reason::Aborted);
                router.close(id, write)
            }
            Phase::Committing(..)
            | Phase::Resolving(_)
            | Phase::ReadingFeed(..)
            | Phase::Closing(_)
            | Phase::Fencing(_) => Flow::Stay,
        });
    }

    /// Takes in the result of a swap that a write asked for. The row, if one was told, is taken in already.
    pub(crate) fn write_swapped(&mut self, id: WriteId, ticket: Ticket, next: &Row, result: &SwapResult) {
        self.with_write(id, |router, write| match (write.phase, result) {
            (Phase::Raising(out), SwapResult::Moved) if out == ticket => router.grant(id, write, next),
            // No grant went out, so nothing can be staged: the decision is simply made again.
            (Phase::Raising(out), SwapResult::Conflict(_) | SwapResult::OtherStore | SwapResult::Unknown)
                if out == ticket =>
            {
                router.refetch(write)
            }
            (Phase::Committing(out, votes), SwapResult::Moved) if out == ticket => {
                router.show_row(next.repo);
                let reason = Reason::Committed { votes, needed: router.config.quorum.write() };
                Flow::End(Outcome::Applied(next.newest), reason)
            }
            (Phase::Closing(out), SwapResult::Moved) if out == ticket => router.begin_fencing(write, next.fence),
            (Phase::Committing(out, _) | Phase::Closing(out), SwapResult::Conflict(Some(_))) if out == ticket => {
                router.resolve(id, write)
            }
            (
                Phase::Committing(out, _) | Phase::Closing(out),
                SwapResult::Conflict(None) | SwapResult::OtherStore | SwapResult::Unknown,
            ) if out == ticket => router.look_again(write),
            _ => Flow::Stay,
        });
    }

    /// After a swap without an answer the row must be fetched.
    fn look_again(&mut self, write: &mut Write) -> Flow {
        write.phase = Phase::Resolving(self.state.fetch(write.repo));
        self.wait(write);
        Flow::Stay
    }

    /// The fence is raised: the grant goes out, unless the row has moved on meanwhile.
    fn grant(&mut self, id: WriteId, write: &mut Write, raised: &Row) -> Flow {
        let base = raised.proof();
        let still = self.state.cells.get(&write.repo).is_some_and(|cell| cell.row.proof() == base);
        let writer = if still { self.choose_writer(write.repo, write.writer) } else { None };
        let Some(writer) = writer else {
            write.phase = Phase::Gathering;
            return Flow::Again;
        };
        write.grant = Some(base);
        write.holder = Some(writer.node);
        write.phase = Phase::Voting;
        write.lease_end = self.now.after_millis(self.config.lease_ms);
        write.retry = Timestamp::MAX;
        self.state.effects.push_back(Effect::Grant(Grant {
            write: id,
            request: write.request,
            writer: writer.node,
            incarnation: writer.incarnation,
            base: raised.clone(),
            lease_ms: self.config.lease_ms,
        }));
        Flow::Again
    }

    /// A time of the write has come: its deadline, the end of its lease, or the time to ask again.
    pub(crate) fn write_timer(&mut self, id: WriteId) {
        self.with_write(id, |router, write| {
            write.timer = Timestamp::MAX;
            if !write.answered && router.now >= write.deadline {
                let reason = Reason::Deadline { waits_for: router.write_waits_for(write) };
                if write.grant.is_none() {
                    return Flow::End(Outcome::NotApplied, router.why_not_granted(write).unwrap_or(reason));
                }
                write.answered = true;
                router.answer(id, write, Outcome::Unknown, reason);
            }
            if router.now < write.retry {
                return Flow::Again;
            }
            write.retries = write.retries.saturating_add(1);
            write.shown = false;
            // Who waits in line polls: the other's turn may end at any time.
            let waits = matches!(write.phase, Phase::Gathering);
            let pause = router.config.retry_ms.saturating_mul(if waits { 1 } else { 1 << write.retries.min(6) });
            let flow = router.ask_again(write);
            write.retry = router.now.after_millis(pause);
            flow
        });
    }

    fn ask_again(&mut self, write: &mut Write) -> Flow {
        let repo = write.repo;
        match write.phase {
            Phase::Locating(_) => write.phase = Phase::Locating(self.state.fetch(repo)),
            Phase::Resolving(_) => write.phase = Phase::Resolving(self.state.fetch(repo)),
            Phase::ReadingFeed(_, version) => {
                let ask = self.state.draw();
                self.state.effects.push_back(Effect::FetchFeed { ask, repo, version });
                write.phase = Phase::ReadingFeed(ask, version);
            }
            Phase::Raising(ticket) => {
                self.state.swaps.remove(&ticket);
                return self.refetch(write);
            }
            Phase::Committing(ticket, _) | Phase::Closing(ticket) => {
                self.state.swaps.remove(&ticket);
                return self.look_again(write);
            }
            // Gates may stand higher than the row that is known here: another router moved it.
            Phase::Fencing(_) => {
                self.state.fetch(repo);
                self.show_row(repo);
            }
            // What keeps a write from its grant may have ended at another router.
            Phase::Gathering => drop(self.state.fetch(repo)),
            Phase::Voting => {}
        }
        Flow::Again
    }
}

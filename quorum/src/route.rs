//! Routing of one read: to a node, or to what must happen first.

use crate::balance::{Balance, Chooser, Wish};
use crate::config::Config;
use crate::error::Refusal;
use crate::id::{Ask, Fence, Generation, NodeId, RepoId, RequestId, Stamp, WriteId};
use crate::node::Health;
use crate::read::{DuringWrite, First, Freshness, ReadRequest, ReadStep, Route, Token};
use crate::reason::Reason;
use crate::rest::Resting;
use crate::rng::{Rng, mix};
use crate::router::Router;
use crate::row::{Member, Proof, RowState};
use crate::state::{Cell, State};
use crate::time::Timestamp;

impl Router {
    /// Routes a read: to a node, or to what must happen first.
    ///
    /// ```
    /// use tenon_quorum::{Config, First, ReadRequest, ReadStep, RepoId, Router, Timestamp};
    ///
    /// let mut router = Router::new(Config::builder().build()?);
    /// let read = ReadRequest::linearizable(RepoId(7), router.begin_read());
    /// let step = router.route_read(Timestamp::from_millis(1), &read)?;
    /// assert!(matches!(step, ReadStep::First(First::FetchRow(_)))); // fetch the row, tell it, ask again
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: the repository does not exist, is deleted, is of an older generation of the
    /// store, its lineage is not the token's, or no node that can be reached holds what must be seen.
    #[inline]
    pub fn route_read(&mut self, now: Timestamp, request: &ReadRequest) -> Result<ReadStep, Refusal> {
        match self.route_at_once(now, request) {
            Some(route) => Ok(ReadStep::Serve(route)),
            None => self.route_with_care(now, *request),
        }
    }

    /// Routes the common case at once: the repository is at rest, its row is fresh enough, and any healthy voter
    /// serves.
    ///
    /// It waits for memory once, for the row. Whatever else it does delays only the next read, whose row could be on
    /// its way already: so this is little, calls nothing, and branches on nothing that differs from row to row.
    #[expect(clippy::inline_always, reason = "a call in between would copy the route")]
    #[inline(always)]
    fn route_at_once(&mut self, now: Timestamp, request: &ReadRequest) -> Option<Route> {
        let (config, state) = (&self.config, &mut self.state);
        let now = self.now.max(now);
        let by_chance = config.balance == Balance::Random && config.slow_start_ms == 0;
        if now >= state.nodes.steady_until() || !by_chance || request.near.is_some() || request.via.is_some() {
            return None;
        }
        let resting = state.rest.get(request.repo, state.nodes.news())?;
        if !resting.will_do(request.freshness, now, state.store) {
            return None;
        }
        let mut rng = request.request.map_or_else(|| state.rng.clone(), |name| own_chance(config, name));
        let usable = &resting.outlook.usable;
        let nth = rng.below(u64::try_from(usable.len()).unwrap_or(u64::MAX));
        let route = resting.route_to(usable.get(usize::try_from(nth).ok()?)?);
        if request.request.is_none() {
            state.rng = rng;
        }
        (self.now, self.state.clock.0) = (now, now);
        Some(route)
    }

    #[inline(never)]
    fn route_with_care(&mut self, now: Timestamp, request: ReadRequest) -> Result<ReadStep, Refusal> {
        self.lift(now);
        self.outlived()?;
        let Some(name) = request.request else {
            return self.route(&request);
        };
        let own = own_chance(&self.config, name);
        let shared = core::mem::replace(&mut self.state.rng, own);
        let step = self.route(&request);
        self.state.rng = shared;
        step
    }

    fn route(&mut self, request: &ReadRequest) -> Result<ReadStep, Refusal> {
        if self.state.cells.contains_key(&request.repo) {
            return self.route_awake(request);
        }
        match self.route_resting(request) {
            Some(route) => Ok(ReadStep::Serve(route)),
            None => self.route_waking(request),
        }
    }

    /// Routes a read of a repository at rest, if its row will do and one of its voters is healthy.
    fn route_resting(&mut self, request: &ReadRequest) -> Option<Route> {
        let State { rest, nodes, rng, turn, store, .. } = &mut self.state;
        rest.look(request.repo, nodes, self.now);
        let resting = rest.get(request.repo, nodes.news())?;
        if !resting.will_do(request.freshness, self.now, *store) {
            return None;
        }
        let chooser = Chooser { config: &self.config, nodes, now: self.now, rng, turn };
        let chosen = chooser.choose(&resting.outlook.usable, wish(request))?;
        Some(resting.route_to(resting.outlook.usable.get(chosen)?))
    }

    fn route_waking(&mut self, request: &ReadRequest) -> Result<ReadStep, Refusal> {
        let repo = request.repo;
        let Some((row, told)) = self.state.rest.row(repo) else { return self.route_awake(request) };
        // It leaves its rest once there is something to do, not for a refusal.
        let (point, now) = (Ask(self.state.point), self.now);
        self.state.admit(Cell::woken(row, told, point, now));
        let step = self.route_awake(request);
        if step.is_ok() {
            self.state.rest.take(repo);
        } else {
            self.state.lay_down(repo);
        }
        step
    }

    fn route_awake(&mut self, request: &ReadRequest) -> Result<ReadStep, Refusal> {
        let ReadRequest { repo, began, .. } = *request;
        let Some(cell) = self.state.cells.get(&repo) else {
            let known = self.state.absent.get(&repo).filter(|(as_of, _)| *as_of >= began);
            let refused = known.map(|(_, reason)| *reason).or_else(|| self.answered_by_another(began));
            return match refused {
                Some(reason) => Err(reason.into()),
                None => Ok(ReadStep::First(First::FetchRow(self.state.draw()))),
            };
        };
        let wanted = match request.freshness {
            Freshness::AtLeast(token) => at_least(cell, token, began)?,
            Freshness::BoundedStale { age_ms } if self.now.millis_since(cell.told) <= age_ms => Ask(0),
            Freshness::Linearizable | Freshness::BoundedStale { .. } => began,
            Freshness::Degraded => return self.route_degraded(request),
        };
        let needed = cell.doubted_since().map_or(wanted, |seen| seen.max(wanted));
        if cell.fetched < needed {
            if let Some(reason) = self.answered_by_another(needed) {
                return Err(reason.into());
            }
            return Ok(ReadStep::First(self.join_fetch(repo, needed)));
        }
        if let Some(reason) = self.unreadable(&cell.row) {
            return Err(reason.into());
        }
        self.route_by_row(request)
    }

    /// Routes by the row that is held: to one voter at exactly its newest state.
    fn route_by_row(&mut self, request: &ReadRequest) -> Result<ReadStep, Refusal> {
        let repo = request.repo;
        let Some(cell) = self.state.cells.get(&repo) else { return Err(Reason::NoSuchRepository { repo }.into()) };
        let tally = self.tally_of(cell);
        let (proof, pending) = (cell.row.proof(), self.answers_pending(cell));
        if let Some((write, holder)) = self.holder(repo) {
            let able = cell.row.member(holder).filter(|_| self.is_able(cell, holder));
            let Some(&Member { node, incarnation, .. }) = able else {
                return Ok(ReadStep::First(self.wait_for_facts()));
            };
            let reason = Reason::MayObserveUncommitted { node, write };
            return Ok(ReadStep::Serve(Route { node, incarnation, proof, reason }));
        }
        let pinned = Self::pinned_to(cell);
        let member = match pinned {
            Some(node) => cell.row.member(node).copied().filter(|member| self.is_able(cell, member.node)),
            None => self.choose(repo, &tally, wish(request)),
        };
        if let Some(Member { node, incarnation, .. }) = member {
            let reason = match pinned {
                Some(node) => Reason::Pinned { node },
                None if tally.usable > 0 => Reason::AtNewest(tally),
                None => Reason::HealthWidened(tally),
            };
            if tally.usable < tally.voters {
                self.probe(repo);
                self.schedule_repairs(repo);
                self.watch_lock(repo);
            }
            return Ok(ReadStep::Serve(Route { node, incarnation, proof, reason }));
        }
        if pending == 0 {
            return Err(pinned.map_or(Reason::NobodyCurrent(tally), |node| Reason::Pinned { node }).into());
        }
        self.probe(repo);
        self.schedule_repairs(repo);
        Ok(ReadStep::First(self.wait_for_facts()))
    }

    /// The granted write whose node reads must go to, if they must.
    fn holder(&self, repo: RepoId) -> Option<(WriteId, NodeId)> {
        if self.config.during_write == DuringWrite::AnyCurrent {
            return None;
        }
        let id = self.granted_write(repo)?;
        Some((id, self.state.writes.get(id)?.holder?))
    }

    fn wait_for_facts(&self) -> First {
        First::Wait { until: self.now.after_millis(self.config.retry_ms) }
    }

    /// Routes by what voters say, without the store.
    fn route_degraded(&mut self, request: &ReadRequest) -> Result<ReadStep, Refusal> {
        let ReadRequest { repo, began, .. } = *request;
        let Some(cell) = self.state.cells.get(&repo) else { return Err(Reason::NoSuchRepository { repo }.into()) };
        if cell.row.state == RowState::Deleted {
            return Err(Reason::Deleted { at: cell.row.newest.version }.into());
        }
        let reachable = |member: &Member| self.state.nodes.alive(member.node, member.incarnation);
        let up = |member: &Member| reachable(member).is_some_and(|state| state.health != Health::Down);
        let voters = || cell.standings.iter().filter(|s| s.is_voter() && up(&s.member));
        let said = || voters().filter_map(|s| s.known.filter(|known| known.seen > began).map(|known| known.report));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let heard = count(said().count());
        let silent = count(voters().count()).saturating_sub(heard);
        let top = said()
            .map(|report| (report.revision, report.applied))
            .max_by_key(|(revision, applied)| (*revision, applied.epoch, applied.version, applied.digest));
        let (newest, revision, agree) = top.map_or((Stamp::BLANK, cell.row.revision, 0), |(revision, applied)| {
            let alike = said().filter(|report| report.revision == revision && report.applied == applied);
            (applied, revision, count(alike.count()))
        });
        let none_beyond = !said().any(|report| report.applied.is_beyond(newest));
        // A gate that has promised itself to another life of the store refuses what is of an earlier one.
        let fence = said().map(|report| report.fence.max(Fence { generation: report.generation, counter: 0 })).max();
        let fence = fence.unwrap_or_default();
        let quorum = self.config.quorum;
        let (needed, asked) = (quorum.write(), quorum.read());
        let agreed = agree >= needed && heard >= asked && none_beyond && newest != Stamp::BLANK;
        if agreed {
            let alike = voters().find(|s| s.report().is_some_and(|r| r.applied == newest && r.revision == revision));
            if let Some(&Member { node, incarnation, .. }) = alike.map(|standing| &standing.member) {
                let proof = Proof { repo, fence, revision, newest };
                let reason = Reason::Degraded { heard, agree, needed };
                return Ok(ReadStep::Serve(Route { node, incarnation, proof, reason }));
            }
        }
        if silent == 0 {
            return Err(Reason::NoAgreement { heard, agree, needed }.into());
        }
        self.probe_all(repo, began);
        Ok(ReadStep::First(self.wait_for_facts()))
    }

    /// A fetch that begins at or after `needed`: one that is out, or a new one.
    fn join_fetch(&mut self, repo: RepoId, needed: Ask) -> First {
        let now = self.now;
        let until = now.after_millis(self.config.retry_ms);
        // A read that only waits draws nothing: asking again and again changes nothing.
        if let Some(cell) = self.state.cells.get(&repo) {
            let (out, expires) = cell.fetching;
            if out >= needed && out > cell.fetched && expires > now {
                return First::Wait { until: expires };
            }
        }
        let ask = self.state.draw();
        if let Some(cell) = self.state.cells.get_mut(&repo) {
            cell.fetching = (ask, until);
        }
        First::FetchRow(ask)
    }
}

impl Resting<'_> {
    /// Whether the row is fresh enough, and of the store's present life.
    #[inline]
    fn will_do(&self, freshness: Freshness, now: Timestamp, store: Generation) -> bool {
        let fresh = match freshness {
            Freshness::Linearizable | Freshness::Degraded => false,
            Freshness::AtLeast(token) => {
                let row = Token::of(&self.proof);
                (row.generation, row.epoch) == (token.generation, token.epoch) && row >= token
            }
            Freshness::BoundedStale { age_ms } => self.told.as_millis() >= now.as_millis().saturating_sub(age_ms),
        };
        fresh && self.proof.fence.generation >= store
    }

    #[inline]
    const fn route_to(&self, member: &Member) -> Route {
        let (node, incarnation) = (member.node, member.incarnation);
        Route { node, incarnation, proof: self.proof, reason: Reason::AtNewest(self.outlook.tally) }
    }
}

/// Where chance comes from for a read that names its caller's request.
const fn own_chance(config: &Config, RequestId(name): RequestId) -> Rng {
    Rng::new(mix(config.seed) ^ mix(name))
}

const fn wish(request: &ReadRequest) -> Wish {
    Wish { near: request.near, via: request.via }
}

/// From which point on the row must be fetched for a caller that has seen `token`.
fn at_least(cell: &Cell, token: Token, began: Ask) -> Result<Ask, Reason> {
    let row = Token::of(&cell.row.proof());
    let lineage = |token: Token| (token.generation, token.epoch);
    if lineage(row) > lineage(token) {
        return Err(Reason::OtherLineage { token, row });
    }
    if row >= token {
        return Ok(Ask(0));
    }
    if cell.fetched < began {
        return Ok(began);
    }
    Err(Reason::OtherLineage { token, row })
}

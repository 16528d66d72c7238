//! Assessment: what is known of a repository, and what that allows. Commands and facts share it.

use smallvec::SmallVec;

use crate::balance::Wish;
use crate::effect::Effect;
use crate::id::{Ask, NodeId, RepoId};
use crate::node::{Health, Standing, Tally, Verdict};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Member, Row, RowState};
use crate::state::{Cell, State};
use crate::time::Timestamp;
use crate::work::Owner;

/// Assessments that commands and facts share.
impl Router {
    pub(crate) fn lift(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.state.clock.0 = self.now;
        self.state.nodes.lift(self.now);
        self.state.calm(self.config.most_awake);
    }

    /// Something was learned about `repo`: its writes and changes look again.
    pub(crate) fn advance_repo(&mut self, repo: RepoId) {
        for owner in self.state.work.of(repo) {
            match owner {
                Owner::Write(id) => self.advance_write(id),
                Owner::Change(id) => self.advance_change(id),
                Owner::Task(_) => {}
            }
        }
    }

    /// Takes in what the store held after `ask`; `false` if that says nothing new.
    pub(crate) fn learn_row(&mut self, repo: RepoId, ask: Ask, row: Option<&Row>) -> bool {
        let most = usize::from(self.config.most_members);
        let checked = row
            .ok_or(Reason::NoSuchRepository { repo })
            .and_then(|row| row.check(self.config.quorum, most).map(|()| row));
        let room = self.state.known() < self.config.most_repositories as usize;
        let known = self.state.cells.get(&repo);
        match checked {
            Ok(row) if known.is_some_and(|cell| !cell.is_news(row, ask)) => false,
            Ok(row) if known.is_some() || room => {
                let now = self.state.history.time_of(ask);
                let point = self.state.draw();
                self.state.absent.remove(&repo);
                match self.state.cells.get_mut(&repo) {
                    Some(cell) => cell.learn(row, ask, (now, self.now), point),
                    None => self.state.admit(Cell::new(row.clone(), ask, now, point, self.now)),
                }
                true
            }
            Ok(_) => self.note_absent(repo, ask, Reason::Full { limit: self.config.most_repositories }),
            Err(_) if known.is_some() => {
                self.counters.bad_rows += 1;
                false
            }
            Err(reason) => self.note_absent(repo, ask, reason),
        }
    }

    fn note_absent(&mut self, repo: RepoId, ask: Ask, reason: Reason) -> bool {
        const MOST: usize = 1024;
        if self.state.absent.get(&repo).is_some_and(|(as_of, _)| *as_of >= ask) {
            return false;
        }
        if self.state.absent.len() >= MOST && !self.state.absent.contains_key(&repo) {
            self.state.absent.pop_first();
        }
        self.state.absent.insert(repo, (ask, reason));
        true
    }

    /// Why nothing is decided any more, if the store is in a later life than this router was configured for.
    pub(crate) fn outlived(&self) -> Result<(), Reason> {
        let (router, store) = (self.state.life, self.state.store);
        if store > router { Err(Reason::OtherStore { router, store }) } else { Ok(()) }
    }

    /// Why what was asked for at `ask` is not known: the store that answered is in another life.
    pub(crate) fn answered_by_another(&self, ask: Ask) -> Option<Reason> {
        let (last, store) = self.state.foreign;
        (last >= ask && ask > Ask(0)).then_some(Reason::OtherStore { router: self.state.life, store })
    }

    pub(crate) fn unreadable(&self, row: &Row) -> Option<Reason> {
        if row.state == RowState::Deleted {
            return Some(Reason::Deleted { at: row.newest.version });
        }
        if !self.is_recovered(row) {
            let (row, store) = (row.fence.generation, self.config.generation);
            return Some(Reason::NotRecovered { row, store });
        }
        matches!(row.state, RowState::Decided | RowState::Recovering).then_some(Reason::Recovering)
    }

    /// Whether the row is of the store's present life.
    pub(crate) fn is_recovered(&self, row: &Row) -> bool {
        row.fence.generation >= self.config.generation
    }

    /// Whether a write can be granted, or could be once answers that may come have come.
    pub(crate) fn writable(&self, cell: &Cell, writer: Option<NodeId>) -> Result<Tally, Reason> {
        if let Some(reason) = self.unreadable(&cell.row) {
            return Err(reason);
        }
        match cell.row.state {
            RowState::Moving { .. } => return Err(Reason::Moving),
            RowState::Pinned { node } if writer.is_some_and(|writer| writer != node) => {
                return Err(Reason::Pinned { node });
            }
            RowState::Live | RowState::Deleted | RowState::Decided | RowState::Recovering | RowState::Pinned { .. } => {
            }
        }
        let (tally, needed) = (self.tally_of(cell), self.config.quorum.write());
        if tally.able() < needed && tally.able() + self.answers_pending(cell) < needed {
            return Err(Reason::TooFewVoters { tally, needed });
        }
        let domains = u32::from(self.config.ack_domains);
        if domains > 1 {
            let able = |standing: &Standing| {
                let (verdict, health) = self.verdict(cell, standing);
                (verdict == Verdict::Current && health != Health::Down) || self.may_join(cell, standing)
            };
            let reach = self.domains(cell, able);
            if reach < domains {
                return Err(Reason::TooFewDomains { domains: reach, needed: domains });
            }
        }
        if let Some(node) = writer.filter(|node| !self.is_able(cell, *node) && !self.may_answer(cell, *node)) {
            return Err(Reason::WriterUnusable { node, tally });
        }
        Ok(tally)
    }

    /// Whether the voter `node` is at the newest state and not down.
    pub(crate) fn is_able(&self, cell: &Cell, node: NodeId) -> bool {
        cell.standings.iter().any(|standing| {
            let (verdict, health) = self.verdict(cell, standing);
            let able = verdict == Verdict::Current && health != Health::Down;
            able && standing.is_voter() && standing.member.node == node
        })
    }

    fn may_answer(&self, cell: &Cell, node: NodeId) -> bool {
        cell.standings
            .iter()
            .any(|standing| standing.is_voter() && standing.member.node == node && self.may_join(cell, standing))
    }

    /// Whether the member may be fit for use soon: an answer of its may change how it counts, or a copy is on its way.
    fn may_join(&self, cell: &Cell, standing: &Standing) -> bool {
        let Member { node, incarnation, .. } = standing.member;
        let alive = self.state.nodes.alive(node, incarnation).is_some_and(|state| state.health != Health::Down);
        let copied = || alive && self.state.is_target(cell.row.repo, node) && self.has_source(cell);
        self.could_change(cell, standing) || copied()
    }

    /// Whether the newest state can be had: from nothing, or from a member that can be reached.
    fn has_source(&self, cell: &Cell) -> bool {
        let holds = |standing: &Standing| {
            let (verdict, health) = self.verdict(cell, standing);
            verdict == Verdict::Current && health != Health::Down
        };
        cell.row.newest.version == cell.row.born || cell.standings.iter().any(holds)
    }

    /// Whether hearing from the member could change how it counts: it was never heard, or not since the row moved.
    fn could_change(&self, cell: &Cell, standing: &Standing) -> bool {
        let alive = self.state.nodes.alive(standing.member.node, standing.member.incarnation);
        if alive.is_none_or(|state| state.health == Health::Down) {
            return false;
        }
        match cell.verdict(standing) {
            Verdict::Unknown | Verdict::RowOld => true,
            Verdict::Lagging { .. } => standing.known.is_none_or(|known| known.seen <= cell.since),
            Verdict::Current | Verdict::Divergent { .. } | Verdict::Ahead { .. } | Verdict::Rewound { .. } => false,
        }
    }

    pub(crate) fn answers_pending(&self, cell: &Cell) -> u32 {
        let pending = cell.standings.iter().filter(|s| s.is_voter() && self.may_join(cell, s));
        u32::try_from(pending.count()).unwrap_or(u32::MAX)
    }

    /// Asks every member whose answer could matter for its report, each once at a time, and those that leave.
    pub(crate) fn probe(&mut self, repo: RepoId) {
        let Some(cell) = self.state.cells.get(&repo) else {
            return;
        };
        let ripe = |standing: &&Standing| standing.probing <= self.now && self.could_change(cell, standing);
        let asked: SmallVec<[Member; 8]> = cell.heard().filter(ripe).map(|standing| standing.member).collect();
        self.ask_reports(repo, &asked);
    }

    /// Asks every member that was not heard after `since` for its report, each once at a time.
    pub(crate) fn probe_all(&mut self, repo: RepoId, since: Ask) {
        let Some(cell) = self.state.cells.get(&repo) else { return };
        let silent = |standing: &&Standing| {
            standing.probing <= self.now && standing.known.is_none_or(|known| known.seen <= since)
        };
        let asked: SmallVec<[Member; 8]> = cell.standings.iter().filter(silent).map(|s| s.member).collect();
        self.ask_reports(repo, &asked);
    }

    fn ask_reports(&mut self, repo: RepoId, members: &[Member]) {
        if members.is_empty() {
            return;
        }
        let (ask, until) = (self.state.draw(), self.now.after_millis(self.config.retry_ms));
        for member in members {
            self.state.effects.push_back(Effect::Probe { ask, node: member.node, repo });
            let cell = self.state.cells.get_mut(&repo);
            if let Some(standing) = cell.and_then(|cell| cell.heard_mut().find(|s| s.member.is_same(member))) {
                standing.probing = until;
            }
        }
    }

    /// How a member counts, health as it is now.
    pub(crate) fn verdict(&self, cell: &Cell, standing: &Standing) -> (Verdict, Health) {
        self.state.nodes.verdict(cell, standing, self.now)
    }

    pub(crate) fn tally_of(&self, cell: &Cell) -> Tally {
        let mut tally = Tally::default();
        for standing in cell.standings.iter().filter(|standing| standing.is_voter()) {
            let (verdict, health) = self.verdict(cell, standing);
            tally.count(verdict, health);
        }
        tally
    }

    /// Shows the row to the gates of all members that can be reached, and of those that leave.
    pub(crate) fn show_row(&mut self, repo: RepoId) {
        // The next point: whatever was heard so far was heard before it.
        let ask = Ask(self.state.point.saturating_add(1));
        let State { cells, effects, nodes, .. } = &mut self.state;
        let Some(cell) = cells.get(&repo) else {
            return;
        };
        let before = effects.len();
        for &Member { node, incarnation, .. } in cell.row.members.iter().chain(cell.row.leavers()) {
            let alive = nodes.alive(node, incarnation);
            if alive.is_some_and(|state| state.health != Health::Down) {
                effects.push_back(Effect::RaiseGate { ask, node, incarnation, row: cell.row.clone() });
            }
        }
        if effects.len() > before {
            let _drawn = self.state.draw();
        }
    }

    /// The node that gets a grant: the one asked for, or any that is best.
    pub(crate) fn choose_writer(&mut self, repo: RepoId, wanted: Option<NodeId>) -> Option<Member> {
        let cell = self.state.cells.get(&repo)?;
        let pinned = if let RowState::Pinned { node } = cell.row.state { Some(node) } else { None };
        if let Some(node) = wanted.or(pinned) {
            return cell.row.voters().copied().find(|member| member.node == node && self.is_able(cell, node));
        }
        let tally = self.tally_of(cell);
        self.choose(repo, &tally, Wish::default())
    }
}

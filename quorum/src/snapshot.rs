//! Snapshots: all state that decides, as versioned plain data.

use crate::config::Config;
use crate::error::RestoreError;
use crate::state::State;
use crate::work::Owner;

/// The format of [`Snapshot`].
const FORMAT: u16 = 4;

/// A snapshot of a router, without counters and clock.
///
/// Opaque; with the feature `serde` it can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct Snapshot {
    format: u16,
    state: State,
}

impl Snapshot {
    pub(crate) fn of(state: &State) -> Self {
        let clock = crate::state::Aside::default();
        Self { format: FORMAT, state: State { clock, ..state.clone() } }
    }

    /// The state, once everything that the router relies on was checked.
    pub(crate) fn checked(self, config: &Config) -> Result<State, RestoreError> {
        if self.format != FORMAT {
            return Err(RestoreError::Format { found: self.format, known: FORMAT });
        }
        let mut state = self.state;
        state.nodes.unsettle();
        let broken = |what| Err(RestoreError::Broken(what));
        for (len, limit) in [
            (state.known(), config.most_repositories),
            (state.nodes.len(), config.most_nodes),
            (state.writes.len(), config.most_writes),
            (state.changes.len(), config.most_changes),
            (state.tasks.len(), config.most_tasks),
        ] {
            if len > limit as usize {
                return Err(RestoreError::Limit { limit });
            }
        }
        let mut awake: alloc::vec::Vec<_> = state.awake.iter().copied().collect();
        awake.sort_unstable();
        if !state.rest.is_sound() || !awake.iter().eq(state.cells.keys()) {
            return broken("what is awake or at rest");
        }
        if state.cells.keys().any(|repo| state.rest.contains(*repo)) {
            return broken("what is awake and at rest");
        }
        for (repo, cell) in &state.cells {
            let sound = cell.row.repo == *repo && cell.row.check(config.quorum, config.most_members.into()).is_ok();
            let members = cell.row.members.iter().eq(cell.standings.iter().map(|standing| &standing.member))
                && cell.row.leavers().eq(cell.leavers.iter().map(|standing| &standing.member));
            if !sound || !members || cell.fetched.0 > state.point || cell.since.0 > state.point {
                return broken("a row");
            }
            let own = |standing: &crate::node::Standing| {
                standing.known.is_none_or(|known| {
                    let (report, member) = (known.report, standing.member);
                    report.repo == *repo
                        && report.node == member.node
                        && report.incarnation == member.incarnation
                        && known.seen.0 <= state.point.saturating_add(1)
                })
            };
            if !cell.heard().all(own) {
                return broken("a report");
            }
        }
        state.check_links().map_or_else(broken, |()| Ok(state.clone()))
    }
}

impl State {
    /// Whether everything that points to something else points to something that points back.
    fn check_links(&self) -> Result<(), &'static str> {
        let timer = |due, owner| due == crate::time::Timestamp::MAX || self.timers.contains(&(due, owner));
        for (id, write) in self.writes.iter() {
            let Some(write) = write else { return Err("a write") };
            let owner = Owner::Write(id);
            if id.0 > self.last_id || !self.work.contains(write.repo, owner) || !timer(write.timer, owner) {
                return Err("a write");
            }
        }
        for (id, change) in &self.changes {
            let owner = Owner::Change(*id);
            if id.0 > self.last_id || !self.work.contains(change.repo, owner) || !timer(change.timer, owner) {
                return Err("a change");
            }
        }
        for (id, task) in &self.tasks {
            let linked = self.targets.contains(&(task.repo, task.target, *id));
            if id.0 > self.last_id || !linked || !timer(task.timer, Owner::Task(*id)) {
                return Err("a task");
            }
        }
        let known = |owner: &Owner| match owner {
            Owner::Write(id) => self.writes.get(*id).is_some(),
            Owner::Change(id) => self.changes.contains_key(id),
            Owner::Task(id) => self.tasks.contains_key(id),
        };
        if !self.timers.iter().all(|(_, owner)| known(owner)) || !self.work.iter().all(|(_, owner)| known(&owner)) {
            return Err("a timer");
        }
        let in_order = self.swaps.keys().is_sorted();
        if !in_order || self.swaps.keys().any(|ticket| ticket.0 > self.point) || self.targets.len() != self.tasks.len()
        {
            return Err("a swap or a task");
        }
        Ok(())
    }
}

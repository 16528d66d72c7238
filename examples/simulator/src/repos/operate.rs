//! What operators do: they replace nodes, recover what a backup forgot, and follow what `explain` says.

use tenon_quorum::{
    First, Inspection, Member, NodeId, Obstacle, ReadRequest, ReadStep, RecoverRequest, Remedy, ReplaceRequest, RepoId,
    Timestamp,
};

use super::{Fact, Repos};
use crate::faults::{NODES, SPARES};

/// How many repositories an operator looks after at a time.
const AT_ONCE: usize = 40;
/// How often some repositories are inspected, in ms.
const INSPECT_MS: u64 = 60_000;

impl Repos {
    /// A node is replaced by a spare one in some of its repositories.
    pub(crate) fn replace(&mut self, now: u64, node: NodeId) {
        let Some(router) = self.router(now) else { return };
        let of = self.rows.values().filter(|row| row.members.iter().any(|member| member.node == node));
        let of: Vec<RepoId> = of.map(|row| row.repo).take(10).collect();
        for repo in of {
            let spare = self.spare(repo);
            if let Some(comes) = spare {
                let request = ReplaceRequest::new(repo, node, comes);
                // It may be refused: something else is under way there.
                let _refused = self.routers[router].0.replace(Timestamp::from_millis(now), &request);
            }
        }
        self.drain();
    }

    fn spare(&self, repo: RepoId) -> Option<Member> {
        let row = self.rows.get(&repo)?;
        let free = |node: &NodeId| !row.members.iter().any(|member| member.node == *node);
        let node = (1..=NODES + SPARES).rev().map(NodeId).find(free)?;
        Some(Member::voter(node, self.nodes[&node].incarnation))
    }

    /// Looks after repositories that may be in need: what `explain` names is done. `router` does it.
    pub(crate) fn look_after(&mut self, now: u64) {
        let Some(router) = self.router(now) else { return };
        let at = Timestamp::from_millis(now);
        let due: Vec<RepoId> = self.sick.iter().copied().take(AT_ONCE).collect();
        for repo in due {
            let story = self.routers[router].0.explain(repo);
            let Some(story) = story else {
                self.bring_in(now, router, repo);
                continue;
            };
            let obstacles = story.obstacles;
            let is_well = obstacles.is_empty();
            for Obstacle { remedy, .. } in obstacles {
                self.follow(now, router, repo, remedy);
            }
            if is_well && self.row_is_present(repo) {
                self.sick.remove(&repo);
            } else {
                // The next in turn.
                self.sick.remove(&repo);
                self.later.push(repo);
            }
        }
        if self.sick.is_empty() {
            self.sick.extend(std::mem::take(&mut self.later));
        }
        if now >= self.inspected + INSPECT_MS {
            self.inspected = now;
            let _round = self.routers[router].0.inspect(at, Inspection::Spot, 64);
        }
        self.drain();
    }

    fn row_is_present(&self, repo: RepoId) -> bool {
        self.rows
            .get(&repo)
            .is_some_and(|row| row.fence.generation == self.config.generation() && row.voters().count() == 3)
    }

    fn bring_in(&mut self, now: u64, router: usize, repo: RepoId) {
        let life = (router, self.routers[router].1);
        let request = ReadRequest::linearizable(repo, self.routers[router].0.begin_read());
        let step = self.routers[router].0.route_read(Timestamp::from_millis(now), &request);
        if let Ok(ReadStep::First(First::FetchRow(ask))) = step {
            let fact = Fact::Row(ask, self.store(repo), repo, self.rows.get(&repo).cloned());
            self.reply(life, fact);
        }
    }

    fn follow(&mut self, now: u64, router: usize, repo: RepoId, remedy: Remedy) {
        let at = Timestamp::from_millis(now);
        match remedy {
            Remedy::BringBack { node, incarnation } if self.nodes[&node].incarnation > incarnation => {
                for (core, _) in &mut self.routers {
                    core.lost(at, node, incarnation);
                }
            }
            Remedy::Replace { leaves, comes } => {
                let comes = comes.map(|life| Member::voter(leaves, life)).or_else(|| self.spare(repo));
                if let Some(comes) = comes {
                    let _refused = self.routers[router].0.replace(at, &ReplaceRequest::new(repo, leaves, comes));
                }
            }
            Remedy::Recover => {
                let holders = self.nodes.iter().map(|(node, state)| Member::voter(*node, state.incarnation));
                let request = RecoverRequest::new(repo).held_by(holders.take(8));
                let _refused = self.routers[router].0.recover(at, &request);
            }
            // Repositories here have no forks, are never deleted, and lose no more than the quorum stands for.
            Remedy::Wait
            | Remedy::Restart
            | Remedy::Create
            | Remedy::Migrate { .. }
            | Remedy::BringBack { .. }
            | Remedy::AcceptLoss { .. }
            | _ => {}
        }
    }

    /// What is in the way of a repository, in the router's own words.
    pub(crate) fn why(&self, repo: RepoId) -> String {
        let told: Vec<String> = self
            .routers
            .iter()
            .map(|(router, _)| {
                router.explain(repo).map_or_else(|| "not in memory".into(), |story| format!("{story:?}"))
            })
            .collect();
        format!("row {:?}; {}", self.rows.get(&repo), told.join("; "))
    }
}

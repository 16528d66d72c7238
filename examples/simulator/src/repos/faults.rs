//! What goes wrong with nodes, routers and the metadata store, and how it is put right.

use tenon_quorum::{Generation, Health, Incarnation, Member, NodeId, NodeState, RepoId, RequestId, Router, Timestamp};

use super::node::Node;
use super::{Backup, Network, Repos, Told, numbered};

impl Repos {
    /// A node's process starts: it draws a boot from the store, and every router is told that it is there.
    pub(crate) fn start(&mut self, now: u64, node: NodeId) {
        let generation = self.config.generation();
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let record = self.boots.entry((node, state.incarnation)).or_default();
        state.start(generation, record);
        self.health(now, node, Health::Up);
    }

    fn health(&mut self, now: u64, node: NodeId, health: Health) {
        let state = NodeState::up(self.nodes[&node].incarnation).health(health).domain(Self::domain(node));
        for (router, _) in &mut self.routers {
            router.handle_node(Timestamp::from_millis(now), node, state);
        }
        self.drain();
    }

    pub(crate) fn crash_node(&mut self, now: u64, node: NodeId, ms: u64) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.down_until = now + ms;
        }
        self.health(now, node, Health::Down);
    }

    pub(crate) fn cut_off(&mut self, now: u64, node: NodeId, ms: u64) {
        self.apart.insert(node, now + ms);
        self.health(now, node, Health::Down);
    }

    /// The node is there again, whatever kept it away.
    pub(crate) fn bring_back(&mut self, now: u64, node: NodeId) {
        let is_up = self.nodes[&node].is_up(now) && self.apart.get(&node).is_none_or(|until| *until <= now);
        if is_up {
            self.start(now, node);
        }
    }

    /// Whether every row's voters hold what is committed: then one disk may be lost, as the quorum promises.
    pub(crate) fn is_whole(&self, now: u64) -> bool {
        self.rows.values().all(|row| {
            let holds = |member: &Member| {
                let state = &self.nodes[&member.node];
                let alive = state.incarnation == member.incarnation && state.is_up(now);
                alive && state.holds(row) && state.knows(row)
            };
            row.fence.generation == self.config.generation() && row.members.iter().all(holds)
        })
    }

    pub(crate) fn lose_disk(&mut self, now: u64, node: NodeId) {
        let incarnation = Incarnation(self.nodes[&node].incarnation.0 + 1);
        self.nodes.insert(node, Node::new(incarnation));
        self.mark_sick(node);
        self.start(now, node);
    }

    pub(crate) fn keep_copy(&mut self, node: NodeId) {
        self.copies.insert(node, self.nodes[&node].clone());
    }

    pub(crate) fn rewind(&mut self, now: u64, node: NodeId) -> bool {
        let Some(copy) = self.copies.remove(&node) else { return false };
        if copy.incarnation != self.nodes[&node].incarnation {
            return false;
        }
        self.nodes.insert(node, copy);
        self.mark_sick(node);
        self.start(now, node);
        true
    }

    fn mark_sick(&mut self, node: NodeId) {
        let of = self.rows.values().filter(|row| row.members.iter().any(|member| member.node == node));
        let of: Vec<RepoId> = of.map(|row| row.repo).collect();
        self.sick.extend(of);
    }

    pub(crate) fn crash_router(&mut self, now: u64, router: usize) {
        // Its pushers hear nothing more, whatever becomes of their pushes.
        let lost: Vec<RequestId> =
            self.pushes.iter().filter(|(_, push)| push.router == router).map(|(request, _)| *request).collect();
        for push in lost.iter().filter_map(|request| self.pushes.remove(request)).filter(|push| !push.is_told) {
            *self.failures.entry("the router died before it answered".into()).or_default() += 1;
            self.told.push(Told::PushFailed(push.repo));
        }
        let life = self.routers[router].1 + 1;
        self.routers[router] = (Router::new(numbered(&self.config, router)), life);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            let up = self.nodes[&node].is_up(now) && self.apart.get(&node).is_none_or(|until| *until <= now);
            let health = if up { Health::Up } else { Health::Down };
            let state = NodeState::up(self.nodes[&node].incarnation).health(health).domain(Self::domain(node));
            self.routers[router].0.handle_node(Timestamp::from_millis(now), node, state);
        }
        self.drain();
    }

    pub(crate) fn pause_router(&mut self, now: u64, router: usize, ms: u64) {
        self.paused[router] = now + ms;
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(Backup { rows: self.rows.clone(), feed: self.feed.clone(), boots: self.boots.clone() });
    }

    /// The store comes back as it was at the last backup, in a new life; routers start anew.
    pub(crate) fn restore(&mut self, now: u64) -> bool {
        let Some(backup) = self.backup.clone() else { return false };
        (self.rows, self.feed, self.boots) = (backup.rows, backup.feed, backup.boots);
        self.notes.clear();
        let generation = Generation(self.config.generation().0 + 1);
        if let Ok(config) = self.config.clone().to_builder().generation(generation).build() {
            self.config = config;
        }
        for router in 0..self.routers.len() {
            self.crash_router(now, router);
        }
        self.sick.extend((1..=self.count).map(RepoId));
        true
    }

    /// Everything works again.
    pub(crate) fn calm(&mut self, now: u64) {
        self.network = Network::GOOD;
        self.apart.clear();
        self.paused.iter_mut().for_each(|until| *until = now);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            if let Some(state) = self.nodes.get_mut(&node) {
                state.down_until = 0;
            }
            self.start(now, node);
        }
        self.sick.extend((1..=self.count).map(RepoId));
    }
}

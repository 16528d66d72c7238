//! Faults of the host, and an operator's reactions.

use alloc::format;
use alloc::string::String;

use super::act::{Job, NOBODY};
use super::run::{Run, Sky, numbered};
use super::shadow::Shadow;
use super::{Answer, Host, NODES, Order, REPOS, Swap, failed};
use crate::effect::Effect;
use crate::goal::ReplaceRequest;
use crate::id::{Digest, Generation, RepoId, ShardId, Stamp, Version};
use crate::migrate::{MigrateRequest, Way};
use crate::recover::RecoverRequest;
use crate::router::Router;
use crate::row::{FeedEntry, Member, Row, RowState};
use crate::store::SwapResult;

impl<H: Host> Run<'_, H> {
    /// A swap of a row that has moved on, with a feed entry that must not appear.
    pub(super) fn stale_swap(&mut self) -> Result<(), String> {
        let repo = self.any_repo();
        let book = self.books.of(repo);
        let (Some(past), Some(row)) = (book.past, book.row) else { return Ok(()) };
        let stamp = Stamp { version: Version(u64::MAX / 4), ..past.newest.next(Digest([7; 16])) };
        let entry = FeedEntry { stamp, fence: past.fence };
        let store = self.config.generation();
        for expect in [Some(&past), None] {
            let swap = Swap { store, clears_note: true, expect, next: &past, feed: Some(&entry) };
            let Answer { found, .. } = self.host.swap(swap).map_err(failed)?;
            if found != SwapResult::Conflict(Some(row.clone())) {
                return Err(format!("a swap from a row that moved on was answered with {found:?}"));
            }
        }
        // The row fits, and the store is in another life than the router that asks.
        let other = Generation(store.0.wrapping_add(if self.below(2) == 0 { 1 } else { u32::MAX }));
        let swap = Swap { store: other, clears_note: true, expect: Some(&row), next: &past, feed: Some(&entry) };
        let Answer { found, .. } = self.host.swap(swap).map_err(failed)?;
        if found != SwapResult::OtherStore {
            return Err(format!("a swap for another life of the store was answered with {found:?}"));
        }
        if self.host.feed(repo, stamp.version).map_err(failed)?.found.is_some() {
            return Err("the feed grew with a swap that met another row".into());
        }
        self.ran.conflicts += 1;
        self.check_row(repo).map(drop)
    }

    pub(super) fn crash_store(&mut self) -> Result<(), String> {
        self.ran.crashes += 1;
        self.host.crash_store(None).map_err(failed)?;
        REPOS.into_iter().try_for_each(|repo| self.check_row(repo).map(drop))
    }

    /// A router is lost with all it knew.
    pub(super) fn lose_router(&mut self, router: usize) {
        self.routers[router] = Router::new(numbered(&self.config, u32::from(router > 0)));
        self.jobs.retain(|(owner, _)| *owner != router);
        self.reads.retain(|read| read.router != router);
        self.tell_nodes();
    }

    /// A backup, a restoration, or (most often) a recovery.
    pub(super) fn store_weather(&mut self) -> Result<(), String> {
        match self.below(8) {
            0 => self.restore(),
            1 | 2 => {
                self.books.back_up();
                self.host.back_up().map_err(failed)?;
                let repo = self.any_repo();
                self.write_at_peace(repo)
            }
            of => {
                let (router, repo) = (self.below(2), self.any_repo());
                self.recover(router, repo, of > 4);
                Ok(())
            }
        }
    }

    /// What the backup will not know of: a write to which nothing happens.
    fn write_at_peace(&mut self, repo: RepoId) -> Result<(), String> {
        let sky = core::mem::replace(&mut self.sky, Sky::Clear);
        let router = self.below(2);
        self.begin_write(router, repo);
        let settled = self.settle();
        self.sky = sky;
        settled
    }

    /// The store is as it was at its last backup. What is on its way to it, or to a node, arrives late: from routers of
    /// an earlier life.
    pub(super) fn restore(&mut self) -> Result<(), String> {
        if !self.books.restore() {
            return Ok(());
        }
        self.ran.restores += 1;
        let Generation(life) = self.config.generation();
        let next = self.config.clone().to_builder().generation(Generation(life + 1)).build();
        self.config = next.map_err(|error| format!("{error}"))?;
        self.host.restore(self.config.generation()).map_err(failed)?;
        for repo in REPOS {
            // A note is advice: a backup may hold it, or not.
            let note = self.host.row(repo).map_err(failed)?.store.note;
            self.books.note(repo, note);
        }
        let arrives = |job: &Job| job.is_for_a_node() || matches!(job, Job::Do(Effect::SwapRow { .. }));
        self.jobs.retain(|(_, job)| arrives(job));
        for (owner, _) in &mut self.jobs {
            *owner = NOBODY;
        }
        self.routers = [0, 1].map(|router| Router::new(numbered(&self.config, router)));
        self.reads.clear();
        self.tell_nodes();
        REPOS.into_iter().try_for_each(|repo| self.check_row(repo).map(drop))
    }

    /// Asks the members, or (if `all`) every node there is: an operator who knows of lost disks names who is there now.
    fn recover(&mut self, router: usize, repo: RepoId, all: bool) {
        let mut request = RecoverRequest::new(repo);
        if all {
            request = request.held_by(NODES.map(|node| Member::voter(node, self.life(node))));
        }
        // Recovered already, or under way: an ordinary answer.
        let _ = self.routers[router].recover(self.now, &request);
    }

    /// The family sets out for the shard where it is not, goes on, or turns back.
    pub(super) fn migrate(&mut self, router: usize) {
        let way = if self.below(3) == 0 { Way::Back } else { Way::There };
        self.set_out(router, way);
    }

    pub(super) fn set_out(&mut self, router: usize, way: Way) {
        let moving = |row: &Row| if let RowState::Moving { to, .. } = row.state { Some(to) } else { None };
        let [root, fork] = REPOS.map(|repo| self.books.row(repo).cloned());
        let (Some(root), Some(fork)) = (root, fork) else { return };
        // Whoever is under way says where to; a family that is apart gathers where its root is.
        let apart = (root.shard != fork.shard).then_some(root.shard);
        let to = moving(&root).or(moving(&fork)).or(apart).unwrap_or(ShardId(3 - root.shard.0));
        let request = MigrateRequest::new(root.repo, to, self.members_of(to));
        let router = &mut self.routers[router];
        let _ = match way {
            Way::There => router.migrate(self.now, &request),
            Way::Back => router.abort_migration(self.now, &request),
        };
    }

    /// What an operator does in the end: recovers, brings lost disks back, and sees the family to one shard.
    pub(super) fn operate(&mut self, round: usize) {
        for repo in REPOS {
            let Some(row) = self.books.row(repo).cloned() else { continue };
            let closed = matches!(row.state, RowState::Decided | RowState::Recovering);
            if closed || row.fence.generation < self.config.generation() {
                self.recover(0, repo, true);
            }
            self.rejoin(0, &row);
        }
        let on_the_way = |row: &Row| matches!(row.state, RowState::Moving { .. });
        let shards = REPOS.map(|repo| self.books.row(repo).map(|row| row.shard));
        if shards[0] != shards[1] || self.books.rows().any(on_the_way) {
            // Newcomers may have lost their disks: then the family turns back.
            self.set_out(0, if round % 4 == 3 { Way::Back } else { Way::There });
        }
    }

    /// One disk, while all members hold the newest; it comes back as a member in its next life.
    pub(super) fn lose_disk(&mut self, router: usize) -> Result<(), String> {
        let rows = REPOS.map(|repo| self.books.row(repo).cloned());
        if !rows.iter().flatten().all(|row| self.is_whole(row)) {
            for row in rows.iter().flatten() {
                self.rejoin(router, row);
            }
            return Ok(());
        }
        let node = NODES[self.below(NODES.len())];
        let before = self.life(node);
        let life = self.host.lose_disk(node).map_err(failed)?;
        if life <= before {
            return Err(format!("{node} came back with an empty disk under an incarnation that is not larger"));
        }
        for repo in REPOS {
            self.nodes.insert((node, repo), Shadow::new(repo, node, life));
        }
        self.disks.remove(&node);
        let disk = self.restarted(node)?;
        self.start_gates(node, &disk);
        self.copy = self.copy.take().filter(|(of, ..)| *of != node);
        self.ran.disks += 1;
        self.tell_nodes();
        for row in rows.iter().flatten() {
            self.rejoin(router, row);
        }
        Ok(())
    }

    /// A copy of a disk is taken aside, or put back: an older one, while all members hold the newest. (With a store from
    /// a backup on top of it, more would be lost than the quorum stands for.)
    pub(super) fn rewind_weather(&mut self) -> Result<(), String> {
        let restores = matches!(self.sky, Sky::Rough { restores: Some(_), .. });
        let Some((node, kept, shadows)) = self.copy.take().filter(|_| !restores) else {
            let node = NODES[self.below(NODES.len())];
            self.host.keep_disk(node).map_err(failed)?;
            let of = |repo: RepoId| Some((repo, self.nodes.get(&(node, repo))?.clone()));
            let disk = self.disks.get(&node).copied().unwrap_or_default();
            self.copy = Some((node, disk, REPOS.into_iter().filter_map(of).collect()));
            return Ok(());
        };
        let rows = REPOS.map(|repo| self.books.row(repo).cloned());
        if !rows.iter().flatten().all(|row| self.is_whole(row)) {
            self.copy = Some((node, kept, shadows));
            return Ok(());
        }
        self.host.rewind_node(node).map_err(failed)?;
        let last = self.disks.insert(node, kept).unwrap_or_default();
        let boot = last.boot;
        for (repo, shadow) in shadows {
            self.nodes.insert((node, repo), shadow);
        }
        let disk = self.restarted_after(node, boot, kept.boot < boot)?;
        self.start_gates(node, &disk);
        self.ran.rewinds += 1;
        Ok(())
    }

    /// A node is told to throw away what it holds, by the row as it is now: where it is no member, whether it was ever told
    /// of that or not, its gate comes first, so that no read that an old router sends finds nothing.
    pub(super) fn discard(&mut self) -> Result<(), String> {
        let (repo, node) = (self.any_repo(), NODES[self.below(NODES.len())]);
        let Some(row) = self.books.row(repo).cloned() else { return Ok(()) };
        if row.fence.generation == self.config.generation() && row.state == RowState::Live {
            self.call(node, self.life(node), &Order::Discard(row)).map(drop)?;
        }
        Ok(())
    }

    /// Whether every member holds the newest state and knows who the members are: then one disk may be lost.
    fn is_whole(&self, row: &Row) -> bool {
        let holds = |member: &Member| {
            self.nodes.get(&(member.node, row.repo)).is_some_and(|shadow| {
                let report = shadow.gate.report();
                let knows = report.incarnation == member.incarnation && report.revision >= row.revision;
                knows && shadow.holds(row.newest.digest)
            })
        };
        // A restored row is no measure of what may be lost.
        row.fence.generation == self.config.generation() && row.voters().count() == 3 && row.members.iter().all(holds)
    }

    /// Whoever of the shard is in another life of its disk, or has lost its seat, takes its place again.
    fn rejoin(&mut self, router: usize, row: &Row) {
        for comes in self.members_of(row.shard) {
            let sits = |member: &Member| member.node == comes.node && member.incarnation == comes.incarnation;
            if !row.voters().any(sits) {
                let request = ReplaceRequest::new(row.repo, comes.node, comes);
                let _ = self.routers[router].replace(self.now, &request);
            }
        }
    }
}

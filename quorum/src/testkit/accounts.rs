//! What befalls the host, and the accounts that it is held against: each swap, each order, each crash.

use alloc::format;
use alloc::string::String;

use super::run::{REPO, Run};
use super::shadow::{Outcomes, Shadow};
use super::{Done, Host, Order, Reply, Swap, failed};
use crate::goal::ReplaceRequest;
use crate::id::{Digest, Incarnation, NodeId, Stamp, Version};
use crate::router::SwapResult;
use crate::row::{FeedEntry, Member, Row};
use crate::write::Outcome;

impl<H: Host> Run<'_, H> {
    /// A swap through the weather: what the router is told, if anything.
    pub(super) fn swap(
        &mut self,
        expect: Option<&Row>,
        next: &Row,
        feed: Option<&FeedEntry>,
    ) -> Result<Option<SwapResult>, String> {
        let swap = Swap { expect, next, feed };
        let fits = self.row.as_ref() == expect;
        if self.bad_luck(20) {
            self.ran.crashes += 1;
            self.host.crash_store(Some(swap)).map_err(failed)?;
            let found = self.host.row(REPO).map_err(failed)?;
            if found == self.row {
                return self.check_row().map(|()| None);
            }
            if !fits || found.as_ref() != Some(next) {
                return Err("after a crash, the row is neither what it was nor what it was to be".into());
            }
            self.moved(next, feed);
            return self.check_row().map(|()| Some(SwapResult::Unknown));
        }
        let result = self.host.swap(swap).map_err(failed)?;
        let wanted = if fits { SwapResult::Moved } else { SwapResult::Conflict(self.row.clone()) };
        if result != wanted {
            return Err(format!("a swap was answered with {result:?}, and should have been with {wanted:?}"));
        }
        if fits {
            self.moved(next, feed);
        } else {
            self.ran.conflicts += 1;
        }
        self.check_row()?;
        if self.bad_luck(10) {
            self.ran.mishaps += 1;
            return Ok(Some(SwapResult::Unknown));
        }
        Ok(Some(result))
    }

    fn moved(&mut self, next: &Row, feed: Option<&FeedEntry>) {
        self.past = self.row.replace(next.clone());
        if let Some(entry) = feed {
            self.feed.insert(entry.version(), *entry);
            self.ran.commits += 1;
        }
    }

    pub(super) fn check_row(&mut self) -> Result<(), String> {
        if self.host.row(REPO).map_err(failed)? != self.row {
            return Err("the row is not what the last swap made it".into());
        }
        let Some((version, entry)) = self.feed.last_key_value().map(|(version, entry)| (*version, *entry)) else {
            return Ok(());
        };
        if self.host.feed(REPO, version).map_err(failed)? != Some(entry) {
            return Err(format!("the feed does not hold {version}, which the row shows as committed"));
        }
        Ok(())
    }

    /// An order through the weather: the reply, if it comes.
    pub(super) fn call(&mut self, node: NodeId, life: Incarnation, order: &Order) -> Result<Option<Reply>, String> {
        if self.bad_luck(15) {
            self.ran.mishaps += 1;
            return Ok(None);
        }
        if self.bad_luck(25) {
            return self.crash_node(node, Some((life, order))).map(|()| None);
        }
        let reply = self.host.order(node, life, order).map_err(failed)?;
        self.judge(node, life, order, &reply)?;
        if self.bad_luck(25) {
            // It is durable and said; nobody heard.
            return self.crash_node(node, None).map(|()| None);
        }
        if self.bad_luck(15) {
            self.ran.mishaps += 1;
            return Ok(None);
        }
        Ok(Some(reply))
    }

    fn outcomes(&self, node: NodeId, life: Incarnation, order: &Order) -> Option<Outcomes> {
        let shadow = self.nodes.get(&node)?;
        let source = if let Order::Copy(_, source) = order { self.nodes.get(source) } else { None };
        let mut outcomes = shadow.after(order, source);
        // Another life of the disk: refused, and nothing is done.
        if shadow.gate.report().incarnation != life && !matches!(order, Order::Probe(_)) {
            outcomes.way.truncate(1);
            outcomes.end = None;
        }
        Some(outcomes)
    }

    /// Holds an answer against what the gate allows, and against what the node must hold.
    fn judge(&mut self, node: NodeId, life: Incarnation, order: &Order, reply: &Reply) -> Result<(), String> {
        let Some(outcomes) = self.outcomes(node, life, order) else { return Ok(()) };
        let found = match (&reply.done, outcomes.end) {
            (Done::Refused, None) => {
                self.ran.refusals += 1;
                outcomes.way.into_iter().rev().find(|shadow| shadow.says(&reply.report))
            }
            (done, Some((end, wanted))) if *done == wanted && end.says(&reply.report) => Some(end),
            (Done::Content(found), Some((_, Done::Content(wanted)))) if *found != wanted => {
                return Err(format!("{node} serves another content than was written"));
            }
            (Done::Refused, Some(_)) => return Err(format!("{node} refused what its gate allows: {order:?}")),
            (_, None) => return Err(format!("{node} did what its gate refuses: {order:?}")),
            (_, Some(_)) => None,
        };
        self.believe(node, found, reply.report.serial, "says what does not follow from the order")
    }

    fn believe(&mut self, node: NodeId, found: Option<Shadow>, serial: u64, complaint: &str) -> Result<(), String> {
        let Some(shadow) = self.nodes.get_mut(&node) else { return Ok(()) };
        let Some(found) = found else { return Err(format!("{node} {complaint}")) };
        let changed = found.gate.report() != shadow.gate.report();
        if serial < shadow.serial || (changed && serial == shadow.serial) {
            return Err(format!("the serial of {node} does not grow with its gate"));
        }
        *shadow = Shadow { serial, ..found };
        Ok(())
    }

    /// A node dies, perhaps in the middle of an order: what it said before, it still knows.
    pub(super) fn crash_node(&mut self, node: NodeId, cut: Option<(Incarnation, &Order)>) -> Result<(), String> {
        self.ran.crashes += 1;
        let probe = Order::Probe(REPO);
        let (life, order) = cut.unwrap_or((Incarnation(0), &probe));
        let outcomes = self.outcomes(node, life, order);
        self.host.crash_node(node, cut).map_err(failed)?;
        let report = self.host.order(node, life, &probe).map_err(failed)?.report;
        let found = outcomes.and_then(|outcomes| outcomes.way.into_iter().rev().find(|shadow| shadow.says(&report)));
        self.believe(node, found, report.serial, "forgot in a crash what it had said, or knows what nobody ordered")
    }

    /// What must hold at every moment.
    pub(super) fn check(&self) -> Result<(), String> {
        for (request, outcome) in &self.answers {
            let fence = self.granted.get(request);
            let entry = fence.and_then(|fence| self.feed.values().find(|entry| entry.fence == *fence));
            let (is_true, word) = match outcome {
                Outcome::Applied(stamp) => (entry.is_some_and(|entry| entry.stamp == *stamp), "applied"),
                Outcome::NotApplied => (entry.is_none(), "not applied"),
                Outcome::Unknown => (true, "unknown"),
            };
            if !is_true {
                return Err(format!("{request} was answered as {word}, and the feed says otherwise"));
            }
        }
        let Some(row) = self.row.as_ref().filter(|row| row.newest.version > row.born) else { return Ok(()) };
        let holds = |member: &&Member| self.nodes.get(&member.node).is_some_and(|s| s.holds(row.newest.digest));
        let durable = row.voters().filter(holds).count();
        let needed = self.config.quorum.write() as usize - self.ran.disks.min(1);
        if durable < needed {
            return Err(format!("{} is durable on {durable} voters", row.newest));
        }
        Ok(())
    }

    /// A swap of a row that has moved on, with a feed entry that must not appear.
    pub(super) fn stale_swap(&mut self) -> Result<(), String> {
        let (Some(past), Some(row)) = (self.past.clone(), self.row.clone()) else { return Ok(()) };
        let fence = FeedEntry { stamp: past.newest.next(Digest([7; 16])), fence: past.fence };
        let version = Version(u64::MAX / 4);
        let entry = FeedEntry { stamp: Stamp { version, ..fence.stamp }, ..fence };
        for expect in [Some(&past), None] {
            let found = self.host.swap(Swap { expect, next: &past, feed: Some(&entry) }).map_err(failed)?;
            if found != SwapResult::Conflict(Some(row.clone())) {
                return Err(format!("a swap from a row that moved on was answered with {found:?}"));
            }
        }
        if self.host.feed(REPO, version).map_err(failed)?.is_some() {
            return Err("the feed grew with a swap that met another row".into());
        }
        self.ran.conflicts += 1;
        self.check_row()
    }

    /// One disk, while all members hold the newest; it comes back as a member in its next life.
    pub(super) fn lose_disk(&mut self, router: usize) -> Result<(), String> {
        let Some(row) = self.row.clone() else { return Ok(()) };
        let holds = |member: &Member| {
            self.nodes.get(&member.node).is_some_and(|shadow| {
                shadow.gate.report().incarnation == member.incarnation && shadow.holds(row.newest.digest)
            })
        };
        let whole = row.voters().count() == 3 && row.members.iter().all(holds);
        let node = row.members[self.below(3) % row.members.len()].node;
        if !whole {
            // Whoever is in another life of its disk takes its place again.
            self.rejoin(router, &row);
            return Ok(());
        }
        let before = self.nodes.get(&node).map(|shadow| shadow.gate.report().incarnation);
        let life = self.host.lose_disk(node).map_err(failed)?;
        if before.is_some_and(|before| life <= before) {
            return Err(format!("{node} came back with an empty disk under an incarnation that is not larger"));
        }
        self.nodes.insert(node, Shadow::new(REPO, node, life));
        self.ran.disks += 1;
        self.tell_health(node);
        self.rejoin(router, &row);
        Ok(())
    }

    fn rejoin(&mut self, router: usize, row: &Row) {
        let now = self.now;
        for member in &row.members {
            let life = self.nodes.get(&member.node).map(|shadow| shadow.gate.report().incarnation);
            if let Some(life) = life.filter(|life| *life != member.incarnation) {
                let comes = Member::voter(member.node, life);
                let _ = self.routers[router].replace(now, &ReplaceRequest::new(REPO, member.node, comes));
            }
        }
    }
}

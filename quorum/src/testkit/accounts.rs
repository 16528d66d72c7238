//! Checks of the host: each swap, each order, each crash.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::run::Run;
use super::shadow::{Outcomes, Shadow};
use super::{Answer, Done, Host, Order, REPOS, Reply, Swap, failed};
use crate::boot::Disk;
use crate::id::{Boot, Incarnation, NodeId, RepoId, Version};
use crate::row::{FeedEntry, Member, Row, RowState};
use crate::store::{StoreMeta, SwapResult};
use crate::write::Outcome;

impl<H: Host> Run<'_, H> {
    /// A swap through the weather: what the router is told, if anything.
    pub(super) fn swap(&mut self, swap: Swap<'_>) -> Result<Option<Answer<SwapResult>>, String> {
        let Swap { store, clears_note, expect, next, feed } = swap;
        let is = self.books.row(next.repo).cloned();
        let ours = store == self.config.generation();
        let fits = ours && is.as_ref() == expect;
        if self.bad_luck(20) {
            self.ran.crashes += 1;
            self.host.crash_store(Some(swap)).map_err(failed)?;
            let found = self.host.row(next.repo).map_err(failed)?;
            if found.found == is {
                return self.check_row(next.repo).map(|_| None);
            }
            if !fits || found.found.as_ref() != Some(next) {
                return Err("after a crash, the row is neither what it was nor what it was to be".into());
            }
            self.moved(next, feed, clears_note)?;
            let store = self.check_row(next.repo)?.store;
            return Ok(Some(Answer { store, found: SwapResult::Unknown }));
        }
        let result = self.host.swap(swap).map_err(failed)?;
        let wanted = match (ours, fits) {
            (false, _) => SwapResult::OtherStore,
            (true, true) => SwapResult::Moved,
            (true, false) => SwapResult::Conflict(is),
        };
        if result.found != wanted {
            let found = result.found;
            return Err(format!("a swap was answered with {found:?}, and should have been with {wanted:?}"));
        }
        if fits {
            self.moved(next, feed, clears_note)?;
        } else {
            self.ran.conflicts += 1;
        }
        if self.check_row(next.repo)?.store != result.store {
            return Err("a swap says another life of the store, or another note, than the row does".into());
        }
        if self.bad_luck(10) {
            self.ran.mishaps += 1;
            return Ok(Some(Answer { found: SwapResult::Unknown, ..result }));
        }
        Ok(Some(result))
    }

    /// Whether an answer of the store is of its present life.
    pub(super) fn check_life(&self, store: &StoreMeta) -> Result<(), String> {
        let (says, is) = (store.generation, self.config.generation());
        if says == is { Ok(()) } else { Err(format!("the store says that it is in {says}, and is in {is}")) }
    }

    fn moved(&mut self, next: &Row, feed: Option<&FeedEntry>, clears_note: bool) -> Result<(), String> {
        let was = self.books.row(next.repo).map(|row| (row.state, row.shard));
        self.books.moved(next, feed)?;
        if clears_note {
            self.books.note(next.repo, None);
        }
        self.ran.commits += usize::from(feed.is_some());
        self.ran.recoveries +=
            usize::from(was.is_some_and(|(state, _)| state == RowState::Recovering) && next.state == RowState::Live);
        self.ran.moves += usize::from(was.is_some_and(|(_, shard)| shard != next.shard));
        Ok(())
    }

    /// The row, as the host has it: what it should be, with a feed that ends where it should.
    pub(super) fn check_row(&mut self, repo: RepoId) -> Result<Answer<Option<Row>>, String> {
        let book = self.books.of(repo);
        let Answer { store, found: row } = self.host.row(repo).map_err(failed)?;
        self.check_life(&store)?;
        if row.is_some() && store.note != book.note {
            return Err(format!("the note beside the row of {repo} is {:?}, and not {:?}", store.note, book.note));
        }
        if row != book.row {
            return Err(format!("the row of {repo} is {row:?}, and not what it was made last: {:?}", book.row));
        }
        let version = book.last().map_or(Version(0), |entry| entry.version());
        if self.host.feed(repo, version).map_err(failed)?.found != book.last() {
            return Err(format!("the feed does not hold {version}, which the row shows as committed"));
        }
        if self.host.feed(repo, version.next()).map_err(failed)?.found.is_some() {
            return Err(format!("the feed holds what comes after {version}, which the row knows nothing of"));
        }
        Ok(Answer { store, found: row })
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
        let repo = order.repo();
        let shadow = self.nodes.get(&(node, repo))?;
        let copy = if let Order::Copy(row, _) = order { self.contents.get(&row.newest.digest) } else { None };
        let mut outcomes = shadow.after(order, copy.map_or(&[], Vec::as_slice));
        // Another life of the disk: refused, and nothing is done.
        if shadow.gate.report().incarnation != life && !matches!(order, Order::Probe(_)) {
            outcomes.way.truncate(1);
            outcomes.end = None;
        }
        Some(outcomes)
    }

    /// Holds an answer against what the gate allows, and against what the node must hold.
    fn judge(&mut self, node: NodeId, life: Incarnation, order: &Order, reply: &Reply) -> Result<(), String> {
        let Some(Outcomes { way, end, may_refuse }) = self.outcomes(node, life, order) else { return Ok(()) };
        let found = match (&reply.done, end) {
            (Done::Refused, end) if may_refuse || end.is_none() => {
                self.ran.refusals += 1;
                self.left_as(node, order.repo(), way)?
            }
            (_, Some((end, wanted))) if end.did(reply, &wanted) => Some(Shadow { serial: reply.report.serial, ..end }),
            (Done::Content(found), Some((_, Done::Content(wanted)))) if *found != wanted => {
                return Err(format!("{node} serves another content than was written"));
            }
            (Done::Refused, Some(_)) => return Err(format!("{node} refused what its gate allows: {order:?}")),
            (_, None) => return Err(format!("{node} did what its gate refuses: {order:?}")),
            (_, Some(_)) => None,
        };
        self.believe((node, order.repo()), found, "says what does not follow from the order")
    }

    fn believe(&mut self, at: (NodeId, RepoId), found: Option<Shadow>, complaint: &str) -> Result<(), String> {
        let (node, _) = at;
        let Some(shadow) = self.nodes.get_mut(&at) else { return Ok(()) };
        let Some(found) = found else { return Err(format!("{node} {complaint}")) };
        let (is, was) = (found.gate.report(), shadow.gate.report());
        let changed = is != was && is.boot == was.boot;
        if found.serial < shadow.serial || (changed && found.serial == shadow.serial) {
            return Err(format!("the serial of {node} does not grow with its gate"));
        }
        *shadow = found;
        Ok(())
    }

    /// A node dies, perhaps in the middle of an order: what it said before, it still knows.
    pub(super) fn crash_node(&mut self, node: NodeId, cut: Option<(Incarnation, &Order)>) -> Result<(), String> {
        self.ran.crashes += 1;
        let life = self.life(node);
        let outcomes: BTreeMap<RepoId, Outcomes> = REPOS
            .into_iter()
            .filter_map(|repo| {
                let probe = Order::Probe(repo);
                let (life, order) = cut.filter(|(_, order)| order.repo() == repo).unwrap_or((life, &probe));
                Some((repo, self.outcomes(node, life, order)?))
            })
            .collect();
        self.host.crash_node(node, cut).map_err(failed)?;
        let disk = self.restarted(node)?;
        for (repo, outcomes) in outcomes {
            let way = outcomes.way.into_iter().map(|shadow| shadow.started(&disk)).collect();
            let found = self.left_as(node, repo, way)?;
            let complaint = "forgot in a crash what it had said, or knows what nobody ordered";
            self.believe((node, repo), found, complaint)?;
        }
        Ok(())
    }

    /// A node has started: it has drawn a boot, which its reports name.
    pub(super) fn restarted(&mut self, node: NodeId) -> Result<Disk, String> {
        let last = self.disks.get(&node).map_or(Boot::default(), |disk| disk.boot);
        self.restarted_after(node, last, false)
    }

    /// The same of a node that last had the boot `last`, whatever its disk says.
    pub(super) fn restarted_after(&mut self, node: NodeId, last: Boot, rewound: bool) -> Result<Disk, String> {
        let life = self.life(node);
        let probe = self.host.order(node, life, &Order::Probe(REPOS[0])).map_err(failed)?;
        let (boot, disk) = (probe.report.boot, self.disks.entry(node).or_default());
        if boot <= last || boot.store != self.config.generation() {
            return Err(format!("{node} started under {boot}, and not under a new one: it had {last}"));
        }
        *disk = disk.started(boot, rewound);
        Ok(*disk)
    }

    /// How a node that did not get to the end of something stands now. Its report does not say which row its gate
    /// keeps; a promise does, and one that was given already changes nothing.
    fn left_as(&mut self, node: NodeId, repo: RepoId, way: Vec<Shadow>) -> Result<Option<Shadow>, String> {
        let life = self.life(node);
        let probe = self.host.order(node, life, &Order::Probe(repo)).map_err(failed)?;
        let promise = Order::Promise(repo, probe.report.generation);
        let reply = self.host.order(node, life, &promise).map_err(failed)?;
        let mut way = way.into_iter().rev();
        // One that went back in time promises nothing, and keeps its rows to itself.
        let wanted = if probe.report.rewound { Done::Refused } else { Done::Yes };
        let found = way.find(|shadow| shadow.says(&probe.report) && shadow.did(&reply, &wanted));
        Ok(found.map(|shadow| Shadow { serial: reply.report.serial, ..shadow }))
    }

    /// What must hold at every moment.
    pub(super) fn check(&self) -> Result<(), String> {
        for (request, outcome) in &self.answers {
            let given = self.granted.get(request);
            let entry = given.and_then(|(repo, fence)| self.books.committed_under(*repo, *fence));
            let (is_true, word) = match outcome {
                Outcome::Applied(stamp) => (entry.is_some_and(|entry| entry.stamp == *stamp), "applied"),
                Outcome::NotApplied => (entry.is_none(), "not applied"),
                Outcome::Unknown => (true, "unknown"),
            };
            if !is_true {
                return Err(format!("{request} was answered as {word}, and the feed says otherwise"));
            }
        }
        self.books.rows().try_for_each(|row| self.check_copies(row).and_then(|()| self.check_family(row)))
    }

    /// What the row shows is durable on W voters. A row of an earlier life of the store is no measure, nor is one that
    /// is being recovered: both are closed.
    fn check_copies(&self, row: &Row) -> Result<(), String> {
        let closed = matches!(row.state, RowState::Decided | RowState::Recovering);
        if closed || row.fence.generation < self.config.generation() || row.newest.version == row.born {
            return Ok(());
        }
        let holds = |member: &&Member| {
            self.nodes.get(&(member.node, row.repo)).is_some_and(|shadow| shadow.holds(row.newest.digest))
        };
        let durable = row.voters().filter(holds).count();
        let needed = self.config.quorum.write() as usize - (self.ran.disks + self.ran.rewinds).min(1);
        if durable < needed {
            return Err(format!("{} of {} is durable on {durable} voters", row.newest, row.repo));
        }
        Ok(())
    }

    /// Whoever votes for one of a family holds all of it. (A store from a backup may show half of a move; what it
    /// shows once it is recovered is taken up.)
    fn check_family(&self, row: &Row) -> Result<(), String> {
        let lives_within = |row: &Row, other: &Row| row.voters().all(|voter| other.member(voter.node).is_some());
        let split = |other: &&Row| other.family == row.family && !lives_within(row, other) && !lives_within(other, row);
        match self.books.rows().find(split).filter(|_| self.ran.restores == 0) {
            Some(other) => Err(format!("{} is split from {}", row.repo, other.repo)),
            None => Ok(()),
        }
    }
}

//! Carrying out the effects of routers on the host, and telling the results.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::run::Run;
use super::{Answer, Done, Host, Order, REPOS, Reply, Swap, failed};
use crate::effect::Effect;
use crate::fence::StageOrder;
use crate::id::{Ask, Incarnation, NodeId, RepoId, RequestId, Stamp, TaskId, Version};
use crate::read::{First, ReadRequest, ReadStep, Route};
use crate::reason::Reason;
use crate::repair::SyncResult;
use crate::router::Router;
use crate::row::{Member, Row};
use crate::time::Timestamp;
use crate::write::{Grant, Outcome};

/// Something under way: an effect, or a vote to be gathered.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Do(Effect),
    Stage(Member, StageOrder, Vec<u8>),
}

impl Job {
    /// Whether it is on its way to a node, and arrives whatever becomes of who sent it.
    pub(super) const fn is_for_a_node(&self) -> bool {
        match self {
            Self::Stage(..) => true,
            Self::Do(effect) => matches!(
                effect,
                Effect::RaiseGate { .. }
                    | Effect::Cure { .. }
                    | Effect::Promise { .. }
                    | Effect::Initialise { .. }
                    | Effect::Sync { .. }
            ),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) router: usize,
    pub(super) request: ReadRequest,
    /// What had been committed when it began.
    pub(super) floor: Version,
}

/// A router that is gone: nobody hears what comes of its orders.
pub(super) const NOBODY: usize = usize::MAX;

impl<H: Host> Run<'_, H> {
    fn tell(&mut self, router: usize, fact: impl FnOnce(&mut Router, Timestamp)) {
        if let Some(router) = self.routers.get_mut(router) {
            fact(router, self.now);
        }
    }

    pub(super) fn step_reads(&mut self) -> Result<(), String> {
        for read in core::mem::take(&mut self.reads) {
            if !self.step_read(read)? {
                self.reads.push(read);
            }
        }
        Ok(())
    }

    /// Whether the read is over.
    fn step_read(&mut self, read: Read) -> Result<bool, String> {
        let (now, repo) = (self.now, read.request.repo);
        let route = match self.routers[read.router].route_read(now, &read.request) {
            Err(_) => return Ok(true),
            Ok(ReadStep::First(First::Wait { .. })) => return Ok(false),
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                self.jobs.push((read.router, Job::Do(Effect::FetchRow { ask, repo })));
                return Ok(false);
            }
            Ok(ReadStep::Serve(route)) => route,
        };
        let Some(reply) = self.call(route.node, route.incarnation, &Order::Read(route))? else { return Ok(false) };
        let Done::Content(content) = reply.done else {
            self.tell(read.router, |router, now| router.handle_report(now, None, &reply.report));
            return Ok(false);
        };
        let Stamp { version, digest, .. } = reply.report.applied;
        if version < read.floor {
            return Err(format!("a stale read: {version}, and {} had been committed", read.floor));
        }
        if self.contents.get(&digest) != Some(&content) {
            return Err(format!("{} serves another content than was written", route.node));
        }
        self.ran.reads += 1;
        Ok(true)
    }

    pub(super) fn drain(&mut self) -> Result<(), String> {
        for router in 0..2 {
            while let Some(effect) = self.routers[router].poll_effect() {
                match effect {
                    Effect::Answer { request, outcome, .. } => self.answered(request, outcome)?,
                    // The row shows what became of it, and what was cut short is asked for again.
                    Effect::Changed { .. } => {}
                    Effect::SwapRow { .. }
                    | Effect::FetchRow { .. }
                    | Effect::FetchFeed { .. }
                    | Effect::FetchFamily { .. }
                    | Effect::Grant(_)
                    | Effect::RaiseGate { .. }
                    | Effect::Probe { .. }
                    | Effect::Cure { .. }
                    | Effect::LeaveNote { .. }
                    | Effect::Promise { .. }
                    | Effect::Initialise { .. }
                    | Effect::Sync { .. } => self.jobs.push((router, Job::Do(effect))),
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, request: RequestId, outcome: Outcome) -> Result<(), String> {
        let old = self.answers.insert(request, outcome);
        if old.is_some_and(|old| old != Outcome::Unknown) {
            return Err(format!("{request} was answered twice"));
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, router: usize, job: Job) -> Result<(), String> {
        let effect = match job {
            Job::Stage(member, order, content) => return self.stage(router, member, order, content),
            Job::Do(effect) => effect,
        };
        match effect {
            Effect::SwapRow { ticket, store, expect, next, feed, clears_note } => {
                let swap = Swap { store, clears_note, expect: expect.as_ref(), next: &next, feed: feed.as_ref() };
                if let Some(Answer { store, found }) = self.swap(swap)? {
                    self.tell(router, |router, now| router.handle_swap(now, ticket, &store, &found));
                }
            }
            Effect::LeaveNote { repo, router } => {
                self.host.note(repo, router).map_err(failed)?;
                self.books.note(repo, Some(router));
            }
            Effect::FetchRow { ask, repo } => {
                let Answer { store, found } = self.check_row(repo)?;
                if !self.bad_luck(12) {
                    self.tell(router, |router, now| router.handle_row(now, ask, &store, repo, found.as_ref()));
                }
            }
            Effect::FetchFeed { ask, repo, version } => {
                let Answer { store, found } = self.host.feed(repo, version).map_err(failed)?;
                self.check_life(&store)?;
                self.tell(router, |router, now| router.handle_feed(now, ask, &store, repo, found));
            }
            Effect::FetchFamily { ask, family } => {
                let Answer { store, found } = self.family(family)?;
                if !self.bad_luck(12) {
                    self.tell(router, |router, now| router.handle_family(now, ask, &store, family, &found));
                }
            }
            Effect::Grant(grant) => self.take(router, &grant)?,
            Effect::RaiseGate { ask, node, incarnation, row } => {
                self.ask(router, ask, (node, incarnation), &Order::Raise(row))?;
            }
            Effect::Probe { ask, node, repo } => {
                self.ask(router, ask, (node, self.life(node)), &Order::Probe(repo))?;
            }
            Effect::Cure { ask, node, incarnation, row, boot, serial } => {
                self.ask(router, ask, (node, incarnation), &Order::Cure(row, boot, serial))?;
            }
            Effect::Promise { node, incarnation, repo, generation } => {
                let reply = self.call(node, incarnation, &Order::Promise(repo, generation))?;
                if let Some(Done::Promised(gate)) = reply.map(|reply| reply.done) {
                    self.tell(router, |router, now| router.handle_promise(now, &gate));
                }
            }
            Effect::Initialise { task, target, incarnation, row } => {
                let reply = self.call(target, incarnation, &Order::Initialise(row))?;
                self.copied(router, task, reply);
            }
            Effect::Sync { task, target, incarnation, source, row } => {
                let reply = self.call(target, incarnation, &Order::Copy(row.clone(), source))?;
                if reply.as_ref().is_some_and(|reply| reply.done == Done::Yes) {
                    self.look_at(target, incarnation, &row)?;
                }
                self.copied(router, task, reply);
            }
            // Taken where it came out.
            Effect::Answer { .. } | Effect::Changed { .. } => {}
        }
        Ok(())
    }

    fn family(&mut self, family: RepoId) -> Result<Answer<Vec<RepoId>>, String> {
        let Answer { store, found: mut members } = self.host.family(family).map_err(failed)?;
        self.check_life(&store)?;
        members.sort_unstable();
        let has_row = |repo: &RepoId| self.books.row(*repo).is_some_and(|row| row.family == family);
        let wanted: Vec<RepoId> = REPOS.into_iter().filter(has_row).collect();
        if members == wanted {
            Ok(Answer { store, found: members })
        } else {
            Err(format!("the family is {wanted:?}, and not {members:?}"))
        }
    }

    /// A read that nobody asked for: does the node show what it says that it holds?
    fn look_at(&mut self, node: NodeId, incarnation: Incarnation, row: &Row) -> Result<(), String> {
        let reason = Reason::Aborted;
        let order = Order::Read(Route { node, incarnation, proof: row.proof(), reason });
        self.call(node, incarnation, &order).map(drop)
    }

    fn copied(&mut self, router: usize, task: TaskId, reply: Option<Reply>) {
        let Some(reply) = reply else { return };
        let result = if reply.done == Done::Yes { SyncResult::Done(reply.report) } else { SyncResult::Failed };
        self.tell(router, |router, now| router.handle_synced(now, task, &result));
    }

    fn ask(&mut self, router: usize, ask: Ask, to: (NodeId, Incarnation), order: &Order) -> Result<(), String> {
        if let Some(reply) = self.call(to.0, to.1, order)? {
            self.ran.cures += usize::from(matches!(order, Order::Cure(..)) && reply.done == Done::Yes);
            self.tell(router, |router, now| router.handle_report(now, Some(ask), &reply.report));
        }
        Ok(())
    }

    /// The kit writes for the host's client: every member is to stage the same content.
    fn take(&mut self, router: usize, grant: &Grant) -> Result<(), String> {
        let given = (grant.base.repo, grant.base.fence);
        let old = self.granted.insert(grant.request, given);
        if old.is_some_and(|old| old != given) {
            return Err(format!("two grants for {}", grant.request));
        }
        let content = format!("{} under {}", grant.request, grant.base.fence).into_bytes();
        let digest = self.host.digest(&grant.base, &content).map_err(failed)?;
        self.contents.insert(digest, content.clone());
        let order = grant.stage(digest);
        let jobs = order.base.members.iter().map(|m| (router, Job::Stage(*m, order.clone(), content.clone())));
        self.jobs.extend(jobs);
        Ok(())
    }

    fn stage(&mut self, router: usize, to: Member, order: StageOrder, content: Vec<u8>) -> Result<(), String> {
        let (repo, fence) = (order.base.repo, order.base.fence);
        let order = Order::Stage(order, content);
        let Some(reply) = self.call(to.node, to.incarnation, &order)? else { return Ok(()) };
        self.tell(router, |router, now| {
            router.handle_report(now, None, &reply.report);
            if reply.done == Done::Refused {
                router.handle_declined(now, repo, to.node, fence);
            }
        });
        Ok(())
    }
}

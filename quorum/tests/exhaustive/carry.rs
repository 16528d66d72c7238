//! A message carried out: what becomes of the store and the nodes, and what is told about it.

use tenon_quorum::*;

use crate::common::Fact;
use crate::history::Told;
use crate::message::{Life, Marked, Message};
use crate::system::{Breach, Reading, Sight, System};

fn content(stamp: Stamp) -> u64 {
    let [high, _] = stamp.digest.0.as_chunks::<8>().0 else { unreachable!("sixteen bytes") };
    u64::from_be_bytes(*high)
}

impl System {
    /// Carries a message out; what is told about it comes back.
    pub fn carry_out(&mut self, message: &Message) -> Vec<(Life, Fact)> {
        match message {
            Message::Tell(to, fact) => vec![(*to, fact.clone())],
            Message::Do(from, effect) => self.effect(*from, effect).into_iter().map(|fact| (*from, fact)).collect(),
            Message::Stage(from, _, member, order) => {
                self.stage(member.node, member.incarnation, order).into_iter().map(|fact| (*from, fact)).collect()
            }
            Message::Serve(from, route) => self.serve(route).into_iter().map(|fact| (*from, fact)).collect(),
        }
    }

    fn effect(&mut self, from: Life, effect: &Effect) -> Vec<Fact> {
        match effect {
            Effect::SwapRow { ticket, store, expect, next, feed, clears_note } => {
                let result = if *store == self.store().generation {
                    self.compare_and_set(expect.as_ref(), next, *feed)
                } else {
                    SwapResult::OtherStore
                };
                if result == SwapResult::Moved && *clears_note {
                    self.note = None;
                }
                vec![Fact::Swap(*ticket, self.store(), result)]
            }
            Effect::LeaveNote { router, .. } => {
                self.note = Some(*router);
                Vec::new()
            }
            Effect::FetchRow { ask, .. } => vec![Fact::Row(*ask, self.store(), Some(self.row.get().clone()))],
            Effect::FetchFeed { ask, version, .. } => {
                let entry = self.feed.iter().find(|entry| entry.version() == *version).copied();
                vec![Fact::Feed(*ask, self.store(), entry)]
            }
            Effect::FetchFamily { ask, .. } => vec![Fact::Family(*ask, self.store())],
            Effect::Cure { ask, node, incarnation, row, boot, serial } => {
                let Some(server) = self.server(*node, *incarnation) else { return Vec::new() };
                server.node.cure(row, *boot, *serial);
                let report = server.node.gate.report();
                self.passed(*node, None);
                vec![Fact::Report(Some(*ask), report)]
            }
            Effect::Grant(grant) => self.take(from, grant),
            Effect::RaiseGate { ask, node, incarnation, row } => {
                let Some(server) = self.server(*node, *incarnation) else { return Vec::new() };
                let raised = server.node.show(row).is_ok();
                let report = server.node.gate.report();
                self.passed(*node, raised.then_some(row.fence));
                vec![Fact::Report(Some(*ask), report)]
            }
            Effect::Probe { ask, node, .. } => {
                let server = self.nodes.get(node.0 as usize - 1).filter(|server| server.up);
                server.map(|server| Fact::Report(Some(*ask), server.node.gate.report())).into_iter().collect()
            }
            Effect::Promise { node, incarnation, generation, .. } => {
                let server = self.server(*node, *incarnation);
                server.map(|server| server.node.promise(*generation)).into_iter().collect()
            }
            Effect::Initialise { task, target, incarnation, row } => {
                self.install(*target, *incarnation, row).map(|result| Fact::Synced(*task, result)).into_iter().collect()
            }
            Effect::Sync { task, target, incarnation, source, row } => {
                let source = self.nodes.get(source.0 as usize - 1).filter(|server| server.up);
                let exact = source.is_some_and(|server| server.node.gate.applied() == row.newest);
                let result = if exact { self.install(*target, *incarnation, row) } else { Some(SyncResult::Failed) };
                result.map(|result| Fact::Synced(*task, result)).into_iter().collect()
            }
            Effect::Answer { .. } | Effect::Changed { .. } => Vec::new(),
        }
    }

    fn compare_and_set(&mut self, expect: Option<&Row>, next: &Row, feed: Option<FeedEntry>) -> SwapResult {
        let row = self.row.get();
        if Some(row) != expect {
            let found = row.clone();
            self.saw(Sight::Conflict);
            return SwapResult::Conflict(Some(found));
        }
        // Of a claim that may turn out to be committed, the newest is not yet decided.
        let forgotten = self.committed.iter().any(|entry| entry.stamp.is_beyond(next.newest));
        if next.order() <= row.order() || (forgotten && next.state != RowState::Decided) {
            self.breach(Breach::NewestWentBack);
        }
        self.row = Marked::new(next.clone());
        self.feed.extend(feed);
        let news = feed.filter(|entry| self.committed.iter().all(|old| old.stamp != entry.stamp));
        self.committed.extend(news);
        SwapResult::Moved
    }

    /// The writer's node stages the write itself, in the same step, and sends it to the other members.
    fn take(&mut self, from: Life, grant: &Grant) -> Vec<Fact> {
        let at = usize::try_from(grant.request.0 - 1).expect("a writer");
        if let Some(writer) = self.writers.get_mut(at) {
            writer.granted = Some(grant.base.fence);
        }
        let Some(server) = self.server(grant.writer, grant.incarnation) else { return Vec::new() };
        let Some(order) = server.node.take(grant) else {
            let report = server.node.gate.report();
            self.passed(grant.writer, None);
            return vec![Fact::Report(None, report), Fact::Declined(grant.writer, grant.base.fence)];
        };
        for member in grant.base.members.iter().filter(|member| member.node != grant.writer) {
            self.send(Message::Stage(from, grant.writer, *member, order.clone()));
        }
        self.stage(grant.writer, grant.incarnation, &order)
    }

    fn stage(&mut self, node: NodeId, incarnation: Incarnation, order: &StageOrder) -> Vec<Fact> {
        let Some(server) = self.server(node, incarnation) else { return Vec::new() };
        let fence = order.base.fence;
        let voted = server.node.stage(order);
        let report = Fact::Report(None, server.node.gate.report());
        self.passed(node, voted.then_some(fence));
        if voted { vec![report] } else { vec![report, Fact::Declined(node, fence)] }
    }

    /// What was committed stays committed: a copy may come in after the fence rose again.
    fn install(&mut self, node: NodeId, incarnation: Incarnation, row: &Row) -> Option<SyncResult> {
        let result = self.server(node, incarnation)?.node.install(row);
        self.passed(node, None);
        Some(result)
    }

    fn serve(&mut self, route: &Route) -> Vec<Fact> {
        let Some(reading) = self.reading else { return Vec::new() };
        let Some(server) = self.server(route.node, route.incarnation) else {
            self.reading = Some(Reading { routed: false, ..reading });
            return Vec::new();
        };
        let staged = server.node.gate.staged().is_some();
        let seen = server.node.serve(route);
        let report = server.node.gate.report();
        self.passed(route.node, seen.map(|_| route.proof.fence));
        if let Some(stamp) = seen {
            if staged && report.staged.is_none() {
                self.saw(Sight::AppliedFirst);
            }
            self.end_read(Told::Content(content(stamp)));
            return Vec::new();
        }
        self.saw(Sight::ReadRefused);
        self.reading = Some(Reading { routed: false, ..reading });
        vec![Fact::Report(None, report)]
    }
}

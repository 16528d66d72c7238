//! Scenarios as text: `tests/scenarios/*.txt` hold commands (`> …`) and what came of them.
//!
//! After a change of behaviour that is wanted, `UPDATE=1 cargo test -p tenon-quorum --test scenarios` writes the
//! outcomes anew; read the difference before committing it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is told by the environment to write outcomes anew"
)]

mod common;

use common::{Fact, Message, REPO, World, config};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use tenon_quorum::*;

/// A world under a script: what the network and the store do to messages.
struct Stage {
    world: World,
    cut: BTreeSet<u32>,
    mute: BTreeSet<u32>,
    store_down: bool,
    drop_replies: usize,
    drop_swaps: usize,
    unsure: usize,
    hold: Option<String>,
    held: Vec<Message>,
    requests: u64,
    writes: BTreeMap<u64, (usize, WriteId)>,
    told: usize,
}

impl Stage {
    fn new(quorum: &str, routers: usize, spare: u32, policies: &[&str]) -> Self {
        let n: Vec<u8> = quorum.split('/').map(|n| n.parse().unwrap()).collect();
        let mut config = config().quorum(Quorum::new(n[0], n[1], n[2]).unwrap());
        if policies.contains(&"domains") {
            config = config.ack_domains(2);
        }
        if policies.contains(&"holder") {
            config = config.during_write(DuringWrite::Holder);
        }
        let config = config.build().unwrap();
        Self {
            world: World::new(config, routers, u32::from(n[0]) + spare),
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            store_down: false,
            drop_replies: 0,
            drop_swaps: 0,
            unsure: 0,
            hold: None,
            held: Vec::new(),
            requests: 0,
            writes: BTreeMap::new(),
            told: 0,
        }
    }

    /// Whether the network loses the message.
    fn loses(&mut self, message: &Message) -> bool {
        match message {
            Message::Do(_, Effect::SwapRow { .. }) if self.drop_swaps > 0 => {
                self.drop_swaps -= 1;
                true
            }
            Message::Do(_, Effect::SwapRow { .. } | Effect::FetchRow { .. } | Effect::FetchFeed { .. }) => {
                self.store_down
            }
            Message::Tell(_, Fact::Row(..)) => self.store_down,
            Message::Tell(_, Fact::Swap(..)) if self.drop_replies > 0 => {
                self.drop_replies -= 1;
                true
            }
            Message::Stage(_, node, ..)
            | Message::Do(
                _,
                Effect::RaiseGate { node, .. } | Effect::Probe { node, .. } | Effect::Promise { node, .. },
            ) => self.cut.contains(&node.0),
            Message::Do(_, Effect::Grant(grant)) => self.cut.contains(&grant.writer.0),
            Message::Do(_, Effect::Sync { target, source, .. }) => {
                self.cut.contains(&target.0) || self.cut.contains(&source.0)
            }
            Message::Do(_, Effect::Initialise { target, .. }) => self.cut.contains(&target.0),
            Message::Tell(_, Fact::Report(_, report)) => {
                self.cut.contains(&report.node.0) || self.mute.contains(&report.node.0)
            }
            Message::Do(..) | Message::Tell(..) => false,
        }
    }

    fn kind(message: &Message) -> &'static str {
        match message {
            Message::Stage(..) => "stage",
            Message::Do(_, Effect::SwapRow { feed: Some(_), .. }) => "commit",
            Message::Do(_, Effect::SwapRow { .. }) => "raise",
            Message::Do(_, Effect::Grant(_)) => "grant",
            Message::Do(_, Effect::RaiseGate { .. }) => "show",
            Message::Do(_, Effect::Sync { .. }) => "sync",
            Message::Do(_, Effect::Initialise { .. }) => "initialise",
            Message::Tell(_, Fact::Report(..)) => "report",
            Message::Tell(_, Fact::Row(..)) => "row",
            Message::Do(..) | Message::Tell(..) => "other",
        }
    }

    fn settle(&mut self) {
        self.world.drain();
        for _ in 0..10_000 {
            if self.world.net.is_empty() {
                return;
            }
            let mut message = self.world.net.remove(0);
            if let Message::Tell(_, Fact::Swap(_, _, result)) = &mut message
                && self.unsure > 0
            {
                self.unsure -= 1;
                *result = SwapResult::Unknown;
            }
            if self.hold.as_deref() == Some(Self::kind(&message)) {
                self.held.push(message);
            } else if !self.loses(&message) {
                self.world.deliver(&message);
            }
        }
        panic!("does not settle");
    }

    /// Answers since the last time.
    fn news(&mut self) -> String {
        let mut out = String::new();
        for (_, _, request, outcome, reason) in &self.world.answers[self.told..] {
            let outcome = match outcome {
                Outcome::Applied(stamp) => format!("applied {}", stamp.version),
                Outcome::NotApplied => "not applied".to_owned(),
                Outcome::Unknown => "unknown".to_owned(),
            };
            writeln!(out, "{request}: {outcome}; {reason} (Q{})", reason.code()).unwrap();
        }
        self.told = self.world.answers.len();
        for result in self.world.changes.drain(..) {
            match result {
                Ok(()) => writeln!(out, "changed").unwrap(),
                Err(reason) => writeln!(out, "not changed; {reason} (Q{})", reason.code()).unwrap(),
            }
        }
        out
    }

    fn begin(&mut self, words: &[&str]) -> String {
        self.requests += 1;
        let number = |key: &str| words.iter().position(|word| *word == key).map(|i| words[i + 1].parse().unwrap());
        let mut request = WriteRequest::new(REPO, RequestId(self.requests));
        if let Some(node) = number("through") {
            request = request.through(NodeId(node));
        }
        let router = number("at").unwrap_or(0) as usize;
        match self.world.routers[router].begin_write(self.world.now, &request) {
            Ok(id) => {
                self.writes.insert(self.requests, (router, id));
                String::new()
            }
            Err(refusal) => format!("refused: {refusal}\n"),
        }
    }

    /// To the shard `to`: the first N nodes are shard 1, the next N shard 2.
    fn migration(&self, to: u32) -> MigrateRequest {
        let n = self.world.config.quorum().voters() as usize;
        let nodes = self.world.nodes.iter().skip(n * (to as usize - 1)).take(n);
        let members: Members = nodes.map(|(node, state)| Member::voter(*node, state.incarnation)).collect();
        MigrateRequest::new(REPO, ShardId(to), members)
    }

    fn phase(&self) -> String {
        let Some((router, id)) = self.writes.get(&self.requests) else { return String::new() };
        self.world.routers[*router].write(*id).map_or(String::new(), |view| format!("{:?}\n", view.phase))
    }

    fn gates(&self) -> String {
        let mut out = String::new();
        for (node, state) in &self.world.nodes {
            let report = state.gate.report();
            let staged = report.staged.map_or(String::new(), |s| format!(" + {} of {}", s.stamp.version, s.fence));
            let (version, fence) = (report.applied.version, report.fence);
            writeln!(out, "{node} ({}): {version}{staged}, {fence}", state.incarnation).unwrap();
        }
        out
    }

    fn members(&self) -> String {
        let mut out = String::new();
        for (member, verdict, _) in self.world.routers[0].members(REPO) {
            let Member { node, incarnation, role, .. } = member;
            let verdict = format!("{verdict:?}");
            let verdict = verdict.split(' ').next().unwrap();
            writeln!(out, "{node} ({incarnation}): {role:?}, {verdict}").unwrap();
        }
        out
    }

    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let node = |i: usize| NodeId(words[i].parse().unwrap());
        match words[0] {
            "up" => self.world.health(node(1), Health::Up),
            "down" => self.world.health(node(1), Health::Down),
            "ailing" => self.world.health(node(1), Health::Ailing),
            "wipe" => {
                self.world.lossy |= self.world.wiped;
                self.world.wipe(node(1));
            }
            "twist" => drop(self.world.twisted.insert(node(1))),
            "apart" => {
                self.world.apart.insert(node(1));
                self.world.health(node(1), Health::Up);
            }
            "cut" => self.cut.extend(words[1..].iter().map(|n| n.parse::<u32>().unwrap())),
            "mute" => self.mute.extend(words[1..].iter().map(|n| n.parse::<u32>().unwrap())),
            "heal" => {
                self.cut.clear();
                self.mute.clear();
                self.store_down = false;
                self.hold = None;
            }
            "store" => match words[1] {
                "down" => self.store_down = true,
                "loses-reply" => self.drop_replies += 1,
                "unsure" => self.unsure += 1,
                "loses-swap" => self.drop_swaps += 1,
                other => panic!("{other}"),
            },
            "hold" => self.hold = Some(words[1].to_owned()),
            "release" => {
                self.hold = None;
                self.world.net.append(&mut self.held);
                self.settle();
            }
            "forget" => self.held.clear(),
            "repeat" => {
                let held = self.held.clone();
                self.world.net.extend(held);
                self.settle();
            }
            _ => return self.ask(&words),
        }
        self.news()
    }

    /// The commands that ask routers, or look.
    fn ask(&mut self, words: &[&str]) -> String {
        let node = |i: usize| NodeId(words[i].parse().unwrap());
        match words[0] {
            "begin" => return self.begin(words),
            "write" => {
                let refused = self.begin(words);
                self.settle();
                if !refused.is_empty() {
                    return refused;
                }
                let news = self.news();
                return if news.is_empty() { self.phase() } else { news };
            }
            "abort" => {
                let (router, id) = self.writes[&self.requests];
                let claim = if words[1] == "unstaged" { GiveUp::NothingStaged } else { GiveUp::PerhapsStaged };
                self.world.routers[router].abort_write(self.world.now, id, claim);
                self.settle();
            }
            "decline" => {
                let fence = self.world.row.as_ref().unwrap().fence;
                self.world.tell(0, &Fact::Declined(node(1), fence));
                self.settle();
            }
            "read" => return self.read(words),
            "read-via" => {
                let number = |word: &str| word.parse().unwrap();
                let began = self.world.routers[0].begin_read();
                let read = ReadRequest::linearizable(REPO, began).freshness(Freshness::BoundedStale { age_ms: 9_000 });
                let routed = |name| self.world.routers[0].route_read(self.world.now, &read.via(RequestId(name)));
                let nodes = (number(words[1])..=number(words[2])).map(routed).map(|step| match step {
                    Ok(ReadStep::Serve(route)) => route.node.0.to_string(),
                    other => format!("{other:?}"),
                });
                return format!("{}\n", nodes.collect::<Vec<_>>().join(" "));
            }
            "fails" => {
                for _ in 0..words[2].parse().unwrap() {
                    let now = self.world.now;
                    self.world.routers[0].handle_served(now, node(1), Served::Badly);
                }
            }
            "apply" => {
                let row = self.world.row.clone().unwrap();
                self.world.nodes.get_mut(&node(1)).unwrap().show(&row).unwrap();
            }
            "diverge" => {
                let mut report = self.world.nodes[&node(1)].gate.report();
                report.serial += 1;
                report.applied.digest = Digest([9; 16]);
                self.world.tell(0, &Fact::Report(None, report));
                self.settle();
            }
            "settle" => self.settle(),
            "tick" => {
                self.world.tick(words[1].parse().unwrap());
                self.settle();
            }
            "backup" => self.world.back_up(),
            "restore" | "restore-empty" => {
                if words[0] == "restore-empty" {
                    self.world.backup = Some((None, Vec::new(), self.world.boots.clone()));
                }
                self.world.restore();
                self.writes.clear();
            }
            "lose-router" => {
                self.world.restart_router(0);
            }
            _ => match self.change(words) {
                Some(Ok(_)) => self.settle(),
                Some(Err(refusal)) => return format!("refused: {refusal}\n"),
                None => return self.look(words),
            },
        }
        self.news()
    }

    /// The commands that ask for a change.
    fn change(&mut self, words: &[&str]) -> Option<Result<ChangeId, Refusal>> {
        let node = |i: usize| NodeId(words[i].parse().unwrap());
        let now = self.world.now;
        Some(match words[0] {
            "create" => {
                let request = CreateRequest::new(REPO, ShardId(1), self.world.voters(), Digest([0; 16]));
                self.world.routers[0].create(now, &request)
            }
            "delete" => self.world.routers[0].delete(now, REPO),
            "replace" => {
                let comes = Member::voter(node(3), self.world.nodes[&node(3)].incarnation);
                self.world.routers[0].replace(now, &ReplaceRequest::new(REPO, node(1), comes))
            }
            "migrate" => {
                let request = self.migration(words[1].parse().unwrap());
                self.world.routers[0].migrate(now, &request)
            }
            "abort-migration" => {
                let request = self.migration(words[1].parse().unwrap());
                self.world.routers[0].abort_migration(now, &request)
            }
            "recover" => {
                let held_by = if words.len() > 1 { self.world.voters() } else { Vec::new() };
                self.world.routers[0].recover(now, &RecoverRequest::new(REPO).held_by(held_by))
            }
            "cancel" => {
                let last = self.world.routers[0].changes_of(REPO).next();
                let change = last.map_or(ChangeId(999), |view| view.change);
                self.world.routers[0].cancel(now, change)
            }
            "remove-learner" => self.world.routers[0].remove_learner(now, REPO, node(1)),
            "accept-loss" => {
                self.world.lossy = true;
                self.world.routers[0].accept_loss(now, REPO, node(1))
            }
            _ => return None,
        })
    }

    /// The commands that look.
    fn look(&mut self, words: &[&str]) -> String {
        let node = |i: usize| NodeId(words[i].parse().unwrap());
        match words[0] {
            "inspect" => {
                let router = &mut self.world.routers[0];
                let spot = words.get(1) == Some(&"spot");
                let inspection = if spot { Inspection::Spot } else { Inspection::Full(None) };
                let round = router.inspect(self.world.now, inspection, 10);
                self.settle();
                return format!("looked at {}\n", round.looked_at);
            }
            "findings" => {
                let found = self.world.routers[0].findings(REPO);
                return found.fold(String::new(), |all, (node, finding)| format!("{all}{node}: {finding:?}\n"));
            }
            "what-if-down" => {
                let state = NodeState::up(Incarnation(1)).health(Health::Down);
                let now = self.world.now;
                let (then, _) = self.world.routers[0].what_if(|router| router.handle_node(now, node(1), state));
                assert_ne!(then.digest(), self.world.routers[0].digest());
                return format!("{}\n", then.tally(REPO).unwrap());
            }
            "fork" => {
                let shard = ShardId(words[1].parse().unwrap());
                let members = self.world.voters();
                let fork = CreateRequest::new(RepoId(8), shard, members, Digest([0; 16])).fork_of(REPO);
                return match self.world.routers[0].create(self.world.now, &fork) {
                    Ok(_) => "accepted\n".to_owned(),
                    Err(refusal) => format!("refused: {refusal}\n"),
                };
            }
            "members" => return self.members(),
            "lose-row" => {
                self.world.row = None;
                self.world.lossy = true;
            }
            "changes" => {
                let now = self.world.now;
                let view = |view: ChangeView| {
                    let ChangeView { kind, phase, waits_for, since, .. } = view;
                    let since = now.millis_since(since);
                    format!("{kind:?}, {phase:?} since {since} ms for {waits_for}\n")
                };
                let left = self.world.routers[0].explain(REPO).map(|told| told.left_behind).unwrap_or_default();
                let left = left.iter().map(|node| format!("{node} is left behind\n"));
                return self.world.routers[0].changes().map(view).chain(left).collect();
            }
            "gates" => return self.gates(),
            "phase" => return self.phase(),
            "row" => {
                let row = self.world.row.as_ref().unwrap();
                let state = if row.state == RowState::Live { String::new() } else { format!(", {:?}", row.state) };
                let shard = if row.shard == ShardId(1) { String::new() } else { format!(", {}", row.shard) };
                return format!("{}, {}, {}{shard}{state}\n", row.newest.version, row.fence, row.revision);
            }
            "tally" => return format!("{}\n", self.world.routers[0].tally(REPO).unwrap()),
            "tasks" => {
                let tasks = self.world.routers[0].tasks();
                return tasks.fold(String::new(), |all, (_, _, node)| format!("{all}copy to {node}\n"));
            }
            other => panic!("no such command: {other}"),
        }
        self.news()
    }

    fn read(&mut self, words: &[&str]) -> String {
        let router = words.get(1).and_then(|router| router.parse().ok()).unwrap_or(0);
        let mut read = self.world.begin_read(router);
        let number = || words[2].parse().unwrap();
        let freshness = match words.get(1).copied() {
            Some("at-least") => {
                let (generation, epoch) = (Generation(1), Epoch(1));
                Freshness::AtLeast(Token { generation, epoch, version: Version(number()) })
            }
            Some("stale") => Freshness::BoundedStale { age_ms: number() },
            Some("degraded") => Freshness::Degraded,
            Some(_) | None => Freshness::Linearizable,
        };
        if freshness != Freshness::Linearizable {
            read.floor = Version(0);
        }
        read.request = read.request.freshness(freshness);
        let refusals = self.world.refusals;
        for _ in 0..20 {
            match self.world.step_read(&read) {
                Some(Ok((version, reason))) => {
                    let refused = self.world.refusals - refusals;
                    let refused = if refused > 0 { format!("; refused {refused} times before") } else { String::new() };
                    return format!("{version}; {reason} (Q{}){refused}\n", reason.code());
                }
                Some(Err(refusal)) => return format!("refused: {refusal}\n"),
                None => self.settle(),
            }
        }
        "waits\n".to_owned()
    }
}

fn play(script: &str) -> String {
    let mut out = String::new();
    let mut stage: Option<Stage> = None;
    for line in script.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            let mut words = title.split(':').next().unwrap().split_whitespace();
            let quorum = words.next().unwrap();
            let routers = words.next().map_or(1, |routers| routers.parse().unwrap());
            let spare = words.next().map_or(0, |spare| spare.parse().unwrap());
            let policies: Vec<&str> = words.collect();
            stage = Some(Stage::new(quorum, routers, spare, &policies));
            writeln!(out, "{line}").unwrap();
        } else if let Some(command) = line.strip_prefix("> ") {
            let stage = stage.as_mut().expect("a scenario starts with ==");
            writeln!(out, "{line}").unwrap();
            out.push_str(&stage.run(command));
            stage.world.check();
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

#[test]
fn scenarios() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut count = 0;
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = play(&script);
        count += script.lines().filter(|line| line.starts_with("== ")).count();
        if std::env::var("UPDATE").is_ok() {
            std::fs::write(&path, played).unwrap();
            continue;
        }
        for (i, (was, is)) in script.lines().zip(played.lines()).enumerate() {
            assert_eq!(was, is, "{}:{}", path.display(), i + 1);
        }
        assert_eq!(script.lines().count(), played.lines().count(), "{}", path.display());
    }
    assert!(count >= 30, "only {count} scenarios");
}

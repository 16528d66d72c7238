//! Any commands and facts, true or made up, early, late or repeated, told to a router and to gates: no panic, nothing
//! without bound, gates that never go back, and a router that its snapshot rebuilds.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tenon_quorum::{
    Ask, Boot, Config, CreateRequest, Digest, Effect, Epoch, FeedEntry, Fence, FenceGate, Freshness, Generation,
    GiveUp, Health, Incarnation, Lease, Member, NodeId, NodeState, Proof, Purpose, ReadRequest, ReadStep,
    RecoverRequest, ReplaceRequest, RepoId, Report, RequestId, Revision, Role, Router, RouterId, Row, RowState, Served,
    ShardId, StageOrder, Staged, Stamp, StoreMeta, SwapResult, SyncResult, TaskId, Ticket, Timestamp, Token, Version,
    WriteId, WriteRequest,
};

/// The life of the store that the router is for.
const STORE: StoreMeta = StoreMeta::new(Generation(1));

/// Small numbers, so that facts meet what they are about; now and then a large one.
fn small(u: &mut Unstructured<'_>) -> Result<u64> {
    let byte = u.arbitrary::<u8>()?;
    Ok(if byte == 255 { u.arbitrary()? } else { u64::from(byte % 12) })
}

fn narrow(u: &mut Unstructured<'_>) -> Result<u32> {
    Ok(u32::try_from(small(u)?).unwrap_or(u32::MAX))
}

fn repo(u: &mut Unstructured<'_>) -> Result<RepoId> {
    Ok(RepoId(u64::from(u.arbitrary::<u8>()? % 3)))
}

fn node(u: &mut Unstructured<'_>) -> Result<NodeId> {
    Ok(NodeId(u32::from(u.arbitrary::<u8>()? % 5)))
}

fn life(u: &mut Unstructured<'_>) -> Result<Incarnation> {
    Ok(Incarnation(u64::from(u.arbitrary::<u8>()? % 3)))
}

fn fence(u: &mut Unstructured<'_>) -> Result<Fence> {
    Ok(Fence { generation: Generation(narrow(u)? % 3), counter: small(u)? })
}

fn stamp(u: &mut Unstructured<'_>) -> Result<Stamp> {
    let digest = Digest([u.arbitrary::<u8>()? % 4; 16]);
    Ok(Stamp { epoch: Epoch(narrow(u)? % 3), version: Version(small(u)?), digest })
}

fn member(u: &mut Unstructured<'_>) -> Result<Member> {
    let role = if u.ratio(1_u8, 4)? { Role::Learner } else { Role::Voter };
    Ok(Member { role, since: Revision(narrow(u)?), ..Member::voter(node(u)?, life(u)?) })
}

fn row(u: &mut Unstructured<'_>, repo: RepoId) -> Result<Row> {
    let members: Vec<Member> = (0..u.int_in_range(0..=5)?).map(|_| member(u)).collect::<Result<_>>()?;
    let state = match u.int_in_range(0..=7)? {
        0 => RowState::Deleted,
        1 => RowState::Moving { to: ShardId(2), round: Revision(2) },
        3 => RowState::Recovering,
        2 => RowState::Pinned { node: node(u)? },
        _ => RowState::Live,
    };
    let previous: Vec<Member> = (0..u.int_in_range(0..=3)?).map(|_| member(u)).collect::<Result<_>>()?;
    let purpose = if u.arbitrary()? { Purpose::Write } else { Purpose::CatchUp { rounds: 4, lag: 2 } };
    let lease = Lease { holder: RouterId(narrow(u)? % 3), ms: small(u)?, purpose };
    Ok(Row {
        repo,
        family: repo,
        shard: ShardId(1),
        revision: Revision(narrow(u)?),
        members: members.into(),
        previous: previous.into(),
        newest: stamp(u)?,
        born: Version(small(u)?),
        fence: fence(u)?,
        lease: u.ratio(1_u8, 4)?.then_some(lease),
        state,
    })
}

fn report(u: &mut Unstructured<'_>) -> Result<Report> {
    let staged = if u.arbitrary()? {
        Some(Staged { fence: fence(u)?, revision: Revision(narrow(u)?), stamp: stamp(u)? })
    } else {
        None
    };
    Ok(Report {
        repo: repo(u)?,
        node: node(u)?,
        incarnation: life(u)?,
        boot: Boot { store: Generation(1), counter: small(u)? % 3 },
        began: small(u)?,
        serial: small(u)?,
        rewound: u.ratio(1_u8, 8)?,
        applied: stamp(u)?,
        staged,
        generation: Generation(narrow(u)? % 3),
        fence: fence(u)?,
        base: Version(small(u)?),
        revision: Revision(narrow(u)?),
    })
}

fn health(u: &mut Unstructured<'_>) -> Result<Health> {
    Ok(*u.choose(&[Health::Up, Health::Up, Health::Ailing, Health::Draining, Health::Down])?)
}

/// A store and a gate that do what they are told, so that runs get somewhere.
struct World {
    router: Router,
    now: Timestamp,
    rows: Vec<(RepoId, Row)>,
    gates: Vec<FenceGate>,
    pending: Vec<Effect>,
}

impl World {
    fn gate(&mut self, repo: RepoId, node: NodeId) -> Option<&mut FenceGate> {
        self.gates.iter_mut().find(|gate| gate.report().repo == repo && gate.report().node == node)
    }

    /// Puts a gate in the place of an older one: whatever it was told, it did not go back.
    fn keep(&mut self, next: FenceGate) {
        let (after, now) = (next.report(), self.now);
        let Some(gate) = self.gate(after.repo, after.node) else { return };
        let before = gate.report();
        assert!(after.fence >= before.fence && after.generation >= before.generation, "{before:?} {after:?}");
        assert!(after.serial > before.serial || after == before, "{before:?} {after:?}");
        let same = after.applied.epoch == before.applied.epoch;
        assert!(!same || after.applied.version >= before.applied.version, "{before:?} {after:?}");
        *gate = next;
        self.router.handle_report(now, None, &after);
    }

    fn row(&self, repo: RepoId) -> Option<Row> {
        self.rows.iter().find(|(id, _)| *id == repo).map(|(_, row)| row.clone())
    }

    fn swap(&mut self, expect: Option<&Row>, next: &Row) -> SwapResult {
        let found = self.row(next.repo);
        if found.as_ref() != expect {
            return SwapResult::Conflict(found);
        }
        self.rows.retain(|(id, _)| *id != next.repo);
        self.rows.push((next.repo, next.clone()));
        SwapResult::Moved
    }

    fn order(&mut self, row: &Row, node: NodeId) {
        let Some(gate) = self.gate(row.repo, node).cloned() else { return };
        if let Ok(raised) = gate.raise(row) {
            let applied = raised.apply(&row.proof());
            self.keep(raised);
            if let Ok(applied) = applied {
                self.keep(applied);
            }
        }
    }

    fn carry_out(&mut self, effect: &Effect) {
        let now = self.now;
        match effect {
            Effect::SwapRow { ticket, expect, next, .. } => {
                let result = self.swap(expect.as_ref(), next);
                self.router.handle_swap(now, *ticket, &STORE, &result);
            }
            Effect::FetchRow { ask, repo } => {
                let row = self.row(*repo);
                self.router.handle_row(now, *ask, &STORE, *repo, row.as_ref());
            }
            Effect::FetchFamily { ask, family } => {
                let of = |row: &&(RepoId, Row)| row.1.family == *family;
                let members: Vec<RepoId> = self.rows.iter().filter(of).map(|(repo, _)| *repo).collect();
                self.router.handle_family(now, *ask, &STORE, *family, &members);
            }
            Effect::FetchFeed { ask, repo, .. } => self.router.handle_feed(now, *ask, &STORE, *repo, None),
            Effect::Grant(grant) => {
                let order = grant.stage(Digest([3; 16]));
                for member in &order.base.members {
                    let staged = self.gate(order.base.repo, member.node).and_then(|gate| gate.stage(&order).ok());
                    staged.into_iter().for_each(|staged| self.keep(staged));
                }
            }
            Effect::RaiseGate { node, row, .. } => self.order(row, *node),
            Effect::Probe { ask, node, repo } => {
                let report = self.gate(*repo, *node).map(|gate| gate.report());
                report.iter().for_each(|report| self.router.handle_report(now, Some(*ask), report));
            }
            Effect::Cure { node, row, boot, serial, .. } => {
                let cured = self.gate(row.repo, *node).and_then(|gate| gate.cure(row, *boot, *serial).ok());
                cured.into_iter().for_each(|gate| self.keep(gate));
            }
            Effect::Promise { node, repo, generation, .. } => {
                let promised = self.gate(*repo, *node).and_then(|gate| gate.promise(*generation).ok());
                promised.into_iter().for_each(|gate| {
                    self.router.handle_promise(now, &gate);
                    self.keep(gate);
                });
            }
            Effect::Initialise { task, target, row, .. } | Effect::Sync { task, target, row, .. } => {
                self.order(row, *target);
                let installed = self.gate(row.repo, *target).and_then(|gate| gate.install(&row.proof()).ok());
                let result = installed.as_ref().map_or(SyncResult::Failed, |gate| SyncResult::Done(gate.report()));
                installed.into_iter().for_each(|gate| self.keep(gate));
                self.router.handle_synced(now, *task, &result);
            }
            Effect::Answer { .. } | Effect::Changed { .. } | Effect::LeaveNote { .. } => {}
        }
    }

    /// A command.
    fn ask(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (now, repo) = (self.now, repo(u)?);
        match u.int_in_range(0..=7)? {
            0 => drop(self.router.begin_write(now, &WriteRequest::new(repo, RequestId(small(u)?)))),
            1 => drop(self.router.begin_write(now, &WriteRequest::new(repo, RequestId(1)).through(node(u)?))),
            2 => {
                let token = Token { generation: Generation(1), epoch: Epoch(1), version: Version(small(u)?) };
                let freshness = *u.choose(&[
                    Freshness::Linearizable,
                    Freshness::AtLeast(token),
                    Freshness::BoundedStale { age_ms: 500 },
                    Freshness::Degraded,
                ])?;
                let read = ReadRequest::linearizable(repo, self.router.begin_read()).freshness(freshness);
                if let Ok(ReadStep::Serve(route)) = self.router.route_read(now, &read) {
                    let _ = self.gate(repo, route.node).map(|gate| gate.admit_read(&route).is_ok());
                }
            }
            3 => {
                let members: Vec<Member> = (0..3).map(|_| member(u)).collect::<Result<_>>()?;
                let _ = self.router.create(now, &CreateRequest::new(repo, ShardId(1), members, Digest([0; 16])));
            }
            4 => drop(self.router.delete(now, repo)),
            5 => drop(self.router.replace(now, &ReplaceRequest::new(repo, node(u)?, member(u)?))),
            6 => drop(self.router.recover(now, &RecoverRequest::new(repo).held_by([member(u)?]))),
            _ => drop(self.router.accept_loss(now, repo, node(u)?)),
        }
        Ok(())
    }

    /// A fact that somebody made up.
    fn tell(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (now, repo) = (self.now, repo(u)?);
        match u.int_in_range(0..=11)? {
            0 => {
                let ask = if u.arbitrary()? { Some(Ask(small(u)?)) } else { None };
                self.router.handle_report(now, ask, &report(u)?);
            }
            1 => {
                let row = row(u, repo)?;
                self.router.handle_row(now, Ask(small(u)?), &STORE, repo, Some(&row));
            }
            2 => self.router.handle_row(now, Ask(small(u)?), &STORE, repo, None),
            3 => {
                let entry = FeedEntry { stamp: stamp(u)?, fence: fence(u)? };
                self.router.handle_feed(now, Ask(small(u)?), &STORE, repo, Some(entry));
            }
            4 => {
                let conflict = SwapResult::Conflict(Some(row(u, repo)?));
                let result = u.choose(&[SwapResult::Moved, SwapResult::Unknown, conflict])?.clone();
                let store = StoreMeta::new(Generation(narrow(u)? % 2)).note(Some(RouterId(narrow(u)? % 3)));
                self.router.handle_swap(now, Ticket(small(u)?), &store, &result);
            }
            5 => self.router.handle_declined(now, repo, node(u)?, fence(u)?),
            6 => {
                let result = if u.arbitrary()? { SyncResult::Done(report(u)?) } else { SyncResult::Failed };
                self.router.handle_synced(now, TaskId(small(u)?), &result);
            }
            7 => self.router.handle_node(now, node(u)?, NodeState::up(life(u)?).health(health(u)?)),
            8 => self.router.handle_served(now, node(u)?, if u.arbitrary()? { Served::Well } else { Served::Badly }),
            10 => self.router.lost(now, node(u)?, life(u)?),
            9 => {
                if let Some(gate) = self.gate(repo, node(u)?).cloned() {
                    self.router.handle_promise(now, &gate);
                }
            }
            _ => {
                let claim = if u.arbitrary()? { GiveUp::NothingStaged } else { GiveUp::PerhapsStaged };
                self.router.abort_write(now, WriteId(small(u)?), claim);
            }
        }
        Ok(())
    }

    /// Something that nobody ordered reaches a gate.
    fn confront(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (repo, node) = (repo(u)?, node(u)?);
        let row = row(u, repo)?;
        let proof = Proof { newest: stamp(u)?, ..row.proof() };
        let Some(gate) = self.gate(repo, node).cloned() else { return Ok(()) };
        let next = match u.int_in_range(0..=3)? {
            0 => gate.raise(&row),
            1 => gate.stage(&StageOrder { base: row, digest: Digest([1; 16]) }),
            2 => gate.apply(&proof),
            _ => gate.install(&proof),
        };
        next.into_iter().for_each(|next| self.keep(next));
        Ok(())
    }
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let config =
        Config::builder().lease_ms(500).write_ms(2_000).retry_ms(100).sync_ms(500).most_awake(1).most_writes(4);
    let config = config
        .generation(Generation(1))
        .most_changes(4)
        .most_tasks(4)
        .most_repositories(2)
        .build()
        .expect("a valid configuration");
    let mut world = World {
        router: Router::new(config.clone()),
        now: Timestamp::from_millis(1),
        rows: Vec::new(),
        gates: (0..3)
            .flat_map(|repo| (0..5).map(move |node| FenceGate::new(RepoId(repo), NodeId(node), Incarnation(1))))
            .collect(),
        pending: Vec::new(),
    };
    for node in (0..5).map(NodeId) {
        world.router.handle_node(world.now, node, NodeState::up(Incarnation(1)));
    }
    while !u.is_empty() {
        match u.int_in_range(0..=9)? {
            0..=1 => world.ask(u)?,
            2..=3 => world.tell(u)?,
            4 => world.confront(u)?,
            5 => {
                world.now = world.now.after_millis(small(u)?.saturating_mul(50));
                world.router.handle_timeout(world.now);
            }
            _ if !world.pending.is_empty() => {
                let at = u.choose_index(world.pending.len())?;
                let effect = world.pending.swap_remove(at);
                world.carry_out(&effect);
                if u.ratio(1_u8, 8)? {
                    world.pending.push(effect);
                }
            }
            _ => {}
        }
        world.pending.extend(std::iter::from_fn(|| world.router.poll_effect()));
        world.pending.truncate(256);
        let (known, _) = world.router.repositories();
        assert!(known <= 2 && world.router.tasks().count() <= 4, "a limit is passed");
    }
    let restored = Router::restore(config, world.router.snapshot()).expect("a router's own snapshot");
    assert_eq!(restored, world.router);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that run out end the run.
    let _ = run(&mut Unstructured::new(bytes));
});

//! Figures of `tenon-quorum`: the price of a decision beside a bare lookup, memory at rest, a write's course.

mod shared;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;

use tenon_quorum::{
    Ask, Config, Digest, Effect, Epoch, Fence, FenceGate, Freshness, Generation, Incarnation, Member, Members, NodeId,
    NodeState, ReadRequest, ReadStep, RepoId, RequestId, Revision, Router, Row as RepoRow, RowState, ShardId,
    StageOrder, Stamp, StoreMeta, SwapResult, Timestamp, Version, WriteRequest,
};

use crate::{Bound, Row, Scale, allocations, bytes_held, interleave};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// The finaliser of `SplitMix64`: the peer's hash, and the order of random ids.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| mix(hash ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(number);
    }
}

/// The bare lookup: rows of 32 bytes by id.
type Bare = HashMap<u64, [u64; 4], BuildHasherDefault<Mix>>;

fn members(shard: u32) -> Members {
    (0..3).map(|n| Member::voter(NodeId(shard * 3 + n), Incarnation(1))).collect()
}

fn row(repo: u64) -> RepoRow {
    let shard = u32::try_from(repo % 16).unwrap_or(0);
    RepoRow {
        repo: RepoId(repo),
        family: RepoId(repo),
        shard: ShardId(shard),
        revision: Revision(1),
        members: members(shard),
        previous: Members::default(),
        newest: Stamp { epoch: Epoch(1), version: Version(0), digest: Digest([7; 16]) },
        born: Version(0),
        fence: Fence { generation: Generation(1), counter: 1 },
        lease: None,
        state: RowState::Live,
    }
}

/// A router over 48 nodes in 16 shards, told of `count` repositories, almost all of them at rest.
fn router(count: usize) -> Router {
    let config = Config::builder().most_awake(64).build().expect("a valid configuration");
    let mut router = Router::new(config);
    router.reserve(u32::try_from(count).unwrap_or(u32::MAX));
    for node in 0..48 {
        router.handle_node(NOW, NodeId(node), NodeState::up(Incarnation(1)));
    }
    for repo in 0..count as u64 {
        let row = row(repo);
        let ask = router.begin_read();
        router.handle_row(NOW, ask, &StoreMeta::new(Generation(1)), row.repo, Some(&row));
        for member in &row.members {
            let blank = FenceGate::new(row.repo, member.node, Incarnation(1));
            let gate = blank.raise(&row).and_then(|gate| gate.install(&row.proof()));
            router.handle_report(NOW, None, &gate.expect("a blank gate takes the first state").report());
        }
    }
    while router.poll_effect().is_some() {}
    router
}

/// A read by the row that is held.
const fn read_of(repo: u64) -> ReadRequest {
    ReadRequest::linearizable(RepoId(repo), Ask(1)).freshness(Freshness::BoundedStale { age_ms: 1_000_000 })
}

fn decide(router: &mut Router, repo: u64) -> u64 {
    match router.route_read(NOW, &read_of(repo)) {
        Ok(ReadStep::Serve(route)) => u64::from(route.node.0),
        Ok(ReadStep::First(_)) | Err(_) => u64::MAX,
    }
}

/// Reads of random repositories. `next` says which, by the place in the run and by what the last one came to: a function
/// of its own for each kind of run, as a switch inside would make every id wait for the answer before it.
fn reads(router: &mut Router, count: u64, batch: usize, next: impl Fn(u64, u64) -> u64) -> usize {
    let mut last = 0;
    for i in 0..batch as u64 {
        last = decide(router, next(i, last) % count);
        assert!(last != u64::MAX, "every read is served");
    }
    black_box(last);
    batch
}

/// So many reads come at once.
const MANY: usize = 64;

/// Reads of independent random repositories, which come together.
fn reads_together(
    router: &mut Router,
    count: u64,
    batch: usize,
    steps: &mut Vec<Result<ReadStep, tenon_quorum::Refusal>>,
) -> usize {
    let mut requests = [ReadRequest::linearizable(RepoId(0), Ask(1)); MANY];
    for from in (0..batch as u64).step_by(MANY) {
        for (i, request) in (from..).zip(&mut requests) {
            *request = read_of(independent(i, 0) % count);
        }
        steps.clear();
        router.route_many(NOW, &requests, steps);
        assert!(steps.iter().all(|step| matches!(step, Ok(ReadStep::Serve(_)))), "every read is served");
        black_box(&steps);
    }
    batch
}

fn lookups(bare: &Bare, count: u64, batch: usize, next: impl Fn(u64, u64) -> u64) -> usize {
    let mut last = 0;
    for i in 0..batch as u64 {
        last = bare.get(&(next(i, last) % count)).map_or(0, |row| row[0]);
    }
    black_box(last);
    batch
}

fn independent(i: u64, _: u64) -> u64 {
    mix(i)
}

fn dependent(i: u64, last: u64) -> u64 {
    mix(i + (last & 1))
}

fn read_rows(scale: Scale, out: &mut Vec<Row>) {
    let count = scale.pick(10_000_000, 1_000_000);
    let batch = scale.pick(1_000_000, 200_000);
    let (mut router, held) = bytes_held(|| router(count));
    let (known, resting) = router.repositories();
    #[allow(clippy::cast_precision_loss, reason = "a figure to read")]
    let each = held as f64 / count as f64;
    out.push(
        Row::new(format!("memory per idle repository, {count} of them"), each, "bytes", Bound::AtMost(48.0))
            .note(format!("everything the router holds; {resting} of {known} at rest")),
    );
    let bare: Bare = (0..count as u64).map(|repo| (repo, [repo, 1, 2, 3])).collect();
    let total = count as u64;
    let mut beside = |name: &str, pair: crate::Pair| {
        out.push(
            Row::new(format!("read decision, {name} random ids"), pair.subject_ns, "ns", Bound::RatioAtMost(1.5))
                .beside("bare lookup of 32-byte rows", pair.peer_ns, pair.ratio)
                .note(format!("{count} repositories, by a cached row")),
        );
    };
    let ours = || reads(&mut router, total, batch, independent);
    beside("independent", interleave(7, ours, || lookups(&bare, total, batch, independent)));
    let ours = || reads(&mut router, total, batch, dependent);
    beside("dependent", interleave(7, ours, || lookups(&bare, total, batch, dependent)));
    let mut steps = Vec::with_capacity(MANY);
    let ours = || reads_together(&mut router, total, batch, &mut steps);
    let pair = interleave(7, ours, || lookups(&bare, total, batch, independent));
    out.push(
        Row::new(
            format!("read decision, {MANY} at a time (route_many)"),
            pair.subject_ns,
            "ns",
            Bound::RatioAtMost(1.0),
        )
        .beside("bare lookup of 32-byte rows, one by one", pair.peer_ns, pair.ratio)
        .note(format!("{count} repositories, independent random ids")),
    );
    let spent = allocations(|| {
        reads(&mut router, total, 1_000, independent);
    });
    #[allow(clippy::cast_precision_loss, reason = "a figure to read")]
    let each = spent as f64 / 1_000.0;
    out.push(Row::new("allocations per read decision", each, "allocations", Bound::AtMost(0.0)));
}

/// One write from request to answer: the router's part, with the gates' answers made beforehand in kind.
fn write(router: &mut Router, gates: &mut [FenceGate; 3], request: u64) {
    let asked = router.begin_write(NOW, &WriteRequest::new(RepoId(0), RequestId(request)));
    assert!(asked.is_ok(), "the write is accepted");
    while let Some(effect) = router.poll_effect() {
        match effect {
            Effect::SwapRow { ticket, .. } => {
                router.handle_swap(NOW, ticket, &StoreMeta::new(Generation(1)), &SwapResult::Moved);
            }
            Effect::Grant(grant) => {
                let order = grant.stage(Digest(u128::from(request).to_le_bytes()));
                for gate in gates.iter_mut() {
                    *gate = gate.stage(&order).expect("the gates are at the base");
                    router.handle_report(NOW, None, &gate.report());
                }
            }
            Effect::RaiseGate { node, row, .. } => {
                let gate = &mut gates[node.0 as usize % 3];
                *gate = gate.apply(&row.proof()).expect("the row proves the vote");
                router.handle_report(NOW, None, &gate.report());
            }
            Effect::FetchRow { .. }
            | Effect::FetchFeed { .. }
            | Effect::FetchFamily { .. }
            | Effect::Probe { .. }
            | Effect::Cure { .. }
            | Effect::LeaveNote { .. }
            | Effect::Promise { .. }
            | Effect::Initialise { .. }
            | Effect::Sync { .. }
            | Effect::Answer { .. }
            | Effect::Changed { .. } => {}
        }
    }
}

fn write_rows(scale: Scale, out: &mut Vec<Row>) {
    let mut router = router(1);
    let mut gates = [0, 1, 2].map(|node| {
        let blank = FenceGate::new(RepoId(0), NodeId(node), Incarnation(1));
        blank.raise(&row(0)).and_then(|gate| gate.install(&row(0).proof())).expect("a blank gate")
    });
    let batch = scale.pick(100_000, 20_000);
    let mut request = 0;
    let (mut alone, mut shown) = (gates.clone(), row(0));
    // In short turns, so that what else the machine does falls on both.
    let pair = interleave(
        99,
        || {
            for _ in 0..batch / 20 {
                request += 1;
                write(&mut router, &mut gates, request);
            }
            batch / 20
        },
        || {
            for request in 0..batch as u64 / 20 {
                gates_alone(&mut alone, &mut shown, request);
            }
            batch / 20
        },
    );
    let (whole, nodes) = (pair.subject_ns, pair.peer_ns);
    out.push(
        Row::new("write: grant, votes, commit: the router's part", whole - nodes, "ns", Bound::AtMost(1_000.0)).note(
            format!("{whole:.0} ns with the three gates, which vote and apply in memory, less their {nodes:.0} ns"),
        ),
    );
}

/// What the three nodes' gates do for one write.
fn gates_alone(gates: &mut [FenceGate; 3], row: &mut RepoRow, request: u64) {
    row.fence = row.fence.raised();
    let order = StageOrder { base: row.clone(), digest: Digest(u128::from(request).to_le_bytes()) };
    row.newest = order.stamp();
    for gate in gates.iter_mut() {
        *gate = gate.stage(&order).expect("the gates are at the base");
        let _ = black_box(gate.report());
    }
    for gate in gates {
        *gate = gate.apply(&row.proof()).expect("the row proves the vote");
        let _ = black_box(gate.report());
    }
}

/// Every figure of the crate.
#[must_use]
pub(crate) fn rows(scale: Scale) -> Vec<Row> {
    let mut out = Vec::new();
    read_rows(scale, &mut out);
    write_rows(scale, &mut out);
    shared::rows(scale, &mut out);
    out
}

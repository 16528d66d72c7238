//! `Shared`: decisions from many threads, beside concurrent maps that do the lookup alone.

use std::hash::BuildHasherDefault;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use tenon_quorum::{
    Ask, Config, FenceGate, Freshness, Generation, Incarnation, NodeId, NodeState, ReadRequest, ReadStep, RepoId,
    Row as RepoRow, Shared, StoreMeta,
};

use super::{Mix, NOW, mix, row};
use crate::{Bound, Row, Scale, interleave, median_ns};

/// Two threads meet in one of n stripes with chance 1/n, and whoever waits for a lock waits for a whole decision.
const STRIPES: u32 = 64;

type Papaya = papaya::HashMap<u64, [u64; 4], BuildHasherDefault<Mix>>;
type Dash = dashmap::DashMap<u64, [u64; 4], BuildHasherDefault<Mix>>;

/// A face over 48 nodes in 16 shards, told of `count` repositories, almost all of them at rest.
fn shared(count: usize) -> Shared {
    let config = Config::builder().most_awake(4).build().expect("a valid configuration");
    let shared = Shared::new(&config, STRIPES);
    for node in 0..48 {
        shared.handle_node(NOW, NodeId(node), NodeState::up(Incarnation(1)));
    }
    for repo in 0..count as u64 {
        let row = row(repo);
        shared.of(row.repo, |router| {
            let ask = router.begin_read();
            router.handle_row(NOW, ask, &StoreMeta::new(Generation(1)), row.repo, Some(&row));
            for member in &row.members {
                let blank = FenceGate::new(row.repo, member.node, Incarnation(1));
                let gate = blank.raise(&row).and_then(|gate| gate.install(&row.proof()));
                router.handle_report(NOW, None, &gate.expect("a blank gate takes the first state").report());
            }
            while router.poll_effect().is_some() {}
        });
    }
    shared
}

fn decide(shared: &Shared, repo: u64) -> u64 {
    let request =
        ReadRequest::linearizable(RepoId(repo), Ask(1)).freshness(Freshness::BoundedStale { age_ms: 1_000_000 });
    match shared.route_read(NOW, &request) {
        Ok(ReadStep::Serve(route)) => u64::from(route.node.0),
        Ok(ReadStep::First(_)) | Err(_) => u64::MAX,
    }
}

fn reads(shared: &Shared, count: u64, from: usize, batch: usize) -> usize {
    let mut last = 0;
    for i in from..from + batch {
        last = decide(shared, mix(i as u64) % count);
        assert!(last != u64::MAX, "every read is served");
    }
    black_box(last);
    batch
}

fn lookups(count: u64, batch: usize, get: impl Fn(&u64) -> Option<u64>) -> usize {
    let mut last = 0;
    for i in 0..batch as u64 {
        last = get(&(mix(i) % count)).unwrap_or(0);
    }
    black_box(last);
    batch
}

/// Another router raised the fence of a repository: this one is told the row, as it is at the next write.
fn told(shared: &Shared, rows: &mut [RepoRow], turn: usize) {
    let at = turn % rows.len();
    let row = &mut rows[at];
    row.fence.counter += 1;
    shared.of(row.repo, |router| {
        let ask = router.begin_read();
        router.handle_row(NOW, ask, &StoreMeta::new(Generation(1)), row.repo, Some(row));
    });
}

/// `threads` threads take reads in portions until all are done; the first of them tells one row for nine reads of all.
fn mixed(shared: &Shared, rows: &mut [RepoRow], count: u64, batch: usize, threads: usize) -> usize {
    const PORTION: usize = 90;
    let taken = AtomicUsize::new(0);
    let take = || taken.fetch_add(PORTION, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                for from in std::iter::repeat_with(take).take_while(|from| *from < batch) {
                    reads(shared, count, from, PORTION);
                }
            });
        }
        let mut written = 0;
        loop {
            while written * 9 < taken.load(Ordering::Relaxed).min(batch) {
                told(shared, rows, written);
                written += 1;
            }
            let from = take();
            if from >= batch {
                break;
            }
            reads(shared, count, from, PORTION);
        }
    });
    batch
}

pub(super) fn rows(scale: Scale, out: &mut Vec<Row>) {
    let count = scale.pick(10_000_000, 1_000_000);
    let batch = scale.pick(1_000_000, 200_000);
    let ids = 0..count as u64;
    let shared = shared(count);
    let papaya: Papaya = ids.clone().map(|repo| (repo, [repo, 1, 2, 3])).collect();
    let dash: Dash = ids.map(|repo| (repo, [repo, 1, 2, 3])).collect();
    let count = count as u64;
    // A guard per look-up, as a server takes one per request: one that is kept holds back all that was removed since.
    let by_papaya = || lookups(count, batch, |repo| papaya.pin().get(repo).map(|row| row[0]));
    let by_dash = || lookups(count, batch, |repo| dash.get(repo).map(|row| row[0]));
    let pinned = papaya.pin();
    let kept = median_ns(3, || lookups(count, batch, |repo| pinned.get(repo).map(|row| row[0])));
    let kept = format!(", papaya under one guard kept throughout {} ns", crate::short(kept));
    drop(pinned);
    let mut beside = |name: &str, pair: crate::Pair, other: f64, bound: Bound| {
        out.push(
            Row::new(format!("read decision through Shared, beside {name}"), pair.subject_ns, "ns", bound)
                .beside(&format!("{name}, lookup alone"), pair.peer_ns, pair.ratio)
                .note(format!("{count} repositories; the other map {} ns{kept}", crate::short(other))),
        );
    };
    let (papaya_ns, dash_ns) = (median_ns(3, by_papaya), median_ns(3, by_dash));
    if papaya_ns < dash_ns {
        let pair = interleave(9, || reads(&shared, count, 0, batch), by_papaya);
        beside("papaya", pair, dash_ns, Bound::RatioAtMost(1.3));
    } else {
        let pair = interleave(9, || reads(&shared, count, 0, batch), by_dash);
        beside("dashmap", pair, papaya_ns, Bound::RatioAtMost(1.3));
    }
    let mut told: Vec<RepoRow> = (0..1_024).map(|i| row(mix(i) % count)).collect();
    told.sort_unstable_by_key(|row| row.repo);
    told.dedup_by_key(|row| row.repo);
    let told = std::cell::RefCell::new(told);
    let on = |threads| mixed(&shared, &mut told.borrow_mut(), count, batch, threads);
    let pair = interleave(9, || on(1), || on(2));
    out.push(Row::new("reads with one writer at 10 %, two threads", pair.ratio, "x", Bound::AtLeast(1.7)).note(
        format!("one thread {} ns a read, two {} ns", crate::short(pair.subject_ns), crate::short(pair.peer_ns)),
    ));
}

//! `tenon-scaler`: a tick over a fleet of groups, one decision, one pass of an HPA, and a day's rehearsal.

mod fleet;
mod taxi;

use std::hint::black_box;

use tenon_scaler::forecast::Series;
use tenon_scaler::hpa::{Deletion, Kind, Measured, Phase, Pod, PodSample, Pods, ReadyCondition, Requests, View};
use tenon_scaler::recommend::{Objective, recommend};
use tenon_scaler::{
    Authority, Group, GroupId, GroupState, Inputs, Limits, MetricId, Milli, ReleaseId, Sample, ShapeId, Skip, TenantId,
    Timestamp, Traffic, ZoneId, Zones, decide, hpa,
};

use self::fleet::{Mix, demand, fleet, policy};
use crate::{Bound, Row, Scale, median_ns};

const LOAD: MetricId = MetricId(1);

/// Every figure of the crate.
pub(crate) fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = vec![one_decision(), one_hpa_pass(), fleet::live_tick(scale)];
    rows.extend(fleet::rehearsal(scale));
    rows.push(admission(scale));
    rows.extend(taxi::rows());
    rows.push(recommendation());
    rows
}

fn one_decision() -> Row {
    let policy = policy(1, Mix::Rehearsed);
    let group = Group::new(policy, &Zones::new(), Limits::default()).unwrap_or_else(|error| unreachable!("{error}"));
    let mut state = GroupState::new(&group, 10);
    let mut now = Timestamp::from_millis(1);
    let ns = median_ns(21, || {
        for round in 0..20_000_i64 {
            now = now.after_millis(15_000);
            let samples = [Some(Sample { at: now, value: Milli::from_units(30 + round % 45), over: 10 })];
            let inputs = Inputs { ready: state.target(), samples: &samples, ..Inputs::default() };
            let (decision, next) = decide(&group, &state, &inputs, now);
            state = next;
            black_box(&decision);
        }
        20_000
    });
    Row::new("one decision with its record, threshold", ns, "ns", Bound::AtMost(150.0))
}

fn one_hpa_pass() -> Row {
    let now = Timestamp::from_millis(1_000_000_000);
    let since = Timestamp::from_millis(1);
    let pods: Vec<Pod> = (0..10)
        .map(|id| Pod {
            id,
            phase: Phase::Running,
            ready: ReadyCondition::Ready(since),
            started: Some(since),
            deletion: Deletion::None,
            requests: Requests::of(Some(1000)),
        })
        .collect();
    let samples: Vec<PodSample> =
        (0..10).map(|pod| PodSample { pod, value: 400 + i64::from(pod) * 30, at: now, window_ms: 60_000 }).collect();
    let metrics = vec![hpa::Metric::new(Kind::CpuUtilization, 50)];
    let spec = hpa::Spec { min: 1, max: 100, metrics, ..hpa::Spec::default() };
    let measured = [Measured::Pods(&samples)];
    let view = View { spec_replicas: 10, status_replicas: 10, pods: Pods(&pods), measured: &measured };
    let mut state = hpa::State::default();
    let mut at = now;
    let ns = median_ns(21, || {
        for _ in 0..5_000 {
            at = at.after_millis(15_000);
            let (replicas, _, next) = hpa::reconcile(&spec, &state, black_box(&view), at);
            state = next;
            black_box(replicas);
        }
        5_000
    });
    Row::new("one HPA pass, 10 pods, 5 min window", ns, "ns", Bound::AtMost(1000.0))
}

/// Rules for one service, searched on three weeks and tested on a fourth.
fn recommendation() -> Row {
    let values = (0..28 * 288_u64).map(|step| {
        let (day, at) = (step / 288 % 7, Timestamp::from_millis(step % 288 * 300_000));
        let weekend = if day < 5 { 3 } else { 2 };
        Some(Milli::from_thousandths(demand(at, u32::try_from(day).unwrap_or(0)) * weekend))
    });
    let history =
        Series::new(Timestamp::ZERO, 300_000, values.collect()).unwrap_or_else(|error| unreachable!("{error}"));
    let objective = Objective {
        per_instance: Milli::from_units(40),
        start_ms: 300_000,
        shortage_millionths: 5_000,
        min: 1,
        max: 500,
        zone: ZoneId(0),
        test_days: 7,
    };
    let mut note = String::new();
    let ms = median_ns(5, || {
        match recommend(black_box(&history), &objective, &Zones::new()) {
            Ok(found) => {
                note = format!(
                    "{:?}, {} candidates; on held-out days {} per mille saved at {} millionths short",
                    found.family,
                    found.tried,
                    found.saves_permille(),
                    found.tested.shortage_millionths()
                );
            }
            Err(error) => note = error.to_string(),
        }
        1
    }) / 1e6;
    Row::new("recommendation for one service, 28 days of 5 min data", ms, "ms", Bound::AtMost(100.0)).note(note)
}

fn admission(scale: Scale) -> Row {
    let groups = u32::try_from(scale.pick(100_000, 10_000)).unwrap_or(0);
    let mut engine = fleet(0..0, Skip::Proven, Mix::Rehearsed);
    let traffic =
        |at| Traffic { id: GroupId(at), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) };
    let upper: Vec<u32> = (0..288).map(|slot| 5 + slot / 48).collect();
    let now = Timestamp::ZERO;
    for at in 0..groups {
        let _ = engine.admit(now, traffic(at), policy(at, Mix::Rehearsed), &upper, Authority::Owner);
    }
    let mut turn = 0;
    let ns = median_ns(21, || {
        for _ in 0..200 {
            turn = (turn + 7919) % groups;
            let verdict =
                engine.admit(now, traffic(turn), policy(turn + 1, Mix::Rehearsed), black_box(&upper), Authority::Owner);
            let _ = black_box(verdict);
        }
        200
    });
    Row::new(format!("admission of one change among {groups} admitted"), ns / 1000.0, "us", Bound::AtMost(10.0))
        .note("three pools, 288 slots of five minutes")
}

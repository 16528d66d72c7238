//! Others' autoscalers inside the engine: a group with an HPA or a KPA rule is sized as the original sizes it, step by step
//! over random histories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{Dice, pod_samples, pods, rate, seeds};
use tenon_scaler::hpa::{self, Kind, Measured, Pods, Rules, View};
use tenon_scaler::kpa;
use tenon_scaler::strategy::{Evidence, Guard, Hpa, Kpa, Strategy};
use tenon_scaler::{
    Behavior, Fleet, Group, GroupState, Inputs, Limits, Metric, MetricId, Milli, Pace, Policy, Rate, Rule, RuleId,
    RuleKind, Sample, Staleness, Timestamp, Zones, decide,
};

const TICK_MS: u64 = 15_000;

fn group(strategies: Vec<Strategy>, (min, max): (u32, u32), behavior: Behavior) -> Group {
    let id = |at: usize| u16::try_from(at).unwrap();
    let metric = |at| Metric { id: MetricId(id(at)), stale_after_ms: 600_000, when_stale: Staleness::ForbidIn };
    let policy = Policy {
        min,
        max,
        metrics: (0..strategies.len()).map(metric).collect(),
        rules: strategies
            .into_iter()
            .enumerate()
            .map(|(at, strategy)| Rule { id: RuleId(id(at)), kind: RuleKind::Metric(MetricId(id(at)), strategy) })
            .collect(),
        behavior,
        ..Policy::default()
    };
    Group::new(policy, &Zones::new(), Limits::default()).unwrap()
}

fn rules(pace: &Pace) -> Rules {
    // The original has no "no limit": a policy that allows everything stands for it.
    let everything = hpa::Policy { kind: hpa::PolicyKind::Pods, value: 1_000_000, period_ms: 1 };
    let (select, policies) = match &pace.rate {
        Some(Rate { select, policies }) => (*select, policies.clone()),
        None => (hpa::Select::Max, vec![everything]),
    };
    Rules { select, policies, stabilization_ms: pace.stabilize_ms }
}

#[test]
fn an_hpa_rule_sizes_a_group_as_the_original_does() {
    let moves = core::cell::Cell::new(0);
    seeds(150, |seed| {
        let mut dice = Dice(seed);
        let target = |kind| if matches!(kind, Kind::CpuUtilization | Kind::Utilization) { 60 } else { 900 };
        let of_pods = [Kind::CpuUtilization, Kind::Utilization, Kind::CpuAverage, Kind::PodsAverage];
        let kinds = [dice.pick(&of_pods), dice.pick(&[Kind::Value, Kind::AverageValue])];
        let metrics: Vec<hpa::Metric> = kinds.iter().map(|kind| hpa::Metric::new(*kind, target(*kind))).collect();
        let pace = |dice: &mut Dice| Pace {
            stabilize_ms: dice.pick(&[0, 60_000, 300_000]),
            rate: rate(dice),
            ..Pace::default()
        };
        let behavior = if dice.below(3) == 0 {
            dice.pick(&[Behavior::kubernetes as fn() -> Behavior, Behavior::kubernetes_unset])()
        } else {
            Behavior { out: pace(&mut dice), inward: pace(&mut dice), ..Behavior::default() }
        };
        let unset = behavior == Behavior::kubernetes_unset();
        let (min, max) = (1 + dice.small(3), 4 + dice.small(60));
        let spec = hpa::Spec {
            min,
            max,
            metrics: metrics.clone(),
            behavior: (!unset).then(|| (rules(&behavior.out), rules(&behavior.inward))),
            ..hpa::Spec::default()
        };
        let group = group(
            metrics.iter().map(|metric| Strategy::Hpa(Hpa { guard: Guard::Off, ..Hpa::new(*metric) })).collect(),
            (min, max),
            behavior,
        );
        let mut state = GroupState::new(&group, min);
        let mut original = hpa::State::default();
        let mut now = Timestamp::from_millis(1_000_000_000);
        for _ in 0..150 {
            now = now.after_millis(TICK_MS);
            let current = state.target();
            let mut pods = pods(&mut dice, now);
            let mut samples = pod_samples(&mut dice, now);
            if dice.below(3) > 0 {
                for pod in &mut pods {
                    pod.requests = hpa::Requests::of(Some(1_000));
                }
                pods.push(hpa::Pod { id: 90, ..support::serving(now) });
                samples.push(hpa::PodSample { pod: 90, value: 300, at: now, window_ms: 30_000 });
            }
            let outside = i64::from(dice.small(40_000));
            let measured = [Measured::Pods(&samples), Measured::Values(&[outside])];
            let view =
                View { spec_replicas: current, status_replicas: current, pods: Pods(&pods), measured: &measured };
            let (replicas, outcome, next) = hpa::reconcile(&spec, &original, &view, now);
            original = next;

            let fleet = Fleet { at: now, pods: pods.clone(), samples: vec![samples.clone()] };
            let value = Sample { at: now, value: Milli::from_thousandths(outside), over: 0 };
            let inputs =
                Inputs { ready: current, starting: 0, samples: &[Some(value), Some(value)], fleet: Some(&fleet) };
            let (decision, after) = decide(&group, &state, &inputs, now);
            state = after;
            assert_eq!(decision.target, replicas, "{outcome:?}\n{}", decision.explain());
            assert_eq!(decision.verify(), Ok(()));
            moves.set(moves.get() + u32::from(decision.target != decision.previous));
        }
    });
    assert!(moves.get() > 1_000, "{} moves", moves.get());
}

#[test]
fn a_kpa_rule_sizes_a_group_as_the_original_does() {
    let panics = core::cell::Cell::new(0);
    seeds(60, |seed| {
        let mut dice = Dice(seed);
        let rule = Kpa {
            scale_down_delay_ms: dice.pick(&[0, 20_000]),
            activation_scale: dice.pick(&[1, 4]),
            ..Kpa::new(Milli::from_units(10), Milli::from_units(20))
        };
        let spec = kpa::Spec {
            target: 10.0,
            total: 20.0,
            target_burst_capacity: 211.0,
            panic_threshold: 2.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            stable_window_ms: 60_000,
            scale_down_delay_ms: u64::from(rule.scale_down_delay_ms),
            reach: kpa::Reach::Reachable,
            activation_scale: rule.activation_scale,
        };
        let group = group(vec![Strategy::Kpa(rule)], (0, 10_000), Behavior::default());
        let mut now = Timestamp::from_millis(1_000_000_000);
        let ready = dice.small(5);
        let mut state = GroupState::new(&group, ready);
        let mut original = kpa::State::new(&spec, ready, now);
        let (mut stable, mut burst) = (kpa::Buckets::new(60_000, 1_000), kpa::Buckets::new(6_000, 1_000));
        let mut ready = ready;
        let mut load = 10_u32;
        for second in 0..600_u32 {
            if second % 40 == 0 {
                load = dice.pick(&[0, 3, 10, 60, 400, 2_000]);
            }
            let value = load + dice.small(5);
            stable.record(now, f64::from(value));
            burst.record(now, f64::from(value));
            let sample = Sample { at: now, value: Milli::from_units(value.into()), over: ready };
            state.observe(&group, 0, sample, ready);
            if second % 2 == 0 {
                let scaled = original.scale(&spec, ready, stable.average(now), burst.average(now), now);
                let inputs = Inputs { ready, samples: &[Some(sample)], ..Inputs::default() };
                let (decision, next) = decide(&group, &state, &inputs, now);
                state = next;
                assert_eq!(decision.target, scaled.pods, "second {second}\n{}", decision.explain());
                assert_eq!(decision.verify(), Ok(()));
                let Evidence::Kpa(evidence) = &decision.lines.rules[0].evidence else { panic!("no evidence of a KPA") };
                panics.set(panics.get() + u32::from(evidence.before.since.is_some()));
                // Instances come within two decisions.
                ready = u32::midpoint(ready, decision.target + u32::from(ready < decision.target));
            }
            now = now.after_millis(1_000);
        }
    });
    assert!(panics.get() > 100, "{} decisions in a panic", panics.get());
}

/// Of a group without instances, metrics of pods measure nothing, whether the host tells of pods or not; a metric from outside
/// brings the group up.
#[test]
fn from_zero_a_metric_from_outside_grows_and_one_of_pods_does_not() {
    let rule = |kind, target| Strategy::Hpa(Hpa::new(hpa::Metric::new(kind, target)));
    let now = Timestamp::from_millis(1_000_000_000);
    let sample = |units, over| Some(Sample { at: now, value: Milli::from_units(units), over });
    let no_pods = Fleet { at: now, ..Fleet::default() };
    for of_pods in [Kind::CpuUtilization, Kind::Utilization, Kind::CpuAverage, Kind::PodsAverage] {
        for (outside, expected) in [(None, 0), (sample(35, 0), 4)] {
            let strategies = vec![rule(of_pods, 50), rule(Kind::AverageValue, 10_000)];
            let group = group(strategies, (0, 9), Behavior::kubernetes());
            for fleet in [None, Some(&no_pods)] {
                let inputs = Inputs { ready: 0, starting: 0, samples: &[sample(9_000, 0), outside], fleet };
                let (decision, _) = decide(&group, &GroupState::new(&group, 0), &inputs, now);
                assert_eq!(decision.target, expected, "{of_pods:?}\n{}", decision.explain());
            }
        }
    }
}

/// A pod of which one container was not measured has no sample; a metric of one container fails where that one was not told.
#[test]
fn containers_that_were_not_measured_count_as_in_the_original() {
    let of = |container, value| hpa::ContainerSample { container, value };
    let (web, proxy, unmeasured) = (of(1, Some(300)), of(2, Some(50)), of(2, None));
    assert_eq!(hpa::value_of_containers(&[web, proxy], None), Ok(Some(350)));
    assert_eq!(hpa::value_of_containers(&[web, unmeasured], None), Ok(None));
    assert_eq!(hpa::value_of_containers(&[], None), Ok(None));
    assert_eq!(hpa::value_of_containers(&[web, unmeasured], Some(1)), Ok(Some(300)));
    assert_eq!(hpa::value_of_containers(&[web, unmeasured], Some(2)), Ok(None));
    assert_eq!(hpa::value_of_containers(&[web], Some(2)), Err(hpa::MetricError::Source));
}

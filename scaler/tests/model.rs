//! A group's decisions against a naive reference that keeps its whole history and scans it anew for every answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use jiff::civil::time;
use support::{Dice, seeds};
use tenon_scaler::strategy::{Change, QueueLength, Strategy, Threshold, Trigger};
use tenon_scaler::{
    Behavior, Days, Group, GroupState, Inputs, Limits, Metric, MetricId, Milli, Override, Pace, Policy, Rule, RuleId,
    RuleKind, Sample, Staleness, Timestamp, Window, ZoneId, Zones, decide,
};

/// What the reference is set up with, in plain numbers; times in ms, the floor's and the delta's in hours of the day.
#[derive(Clone, Copy, Debug)]
struct Setup {
    min: u32,
    max: u32,
    per: i64,
    above: i64,
    below: i64,
    need: usize,
    of: usize,
    by: u32,
    cooldown: [u64; 2],
    window: [u64; 2],
    stale: u64,
    floor: (u64, u64, u32),
    delta: (u64, u64, i32),
}

#[derive(Debug, Default)]
struct Model {
    depth: Vec<(u64, i64)>,
    age: Vec<(u64, i64)>,
    /// From when on samples of the second metric count for the threshold.
    fresh_from: usize,
    /// What metric rules wanted, for growing; what all wanted, for shrinking.
    wanted: [Vec<(u64, u32)>; 2],
    moved: [Option<u64>; 2],
    base: u32,
    share: Option<i32>,
}

fn less(size: u32, share: i32) -> u32 {
    u32::try_from((i64::from(size) - i64::from(share)).max(0)).unwrap()
}

impl Model {
    fn decide(&mut self, set: &Setup, now: u64, ready: u32, target: u32, by_hand: Option<u32>) -> u32 {
        let hour = now / 3_600_000 % 24;
        let inside = |from: u64, until: u64| from <= hour && hour < until;
        // The delta: what it gave before and gives still is not for metric rules to say.
        let before = self.share;
        self.share = inside(set.delta.0, set.delta.1).then(|| {
            self.share.unwrap_or_else(|| {
                let spare = i32::try_from(self.base - set.min).unwrap();
                if set.delta.2 >= 0 { set.delta.2 } else { -spare.min(-set.delta.2) }
            })
        });
        let share = self.share.unwrap_or(0);
        let kept = if before.is_some() { share } else { 0 };
        let ended = before.is_some_and(|before| before > 0) && self.share.is_none();
        let size = less(target, kept).max(self.base.min(target)).max(set.min);
        // The metric rules.
        let (wants, broken, fired) = self.rules(set, now, (size, less(ready + size, 0).saturating_sub(target)));
        let spoken = !wants.is_empty();
        let mut metric = wants.into_iter().max().unwrap_or(self.base);
        if broken {
            metric = metric.max(size);
        }
        metric = metric.clamp(set.min, set.max);
        let floor = if inside(set.floor.0, set.floor.1) { set.floor.2 } else { 0 }.max(set.min);
        let sum = |metric: u32| less(metric, -share).max(floor);
        // The windows begin with the size that there is, and count it once more where a share has ended.
        let all = less(by_hand.unwrap_or(sum(metric)), share);
        for (log, want) in self.wanted.iter_mut().zip([metric, all]) {
            if log.is_empty() {
                log.push((now, size));
            }
            log.push((now, want));
        }
        if ended {
            self.wanted[1].push((now, size));
        }
        let within = |at: usize| {
            self.wanted[at].iter().filter(move |(when, _)| now - when < set.window[at]).map(|(_, size)| *size)
        };
        let cool = |at: usize| self.moved[at].is_none_or(|when| now - when >= set.cooldown[at]);
        if metric > size {
            metric = metric.min(within(0).min().unwrap_or(metric)).max(size);
            metric = if cool(0) { metric } else { size };
        }
        // What all want, on a way down that is held back, too.
        let (mut total, reference) = (sum(metric), less(size, -share));
        if total < reference {
            total = total.max(less(within(1).max().unwrap_or(0), -share).min(reference));
            total = if cool(1) { total } else { reference };
        }
        let total = by_hand.unwrap_or(total.min(set.max));
        if total < target {
            self.moved[1] = Some(now);
        } else if total > target && metric > size {
            self.moved[0] = Some(now);
        }
        if fired && total != target {
            self.fresh_from = self.age.len();
        }
        if spoken {
            self.base = metric.max(self.base.min(less(total, share))).clamp(set.min, set.max);
        }
        total
    }

    /// What the two rules want, whether one is broken, and whether the second moves the group.
    fn rules(&mut self, set: &Setup, now: u64, (size, ready): (u32, u32)) -> (Vec<u32>, bool, bool) {
        let (mut wants, mut broken, mut fired) = (vec![], false, false);
        match self.depth.last().filter(|(at, _)| now - at < set.stale) {
            Some((_, depth)) => wants.push(u32::try_from((depth + set.per - 1) / set.per).unwrap()),
            None => broken = true,
        }
        if self.age.last().is_some_and(|(at, _)| now - at < set.stale) {
            let from = self.fresh_from.max(self.age.len().saturating_sub(set.of));
            let past = |test: &dyn Fn(i64) -> bool| self.age[from..].iter().filter(|(_, age)| test(*age)).count();
            if past(&|age| age > set.above) >= set.need {
                fired = true;
                wants.push((ready.min(size) + set.by).max(size));
            } else if past(&|age| age < set.below) >= set.need {
                fired = true;
                wants.push(size.saturating_sub(set.by));
            } else {
                wants.push(size);
            }
        } else {
            broken = true;
            self.fresh_from = self.age.len();
        }
        (wants, broken, fired)
    }
}

fn window(from: u64, until: u64) -> Window {
    let hour = |hour: u64| time(i8::try_from(hour % 24).unwrap(), 0, 0, 0);
    Window { zone: ZoneId(0), days: Days::Every, from: hour(from), until: hour(until), lead_ms: 0 }
}

fn group(set: &Setup) -> Group {
    let metric = |id| Metric { id: MetricId(id), stale_after_ms: set.stale, when_stale: Staleness::ForbidIn };
    let pace = |at: usize| Pace { cooldown_ms: set.cooldown[at], stabilize_ms: set.window[at], rate: None };
    let side = |past: i64| Some(Trigger { past: Milli::from_units(past), by: Change::Count(set.by) });
    let threshold = Threshold {
        out: side(set.above),
        inward: side(set.below),
        need: u8::try_from(set.need).unwrap(),
        of: u8::try_from(set.of).unwrap(),
    };
    let queue = QueueLength { per_instance: Milli::from_units(set.per) };
    let kinds = [
        RuleKind::Metric(MetricId(1), Strategy::QueueLength(queue)),
        RuleKind::Metric(MetricId(2), Strategy::Threshold(threshold)),
        RuleKind::Floor(window(set.floor.0, set.floor.1), set.floor.2),
        RuleKind::Delta(window(set.delta.0, set.delta.1), set.delta.2),
    ];
    let policy = Policy {
        min: set.min,
        max: set.max,
        rank: 0,
        metrics: vec![metric(1), metric(2)],
        rules: (0..).zip(kinds).map(|(id, kind)| Rule { id: RuleId(id), kind }).collect(),
        behavior: Behavior { out: pace(0), inward: pace(1), ..Behavior::default() },
        ..Policy::default()
    };
    Group::new(policy, &Zones::new(), Limits::default()).unwrap()
}

fn setup(dice: &mut Dice) -> Setup {
    let min = dice.small(5);
    let of = 1 + usize::try_from(dice.below(4)).unwrap();
    let hours = |dice: &mut Dice| {
        let from = dice.below(22);
        (from, from + 1 + dice.below(23 - from))
    };
    let (floor, delta) = (hours(dice), hours(dice));
    Setup {
        min,
        max: min + dice.small(40),
        per: 1 + i64::from(dice.small(5)),
        above: 60,
        below: 20,
        need: 1 + usize::try_from(dice.below(of as u64)).unwrap(),
        of,
        by: 1 + dice.small(4),
        cooldown: [dice.pick(&[0, 60_000, 200_000]), dice.pick(&[0, 60_000, 500_000])],
        window: [dice.pick(&[0, 0, 90_000]), dice.pick(&[0, 300_000, 1_000_000])],
        stale: dice.pick(&[40_000, 200_000]),
        floor: (floor.0, floor.1, dice.small(30)),
        delta: (delta.0, delta.1, i32::try_from(dice.below(20)).unwrap() - 10),
    }
}

#[test]
fn decisions_are_those_of_the_reference() {
    seeds(100, |seed| {
        let mut dice = Dice(seed);
        let set = setup(&mut dice);
        let group = group(&set);
        let mut state = GroupState::new(&group, set.min);
        let mut model = Model { base: set.min, ..Model::default() };
        let (mut target, mut delivered) = (set.min, set.min);
        let mut samples = [None, None];
        let mut by_hand = None;
        // Three days, in ticks of different lengths.
        for now in (0..1500)
            .scan(0, |now: &mut u64, _| {
                *now += dice.pick(&[15_000, 15_000, 15_000, 60_000, 600_000]);
                Some(*now)
            })
            .collect::<Vec<_>>()
        {
            if dice.below(4) > 0 {
                let depth = i64::from(dice.small(60));
                samples[0] = Some(Sample { at: Timestamp::from_millis(now), value: Milli::from_units(depth), over: 1 });
                model.depth.push((now, depth));
            }
            if dice.below(4) > 0 {
                let age = i64::from(dice.small(80));
                samples[1] = Some(Sample { at: Timestamp::from_millis(now), value: Milli::from_units(age), over: 1 });
                model.age.push((now, age));
            }
            if dice.below(50) == 0 {
                by_hand = (dice.below(2) == 0).then(|| dice.small(9));
                state.set_by_hand(by_hand.map(|count| Override { count, until: Timestamp::MAX }));
            }
            let inputs = Inputs { ready: delivered, samples: &samples, ..Inputs::default() };
            let (decision, next) = decide(&group, &state, &inputs, Timestamp::from_millis(now));
            let expected = model.decide(&set, now, delivered, target, by_hand);
            assert_eq!(decision.target, expected, "at {now}\n{set:?}\n{}", decision.explain());
            assert_eq!(decision.verify(), Ok(()));
            (state, target) = (next, decision.target);
            // Pools sometimes deliver a part only.
            delivered = if dice.below(5) == 0 { target.min(delivered + 1) } else { target };
        }
    });
}

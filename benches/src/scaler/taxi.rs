//! What head-room costs: seven months of New York taxis, the first three quarters of the days to learn from, the rest to
//! be judged on. An instance carries 500 passengers a half hour and takes five minutes to start.
//!
//! Every contestant is a rule of the same engine, rehearsed over the same days, so that none is charged otherwise than
//! another; each is a curve over its own settings, and at a level of shortage the cheapest setting within it counts. The
//! baselines are searched on the very days they are judged on, which is more than anybody who runs them can do.
//!
//! * *Plan*: this crate's forecast, corrected by the day so far, at a quantile of its own band: one knob.
//! * *HPA*: the horizontal pod autoscaler's own rule on the load per pod, over targets, tolerances and windows.
//! * *Weekly maximum*: for each half hour of the week the most that was seen, times a factor.
//! * *Fixed*: the same number at all times.
//!
//! A rate that is measured at once favours who reacts; a count is known when its half hour is over. Both are shown.

use std::fmt::Write as _;

use tenon_scaler::forecast::{Forecast, Nowcast, Series};
use tenon_scaler::hpa::{self, Kind, Tolerance};
use tenon_scaler::strategy::{Hpa, Strategy};
use tenon_scaler::{
    Behavior, Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Pace, Policy, Pool, PoolId, PoolKind,
    Progress, Records, Refused, Rehearsal, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, TenantId, Timestamp,
    Traffic, VersionId, Watermark, World,
};

use crate::{Bound, Row};

const HALF_HOUR_MS: u64 = 1_800_000;
const START_MS: u64 = 300_000;
/// Looks within a half hour.
const LOOKS: usize = 6;
const DAY: usize = 48;
const WEEK: usize = 7 * DAY;
const CARRIES: u64 = 500;
const GROUP: GroupId = GroupId(1);
const LOAD: MetricId = MetricId(1);
/// The levels of shortage, in thousandths of the time.
const LEVELS: [u32; 6] = [1, 2, 5, 10, 20, 50];

/// When a measurement is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    /// The present rate.
    AtOnce,
    /// The count of a half hour, when that is over.
    Late,
}

impl News {
    fn lag(self) -> usize {
        match self {
            Self::AtOnce => 0,
            Self::Late => 1,
        }
    }
}

/// What one setting came to: instance-hours over those that were needed, and the share of the time in shortage.
#[derive(Clone, Copy)]
struct Outcome {
    cost: f64,
    shortage: f64,
}

/// The passengers of each half hour; `first` is where the days to be judged on begin.
struct Taxi {
    values: Vec<u64>,
    first: usize,
}

impl Taxi {
    fn new() -> Self {
        let text = include_str!("../../../scaler/tests/data/nyc_taxi.csv");
        let values: Vec<u64> =
            text.lines().skip(1).filter_map(|line| line.split_once(',')?.1.trim().parse().ok()).collect();
        let first = values.len() / DAY * 3 / 4 * DAY;
        Self { values, first }
    }

    fn need(&self, place: usize) -> u32 {
        instances(self.values[place])
    }

    fn known(&self, place: usize, news: News) -> u64 {
        self.values[place - news.lag()]
    }

    fn perfect(&self) -> f64 {
        (self.first..self.values.len()).map(|place| f64::from(self.need(place))).sum()
    }
}

fn instances(passengers: u64) -> u32 {
    u32::try_from(passengers.div_ceil(CARRIES)).unwrap_or(u32::MAX)
}

fn milli(value: u64) -> Milli {
    Milli::from_units(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The world as a contestant sees it: the load per instance, or the count that a plan has for each look.
struct Seen<'a> {
    taxi: &'a Taxi,
    news: News,
    plan: Option<&'a [u32]>,
}

impl World for Seen<'_> {
    fn measure(&mut self, at: Timestamp, _: GroupId, _: MetricId, ready: u32) -> Option<Milli> {
        let place = place(at);
        if let Some(plan) = self.plan {
            let look = usize::try_from(at.as_millis() % HALF_HOUR_MS / START_MS).ok()?;
            return plan.get((place - self.taxi.first) * LOOKS + look).map(|count| milli(u64::from(*count)));
        }
        let load = i64::try_from(self.taxi.known(place, self.news) * 1000).ok()?;
        Some(Milli::from_thousandths(load / i64::from(ready.max(1))))
    }

    fn needed(&mut self, at: Timestamp, _: GroupId) -> u32 {
        self.taxi.need(place(at))
    }
}

fn place(at: Timestamp) -> usize {
    usize::try_from(at.as_millis() / HALF_HOUR_MS).unwrap_or(usize::MAX)
}

fn policy(strategy: Strategy, stabilize_ms: u64) -> Policy {
    Policy {
        max: 1_000,
        metrics: vec![Metric { id: LOAD, stale_after_ms: 2 * START_MS, when_stale: Staleness::ForbidIn }],
        rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(LOAD, strategy) }],
        behavior: Behavior { inward: Pace { stabilize_ms, ..Pace::default() }, ..Behavior::default() },
        ..Policy::default()
    }
}

/// Runs one policy over the days to be judged on, from a fleet that stands at `size`.
fn judge(taxi: &Taxi, policy: Policy, size: u32, mut world: Seen<'_>) -> Outcome {
    let from = Timestamp::from_millis(HALF_HOUR_MS * taxi.first as u64);
    let until = Timestamp::from_millis(HALF_HOUR_MS * taxi.values.len() as u64);
    let before = Timestamp::from_millis(from.as_millis() - START_MS);
    let mut engine = standing(before, size).unwrap_or_else(|error| unreachable!("{error}"));
    engine.put_group(before, traffic(), policy).unwrap_or_else(|error| unreachable!("{error}"));
    let run = Rehearsal { from, until, sample_ms: START_MS, start_ms: START_MS, ..Rehearsal::default() };
    let report = engine.rehearse(run, &mut world);
    let hours = |ms: u128| f64::from(u32::try_from(ms / 1000).unwrap_or(u32::MAX)) / 3600.0;
    Outcome {
        cost: hours(report.instance_ms()) / (taxi.perfect() / 2.0),
        shortage: hours(u128::from(report.shortage_ms)) / hours(u128::from(until.millis_since(from))),
    }
}

fn traffic() -> Traffic {
    Traffic { id: GROUP, idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) }
}

/// An engine whose one group has `size` instances.
fn standing(now: Timestamp, size: u32) -> Result<Engine, Refused> {
    let config = Config::builder().tick_ms(START_MS).records(Records::None).build();
    let mut engine = Engine::new(config.unwrap_or_else(|error| unreachable!("{error}")));
    let (kind, watermark, stock) = (PoolKind::Resident, Watermark::default(), vec![(ShapeId(1), 100_000)]);
    engine.put_pool(now, Pool { id: PoolId(1), kind, idc: IdcId(1), price: 1, watermark, stock })?;
    engine.put_release(now, ReleaseId(1), VersionId(1));
    engine.put_group(now, traffic(), policy(Strategy::Given, 0))?;
    engine.handle_sample(now, GROUP, LOAD, now, Some(milli(u64::from(size))));
    engine.handle_timeout(now);
    while let Some(effect) = engine.poll_effect() {
        if let Effect::Launch { request, count, .. } = effect {
            engine.handle_launch(now, request, Progress::done(count));
        }
    }
    Ok(engine)
}

fn of_plan(taxi: &Taxi, news: News, plan: &[u32]) -> Outcome {
    judge(taxi, policy(Strategy::Given, 0), plan[0], Seen { taxi, news, plan: Some(plan) })
}

/// A plan by looks from what is wanted in each half hour: who is wanted in the next is asked for one start before it.
fn by_looks(taxi: &Taxi, mut wanted: impl FnMut(usize) -> (u32, u32)) -> Vec<u32> {
    let mut plan = Vec::with_capacity((taxi.values.len() - taxi.first) * LOOKS);
    for place in taxi.first..taxi.values.len() {
        let (here, next) = wanted(place);
        plan.extend((0..LOOKS).map(|look| if look + 1 == LOOKS { here.max(next) } else { here }));
    }
    plan
}

/// The one knob of the plan: a quantile of the band, and past its end a margin on top of it.
#[derive(Clone, Copy)]
struct HeadRoom {
    permille: u16,
    percent: u64,
}

/// The crate's own: a forecast that is chosen, a correction and a band that are fitted on the first three quarters alone.
fn planned(taxi: &Taxi, news: News, settings: &[HeadRoom]) -> Vec<Outcome> {
    let value = |place: usize| Some(milli(taxi.values[place]));
    let instant = |place: usize| Timestamp::from_millis(HALF_HOUR_MS * place as u64);
    let series = Series::new(Timestamp::ZERO, HALF_HOUR_MS, (0..taxi.first).map(value).collect());
    let forecast = series.and_then(|series| Forecast::choose(series, vec![], 28));
    let forecast = forecast.unwrap_or_else(|error| unreachable!("{error}"));
    // On all days but those of the first seven weeks: one that a forecast needs before anything, six that the model's
    // medians are made of.
    let days = taxi.first / DAY - 49;
    let fit = |steps| Nowcast::fit(&forecast, steps, days).unwrap_or_else(|error| unreachable!("{error}"));
    let (near, far) = (fit(1), fit(2));
    let mut outcomes = Vec::new();
    for HeadRoom { permille, percent } in settings {
        // Each day is forecast from all days before it.
        let mut forecast = forecast.clone();
        let plan = by_looks(taxi, |place| {
            if place > taxi.first && place.is_multiple_of(DAY) {
                forecast.extend((place - DAY..place).map(value));
            }
            let seen = place - news.lag();
            let ask = |nowcast: &Nowcast, place: usize| {
                let news = Some((instant(seen), milli(taxi.values[seen])));
                let bound = nowcast.quantile(&forecast, instant(place), news, *permille);
                instances((bound.map_or(0, Milli::at_least_zero) * percent).div_ceil(100_000))
            };
            match news {
                News::AtOnce => (taxi.need(place), ask(&near, place + 1)),
                News::Late => (ask(&near, place), ask(&far, place + 1)),
            }
        });
        outcomes.push(of_plan(taxi, news, &plan));
    }
    outcomes
}

/// Tracks the load per instance by the horizontal pod autoscaler's own rule: the search is over all that it can be set to.
fn hpa(taxi: &Taxi, news: News) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for percent in (14..=132).step_by(2) {
        for tolerance in [0, 100] {
            for stabilize_ms in [0, START_MS, 3 * START_MS, 12 * START_MS] {
                // A pod's average in thousandths; tolerances are in millionths.
                let target = i64::try_from(CARRIES * percent * 10).unwrap_or(i64::MAX);
                let tolerance = Tolerance { up_millionths: tolerance * 1_000, down_millionths: tolerance * 1_000 };
                let hpa = Hpa { tolerance, ..Hpa::new(hpa::Metric::new(Kind::PodsAverage, target)) };
                let size = instances(taxi.known(taxi.first, news) * 100 / percent);
                let policy = policy(Strategy::Hpa(hpa), stabilize_ms);
                outcomes.push(judge(taxi, policy, size, Seen { taxi, news, plan: None }));
            }
        }
    }
    outcomes
}

/// The most that was seen in each half hour of the week, times a factor.
fn weekly_maximum(taxi: &Taxi, factors: impl Iterator<Item = u64>) -> Vec<Outcome> {
    let mut most = vec![0; WEEK];
    for place in 0..taxi.first {
        most[place % WEEK] = taxi.values[place].max(most[place % WEEK]);
    }
    let want = |place: usize, percent: u64| instances(most[place % WEEK] * percent / 100);
    factors
        .map(|percent| {
            let plan = by_looks(taxi, |place| (want(place, percent), want(place + 1, percent)));
            of_plan(taxi, News::AtOnce, &plan)
        })
        .collect()
}

fn fixed(taxi: &Taxi) -> Vec<Outcome> {
    let most = (0..taxi.values.len()).map(|place| taxi.need(place)).max().unwrap_or(0);
    (most / 2..=most).map(|count| of_plan(taxi, News::AtOnce, &by_looks(taxi, |_| (count, count)))).collect()
}

/// The cheapest within a level of shortage.
fn cheapest(outcomes: &[Outcome], permille: u32) -> Option<f64> {
    let within = outcomes.iter().filter(|outcome| outcome.shortage <= f64::from(permille) / 1000.0);
    within.map(|outcome| outcome.cost).min_by(f64::total_cmp)
}

/// One row for each level of shortage, for each kind of news.
pub(crate) fn rows() -> Vec<Row> {
    let taxi = Taxi::new();
    let quantiles = (500..900).step_by(10).chain(900..=1000);
    let beyond = (105..=200).step_by(5).map(|percent| HeadRoom { permille: 1000, percent });
    let within = quantiles.map(|permille| HeadRoom { permille, percent: 100 });
    let settings: Vec<HeadRoom> = within.chain(beyond).collect();
    let weekly = weekly_maximum(&taxi, (80..=400).step_by(2));
    let fixed = fixed(&taxi);
    let mut rows = Vec::new();
    for (news, name) in
        [(News::AtOnce, "a rate that is measured at once"), (News::Late, "counts known a half hour late")]
    {
        let plan = planned(&taxi, news, &settings);
        let hpa = hpa(&taxi, news);
        for level in LEVELS {
            rows.push(row(name, level, [&plan, &hpa, &weekly, &fixed]));
        }
    }
    rows
}

fn row(news: &str, level: u32, [plan, hpa, weekly, fixed]: [&[Outcome]; 4]) -> Row {
    let name = format!("nyc_taxi, {news}: short at most {}.{} % of the time", level / 10, level % 10);
    let unit = "x the instance-hours needed";
    let Some(ours) = cheapest(plan, level) else {
        return Row::absent(name, unit, "no setting of the plan comes below this level");
    };
    let mut note = String::new();
    for (who, outcomes) in [("HPA", hpa), ("weekly maximum", weekly), ("fixed", fixed)] {
        let found = cheapest(outcomes, level).map_or_else(|| "never".to_owned(), |cost| format!("{cost:.3}"));
        let _ = write!(note, "{}{who} {found}", if note.is_empty() { "" } else { ", " });
    }
    let best = [("best HPA", cheapest(hpa, level)), ("weekly maximum", cheapest(weekly, level))];
    let best =
        best.into_iter().filter_map(|(who, cost)| Some((who, cost?))).min_by(|one, other| one.1.total_cmp(&other.1));
    let row = Row::new(name, ours, unit, Bound::RatioAtMost(1.0)).note(note);
    match best {
        Some((who, cost)) => row.beside(who, cost, ours / cost),
        None => row,
    }
}

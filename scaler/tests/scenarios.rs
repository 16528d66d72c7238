//! Given / when / then, as data: every `tests/scenarios/*.txt` is run, one scenario a paragraph.
//!
//! `given` lines declare, `at` moves the clock, and `expect` takes the tick, lets the cloud do what was asked (unless
//! `cloud manual` was given) and compares. Every record on the way must follow from its own numbers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use tenon_scaler::hpa::{self, Deletion, Kind, Phase, Pod, PodSample, PolicyKind, ReadyCondition, Requests, Select};
use tenon_scaler::strategy::{
    Adjust, Band, Change, Hpa, Kpa, QueueLength, Steps, Strategy, Target, Threshold, Trigger,
};
use tenon_scaler::{
    Authority, Config, Days, Effect, Engine, Formula, Grant, GroupId, IdcId, Metric, MetricId, Milli, Override, Point,
    Policy, PoolId, PoolKind, PoolWitness, Progress, Quota, Rate, ReleaseId, RequestId, Rule, RuleId, RuleKind,
    ShapeId, Staleness, TenantId, Term, Timestamp, Traffic, Verdict, VersionId, Watermark, Window, ZoneId, Zones,
};

const SHAPE: ShapeId = ShapeId(1);

/// `key=value` words of a line.
type Words<'a> = BTreeMap<&'a str, &'a str>;

struct Stage {
    engine: Engine,
    zones: Vec<(String, ZoneId)>,
    now: Timestamp,
    group: GroupId,
    traffic: Traffic,
    policy: Policy,
    manual: bool,
    only_admit: bool,
    open: Vec<Effect>,
    requests: Vec<RequestId>,
    outcome: String,
}

impl Stage {
    fn new() -> Self {
        let mut zones = Zones::new();
        let names = ["Europe/Berlin", "America/New_York", "Asia/Shanghai"];
        let held = names.iter().map(|name| (name.to_string(), zones.bundled(name).unwrap())).collect();
        let config = Config::builder().zones(zones).leap_ms(u64::MAX).build().unwrap();
        let mut engine = Engine::new(config);
        engine.put_release(Timestamp::ZERO, ReleaseId(1), VersionId(1));
        let traffic =
            Traffic { id: GroupId(1), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: SHAPE };
        Self {
            engine,
            zones: held,
            now: Timestamp::ZERO,
            group: GroupId(1),
            traffic,
            policy: Policy { max: 100, ..Policy::default() },
            manual: false,
            only_admit: false,
            open: vec![],
            requests: vec![],
            outcome: String::new(),
        }
    }

    fn put(&mut self) {
        if self.only_admit {
            return;
        }
        let outcome = self.engine.put_group(self.now, self.traffic.clone(), self.policy.clone());
        self.outcome = outcome.err().map_or("ok".into(), |error| error.to_string());
    }

    #[expect(clippy::too_many_lines, reason = "one arm a verb")]
    fn line(&mut self, line: &str) {
        let mut bare = line.split_whitespace();
        let verb = bare.next().unwrap();
        let rest: Vec<&str> = bare.collect();
        let words: Words<'_> = rest.iter().filter_map(|word| word.split_once('=')).collect();
        match verb {
            "pool" => self.pool(&rest, &words),
            "policy" => {
                if let Some(min) = number(&words, "min") {
                    self.policy.min = min;
                }
                if let Some(max) = number(&words, "max") {
                    self.policy.max = max;
                }
                if let Some(rank) = number(&words, "rank") {
                    self.policy.rank = u8::try_from(rank).unwrap();
                }
                let pace = &mut self.policy.behavior;
                if let Some(ms) = duration(&words, "out-cooldown") {
                    pace.out.cooldown_ms = ms;
                }
                if let Some(ms) = duration(&words, "in-cooldown") {
                    pace.inward.cooldown_ms = ms;
                }
                if let Some(ms) = duration(&words, "out-window") {
                    pace.out.stabilize_ms = ms;
                }
                if let Some(ms) = duration(&words, "in-window") {
                    pace.inward.stabilize_ms = ms;
                }
                if let Some(text) = words.get("out-rate") {
                    pace.out.rate = Some(rate(text));
                }
                if let Some(text) = words.get("in-rate") {
                    pace.inward.rate = Some(rate(text));
                }
                if rest.contains(&"atomic") {
                    self.policy.grant = Grant::Atomic;
                }
                self.policy.skew = number(&words, "skew").or(self.policy.skew);
                if let Some(ms) = duration(&words, "warm-up") {
                    self.policy.warm_up_ms = ms;
                }
                self.put();
            }
            "group" => {
                self.group = GroupId(rest[0].parse().unwrap());
                self.traffic.id = self.group;
                self.traffic.tenant = TenantId(number(&words, "tenant").unwrap_or(1));
                self.traffic.idcs = words
                    .get("idcs")
                    .map_or(vec![], |text| text.split(',').map(|idc| IdcId(idc.parse().unwrap())).collect());
                self.policy = Policy { max: 100, ..Policy::default() };
            }
            "metric" => {
                let when_stale = match words.get("stale-means").copied() {
                    None | Some("forbid") => Staleness::ForbidIn,
                    Some("ignore") => Staleness::Ignore,
                    Some(value) => Staleness::Assume(milli(value)),
                };
                let stale_after_ms = duration(&words, "stale").unwrap_or(60_000);
                let id = MetricId(rest[0].parse().unwrap());
                self.policy.metrics.push(Metric { id, stale_after_ms, when_stale });
                self.put();
            }
            "formula" => {
                let metric = MetricId(rest[0].parse().unwrap());
                let terms = rest[1..].iter().map(|word| term(word)).collect();
                self.policy.formulas.push(Formula { metric, terms });
                self.put();
            }
            "rule" => {
                let rule = self.rule(&rest, &words);
                self.policy.rules.retain(|held| held.id != rule.id);
                self.policy.rules.push(rule);
                self.put();
            }
            "unrule" => {
                let id = RuleId(rest[0].parse().unwrap());
                self.policy.rules.retain(|held| held.id != id);
                self.put();
            }
            "quota" => {
                let tenant = TenantId(rest[0].parse().unwrap());
                let parent = number(&words, "parent").map(TenantId);
                let quota = Quota { tenant, parent, limit: number(&words, "limit").unwrap() };
                let outcome = self.engine.put_quota(self.now, quota);
                self.outcome = outcome.err().map_or("ok".into(), |error| error.to_string());
            }
            "admit" => self.admit(&rest, &words),
            "only-admit" => self.only_admit = true,
            "cloud" => self.manual = rest[0] == "manual",
            "version" => {
                self.engine.put_release(self.now, ReleaseId(1), VersionId(rest[0].parse().unwrap()));
            }
            "at" => {
                self.now = instant(rest[0]);
            }
            "sample" => {
                let metric = MetricId(rest[0].parse().unwrap());
                let at = words.get("at").map_or(self.now, |text| instant(text));
                let value = (rest[1] != "missing").then(|| milli(rest[1]));
                self.engine.handle_sample(self.now, self.group, metric, at, value);
            }
            "pods" => self.pods(&rest, &words),
            "override" => {
                let by_hand = (rest[0] != "off").then(|| Override {
                    count: rest[0].parse().unwrap(),
                    until: words.get("until").map_or(Timestamp::MAX, |text| instant(text)),
                });
                self.engine.set_by_hand(self.now, self.group, by_hand).unwrap();
            }
            "pause" => self.engine.pause(self.now, self.group).unwrap(),
            "resume" => self.engine.resume(self.now, self.group).unwrap(),
            "drop" => self.engine.drop_traffic(self.now, self.group).unwrap(),
            "launched" => {
                let request = self.requests[rest[0].parse::<usize>().unwrap()];
                let ready = number(&words, "ready").unwrap_or(0);
                let (failed, cancelled) =
                    (number(&words, "failed").unwrap_or(0), number(&words, "cancelled").unwrap_or(0));
                self.engine.handle_launch(self.now, request, Progress { done: ready, failed, cancelled });
            }
            "released" => {
                let request = self.requests[rest[0].parse::<usize>().unwrap()];
                self.engine.handle_release(self.now, request, number(&words, "gone").unwrap());
            }
            "census" => {
                let pool = PoolId(rest[0].parse().unwrap());
                let at = words.get("at").map_or(self.now, |text| instant(text));
                self.engine.handle_census(self.now, self.group, pool, at, number(&words, "serving").unwrap());
            }
            "expect" => self.expect(&words, line),
            "admitted" | "overcommitted" => {
                let over = self.engine.overcommitted().len();
                let (verb_holds, outcome) = if verb == "admitted" {
                    (self.outcome == "admitted", &self.outcome)
                } else {
                    (over > 0, &self.outcome)
                };
                assert!(verb_holds, "{line}: {outcome:?}, {over} pools over");
            }
            "refused" => assert!(self.outcome.contains(&rest.join(" ")), "{line}: outcome was {:?}", self.outcome),
            other => panic!("no verb {other:?}"),
        }
    }

    /// `pods METRIC value=… value=… window=…`: what each pod uses, one that started now as `new:900`, one that is not
    /// ready as `unready:0`.
    fn pods(&mut self, rest: &[&str], words: &Words<'_>) {
        let metric = MetricId(rest[0].parse().unwrap());
        let window_ms = duration(words, "window").unwrap_or(30_000);
        let now = self.now;
        let (mut pods, mut samples) = (vec![], vec![]);
        for (id, text) in (0..).zip(words["use"].split(',')) {
            let (state, value) = text.split_once(':').unwrap_or(("ready", text));
            let since = if state == "new" { now } else { Timestamp::ZERO };
            let ready = if state == "unready" { ReadyCondition::NotReady(since) } else { ReadyCondition::Ready(since) };
            let phase = Phase::Running;
            pods.push(Pod {
                id,
                phase,
                ready,
                started: Some(since),
                deletion: Deletion::None,
                requests: Requests::of(Some(1000)),
            });
            if value != "missing" {
                samples.push(PodSample { pod: id, value: value.parse().unwrap(), at: now, window_ms });
            }
        }
        self.engine.handle_pods(now, self.group, now, &pods);
        self.engine.handle_pod_samples(now, self.group, metric, now, &samples);
    }

    /// Admits the group with its policy as it stands; `put=no` has kept it from being put before.
    fn admit(&mut self, rest: &[&str], words: &Words<'_>) {
        let authority = if rest.contains(&"operator") { Authority::Operator } else { Authority::Owner };
        let upper: Vec<u32> = match number(words, "upper") {
            Some(upper) => vec![upper; 288],
            None => vec![],
        };
        let before = self.engine.snapshot();
        let outcome = self.engine.admit(self.now, self.traffic.clone(), self.policy.clone(), &upper, authority);
        let tell = |over: &[PoolWitness]| {
            let one = |witness: &PoolWitness| {
                let first = jiff::Timestamp::from_millisecond(i64::try_from(witness.first.as_millis()).unwrap());
                format!("pool {} by {} from {}", witness.pool, witness.excess, first.unwrap())
            };
            over.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        self.outcome = match &outcome {
            Ok(Verdict::Admitted) => "admitted".into(),
            Ok(Verdict::Overridden(over)) => format!("overridden {}", tell(over)),
            Ok(Verdict::Refused(over)) => tell(over),
            Err(error) => error.to_string(),
        };
        if matches!(outcome, Err(_) | Ok(Verdict::Refused(_))) {
            assert_eq!(before, self.engine.snapshot(), "a refusal changes nothing");
        }
    }

    fn pool(&mut self, rest: &[&str], words: &Words<'_>) {
        let kind = match rest[1] {
            "resident" => PoolKind::Resident,
            "dedicated" => PoolKind::Dedicated(TenantId(number(words, "tenant").unwrap())),
            "emergency" => PoolKind::Emergency {
                from: words.get("from").map_or(Timestamp::ZERO, |text| instant(text)),
                until: words.get("until").map_or(Timestamp::MAX, |text| instant(text)),
            },
            other => panic!("no kind {other:?}"),
        };
        let pool = tenon_scaler::Pool {
            id: PoolId(rest[0].parse().unwrap()),
            kind,
            idc: IdcId(u16::try_from(number(words, "idc").unwrap_or(1)).unwrap()),
            price: u64::from(number(words, "price").unwrap_or(1000)),
            watermark: Watermark {
                high_permille: u16::try_from(number(words, "high").unwrap_or(1000)).unwrap(),
                low_permille: u16::try_from(number(words, "low").unwrap_or(1000)).unwrap(),
            },
            stock: vec![(SHAPE, number(words, "stock").unwrap())],
        };
        let outcome = self.engine.put_pool(self.now, pool);
        self.outcome = outcome.err().map_or("ok".into(), |error| error.to_string());
    }

    fn rule(&self, rest: &[&str], words: &Words<'_>) -> Rule {
        let metric = MetricId(u16::try_from(number(words, "metric").unwrap_or(1)).unwrap());
        let permille = |key| number(words, key).unwrap_or(0);
        let count = || rest[2].parse().unwrap();
        let kind = match rest[1] {
            "queue" => {
                let per_instance = milli(words["per"]);
                RuleKind::Metric(metric, Strategy::QueueLength(QueueLength { per_instance }))
            }
            "target" => RuleKind::Metric(
                metric,
                Strategy::Target(Target {
                    target: milli(words["value"]),
                    tolerance_out_permille: permille("tolerance-out"),
                    tolerance_in_permille: permille("tolerance-in"),
                    ..Target::default()
                }),
            ),
            "threshold" => RuleKind::Metric(
                metric,
                Strategy::Threshold(Threshold {
                    out: trigger(words, "above", "out"),
                    inward: trigger(words, "below", "in"),
                    need: u8::try_from(number(words, "need").unwrap_or(1)).unwrap(),
                    of: u8::try_from(number(words, "of").unwrap_or(1)).unwrap(),
                }),
            ),
            "given" => RuleKind::Metric(metric, Strategy::Given),
            "steps" => {
                let bands = words["bands"].split(',').map(band).collect();
                RuleKind::Metric(metric, Strategy::Steps(Steps { bands }))
            }
            "hpa" => {
                let kind = match words["kind"] {
                    "cpu" => Kind::CpuUtilization,
                    "pods" => Kind::PodsAverage,
                    "value" => Kind::Value,
                    "average-value" => Kind::AverageValue,
                    other => panic!("no kind {other:?}"),
                };
                let target = words["target"].parse().unwrap();
                RuleKind::Metric(metric, Strategy::Hpa(Hpa::new(hpa::Metric::new(kind, target))))
            }
            "kpa" => RuleKind::Metric(
                metric,
                Strategy::Kpa(Kpa {
                    sample_ms: 2_000,
                    stable_window_ms: u32::try_from(duration(words, "stable").unwrap_or(60_000)).unwrap(),
                    activation_scale: number(words, "activation").unwrap_or(1),
                    ..Kpa::new(milli(words["target"]), milli(words["target"]))
                }),
            ),
            "floor" => RuleKind::Floor(self.window(words), count()),
            "cap" => RuleKind::Cap(self.window(words), count()),
            "delta" => RuleKind::Delta(self.window(words), rest[2].parse().unwrap()),
            "step" => RuleKind::Step(
                Point {
                    zone: self.zone(words),
                    days: days(words),
                    at: words["at"].parse().unwrap(),
                    lead_ms: duration(words, "lead").unwrap_or(0),
                },
                rest[2].parse().unwrap(),
            ),
            other => panic!("no rule {other:?}"),
        };
        Rule { id: RuleId(rest[0].parse().unwrap()), kind }
    }

    fn zone(&self, words: &Words<'_>) -> ZoneId {
        let named = words.get("zone").copied().unwrap_or("UTC");
        self.zones.iter().find(|(name, _)| name == named).map_or(ZoneId(0), |(_, id)| *id)
    }

    fn window(&self, words: &Words<'_>) -> Window {
        Window {
            zone: self.zone(words),
            days: days(words),
            from: words["from"].parse().unwrap(),
            until: words["until"].parse().unwrap(),
            lead_ms: duration(words, "lead").unwrap_or(0),
        }
    }

    fn expect(&mut self, words: &Words<'_>, line: &str) {
        self.engine.handle_timeout(self.now);
        while let Some(effect) = self.engine.poll_effect() {
            if !matches!(effect, Effect::Cancel { .. }) {
                self.requests.push(effect.request());
            }
            self.open.push(effect);
        }
        for id in self.engine.groups().collect::<Vec<_>>() {
            if let Some(record) = self.engine.record(id) {
                assert_eq!(record.verify(), Ok(()), "{line}\n{}", record.explain());
            }
        }
        let record = self.engine.record(self.group).cloned();
        let story = record.as_ref().map_or(String::new(), tenon_scaler::Record::explain);
        for (key, value) in words {
            let sum = |of: fn(&tenon_scaler::Holding) -> u32| -> u32 {
                self.engine.holdings(self.group).iter().map(of).sum()
            };
            let got = match *key {
                "target" => self.engine.state(self.group).map_or("gone".into(), |state| state.target().to_string()),
                "reason" => self.engine.explain(self.now, self.group).unwrap().reason.code().to_string(),
                "because" => record.as_ref().unwrap().decision.reason.code().to_string(),
                "missing" => record.as_ref().unwrap().allotment.missing.to_string(),
                "cancelled" => {
                    let cancelled = &record.as_ref().unwrap().allotment.cancelled;
                    cancelled.iter().map(|(_, count)| count).sum::<u32>().to_string()
                }
                "waiting" => record.as_ref().unwrap().allotment.waiting.to_string(),
                "version" => record.as_ref().unwrap().allotment.version.map_or("none".into(), |v| v.0.to_string()),
                "causes" => {
                    let allotment = &record.as_ref().unwrap().allotment;
                    let causes = allotment.causes.iter().map(|(pool, cause)| format!("{pool}:{}", cause.code()));
                    causes
                        .chain(allotment.refusal.map(|refusal| refusal.code().to_string()))
                        .collect::<Vec<_>>()
                        .join(",")
                }
                "given" => {
                    let timed = &record.as_ref().unwrap().decision.lines.timed;
                    timed.iter().map(|line| given(line).to_string()).collect::<Vec<_>>().join(",")
                }
                "starting" => sum(|held| held.starting).to_string(),
                "ready" => sum(|held| held.ready).to_string(),
                "leaving" => sum(|held| held.leaving).to_string(),
                "next" => {
                    let next = self.engine.explain(self.now, self.group).unwrap().next_change;
                    assert_eq!(next, instant(value), "{line}: next change\n{story}");
                    continue;
                }
                pool => {
                    let pool = PoolId(pool.strip_prefix("pool").unwrap().parse().unwrap());
                    let held = self.engine.holdings(self.group).iter().find(|held| held.pool == pool);
                    held.map_or(0, |held| held.ready + held.starting).to_string()
                }
            };
            assert_eq!(got, *value, "{line}: {key}\n{story}");
        }
        if !self.manual {
            for effect in std::mem::take(&mut self.open) {
                match effect {
                    Effect::Launch { request, count, .. } => {
                        self.engine.handle_launch(self.now, request, Progress::done(count));
                    }
                    Effect::Cancel { request, .. } => {
                        self.engine.handle_launch(self.now, request, support::stopped(&self.engine, request));
                    }
                    Effect::Release { request, count, .. } => self.engine.handle_release(self.now, request, count),
                }
            }
        }
    }
}

fn given(line: &tenon_scaler::TimedLine) -> i32 {
    match line {
        tenon_scaler::TimedLine::Delta { given, .. } | tenon_scaler::TimedLine::Step { given, .. } => *given,
    }
}

/// `m1`, `ready`, `+`, `-`, `*`, `/`, `max`, `min` or a number.
fn term(word: &str) -> Term {
    match word {
        "ready" => Term::Ready,
        "+" => Term::Add,
        "-" => Term::Sub,
        "*" => Term::Mul,
        "/" => Term::Div,
        "max" => Term::Max,
        "min" => Term::Min,
        _ => match word.strip_prefix('m') {
            Some(id) => Term::Metric(MetricId(id.parse().unwrap())),
            None => Term::Number(milli(word)),
        },
    }
}

/// `20:+20%`, `30:+7`, `0:-2`, `38:=25`, `10:hold`.
fn band(text: &str) -> Band {
    let (from, adjust) = text.split_once(':').unwrap();
    let adjust = match (adjust, adjust.chars().next().unwrap()) {
        ("hold", _) => Adjust::Hold,
        (_, '=') => Adjust::To(adjust[1..].parse().unwrap()),
        (_, '+') => Adjust::Out(change(&adjust[1..])),
        (_, '-') => Adjust::In(change(&adjust[1..])),
        other => panic!("no adjustment {other:?}"),
    };
    Band { from: milli(from), adjust }
}

/// `max:4/15s,100%/15s`, `min:…` or `disabled`.
fn rate(text: &str) -> Rate {
    let Some((select, policies)) = text.split_once(':') else { return Rate::disabled() };
    let policy = |text: &str| {
        let (value, period) = text.split_once('/').unwrap();
        let (kind, value) = match value.strip_suffix('%') {
            Some(share) => (PolicyKind::Percent, share),
            None => (PolicyKind::Pods, value),
        };
        hpa::Policy { kind, value: value.parse().unwrap(), period_ms: millis(period) }
    };
    let select = if select == "max" { Select::Max } else { Select::Min };
    Rate { select, policies: policies.split(',').map(policy).collect() }
}

fn change(text: &str) -> Change {
    match text.strip_suffix('%') {
        Some(share) => Change::Permille(share.parse::<u32>().unwrap() * 10),
        None => Change::Count(text.parse().unwrap()),
    }
}

fn trigger(words: &Words<'_>, past: &str, by: &str) -> Option<Trigger> {
    let past = milli(words.get(past)?);
    let by = words.get(by).map_or(Change::Count(1), |text| change(text));
    Some(Trigger { past, by })
}

fn days(words: &Words<'_>) -> Days {
    match words.get("days").copied() {
        None | Some("every") => Days::Every,
        Some("working") => Days::WORKING,
        Some("weekend") => Days::WEEKEND,
        Some("month-end") => Days::MonthEnd,
        Some(text) => match text.split_once("..") {
            Some((first, last)) => Days::Between(first.parse().unwrap(), last.parse().unwrap()),
            None => Days::Month(1 << (text.parse::<u32>().unwrap() - 1)),
        },
    }
}

fn number(words: &Words<'_>, key: &str) -> Option<u32> {
    words.get(key).map(|text| text.parse().unwrap())
}

fn milli(text: &str) -> Milli {
    Milli::from_f64(text.parse().unwrap()).unwrap()
}

/// `90s`, `5m`, `2h` or a plain number of milliseconds.
fn millis(text: &str) -> u64 {
    let unit = |suffix: &str, factor: u64| text.strip_suffix(suffix).map(|n| n.parse::<u64>().unwrap() * factor);
    unit("ms", 1).or_else(|| unit("s", 1000)).or_else(|| unit("m", 60_000)).or_else(|| unit("h", 3_600_000)).unwrap()
}

fn duration(words: &Words<'_>, key: &str) -> Option<u64> {
    words.get(key).map(|text| millis(text))
}

/// A duration since the epoch, or an instant such as `2026-03-29T00:30:00Z`.
fn instant(text: &str) -> Timestamp {
    if text.contains('T') {
        let at: jiff::Timestamp = text.parse().unwrap();
        return Timestamp::from_millis(u64::try_from(at.as_millisecond()).unwrap());
    }
    Timestamp::from_millis(millis(text))
}

/// How many scenarios ran, and those that failed.
fn run(file: &str, text: &str) -> (usize, Vec<String>) {
    let mut count = 0;
    let mut failed = vec![];
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let mut lines = paragraph.lines().map(str::trim).filter(|line| !line.is_empty());
        let title = lines.next().unwrap();
        let mut stage = Stage::new();
        for line in lines.filter(|line| !line.starts_with("--")) {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stage.line(line)));
            if let Err(panic) = caught {
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                failed.push(format!("{file}: {title}\n{why}"));
                break;
            }
        }
        count += 1;
    }
    (count, failed)
}

#[test]
fn every_scenario_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut count = 0;
    let mut failed = vec![];
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let (ran, wrong) = run(&path.file_name().unwrap().to_string_lossy(), &text);
        count += ran;
        failed.extend(wrong);
    }
    assert!(failed.is_empty(), "{} of {count} failed\n\n{}", failed.len(), failed.join("\n"));
    assert!(count >= 90, "only {count} scenarios ran");
}

//! A second reading of what an HPA, KEDA and their pods do, second by second, without any of the program's code: slow, and as
//! plain as it can be.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// 2026-06-01T08:00:00Z.
pub const START: u64 = 1_780_300_800;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Per cent of so many thousandths that a pod requests.
    Utilization(i64, i64),
    Average(i64),
    Value(i64),
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// CPU of the pods, which share the load of column `a`.
    Cpu,
    /// A total.
    Total { column: usize },
    /// A prometheus trigger: what a gap is, and above what it is active.
    Prometheus { column: usize, zero: bool, activation: i64 },
    /// A queue that column `a` fills and each ready pod drains by so much a second.
    Queue { rate: f64 },
    /// A window of each day, in seconds, and the replicas in it.
    Cron { from: u64, until: u64, replicas: i64 },
}

#[derive(Clone, Debug)]
pub struct Metric {
    pub kind: Kind,
    pub target: Target,
}

/// One direction: window, whether the largest or the smallest change holds, policies (pods or per cent, value, period).
#[derive(Clone, Debug)]
pub struct Rules {
    pub window: u64,
    pub select: &'static str,
    pub policies: Vec<(bool, i64, u64)>,
}

#[derive(Clone, Debug)]
pub struct Keda {
    pub min: i64,
    pub idle: Option<i64>,
    pub poll: u64,
    pub cooldown: u64,
    pub initial_cooldown: u64,
    /// Failures, replicas, behavior.
    pub fallback: Option<(u32, i64, &'static str)>,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub rows: Vec<(u64, [Option<f64>; 2])>,
    pub step: u64,
    pub until: u64,
    pub initial: i64,
    pub startup: u64,
    pub bounds: (i64, i64),
    pub metrics: Vec<Metric>,
    pub behavior: Option<(Rules, Rules)>,
    pub keda: Option<Keda>,
    /// What a pod carries of column `a`.
    pub capacity: Option<f64>,
}

#[derive(Clone, Copy)]
struct Pod {
    created: u64,
    ready: u64,
    seen_ready: bool,
}

/// Changes (second, size, by whom), pod-seconds, seconds short.
pub type Outcome = (Vec<(u64, i64, &'static str)>, u64, u64);

struct Sim<'a> {
    plan: &'a Scenario,
    now: u64,
    pods: Vec<Pod>,
    changes: Vec<(u64, i64, &'static str)>,
    log: Option<Vec<(u64, i64)>>,
    /// Growth and shrinking: second, pods, whether its place may be taken.
    events: [Vec<(u64, i64, bool)>; 2],
    last_active: Option<u64>,
    failures: BTreeMap<usize, u32>,
    waiting: f64,
}

pub fn play(plan: &Scenario) -> Outcome {
    let long_ago = Pod { created: START - 86_400, ready: START - 86_400, seen_ready: true };
    let pods = (0..plan.initial).map(|_| long_ago).collect();
    let mut sim = Sim {
        plan,
        now: START,
        pods,
        changes: vec![],
        log: None,
        events: [vec![], vec![]],
        last_active: None,
        failures: BTreeMap::new(),
        waiting: 0.0,
    };
    let (mut pod_seconds, mut short) = (0, 0);
    while sim.now < plan.until {
        let since = sim.now - START;
        for pod in &mut sim.pods {
            pod.seen_ready |= pod.ready <= sim.now;
        }
        if plan.keda.as_ref().is_some_and(|keda| since.is_multiple_of(keda.poll)) {
            sim.poll();
        }
        if since.is_multiple_of(15) {
            sim.pass();
        }
        let ready = sim.pods.iter().filter(|pod| pod.ready <= sim.now).count() as f64;
        pod_seconds += sim.pods.len() as u64;
        let load = sim.value(0);
        if let (Some(load), Some(each)) = (load, plan.capacity)
            && load > ready * each + 1e-9 * load
        {
            short += 1;
        }
        for metric in &plan.metrics {
            if let (Kind::Queue { rate }, Some(arrivals)) = (&metric.kind, load) {
                sim.waiting = (sim.waiting + arrivals - ready * rate).max(0.0);
            }
        }
        sim.now += 1;
    }
    (sim.changes, pod_seconds, short)
}

fn milli(value: f64) -> i64 {
    (value * 1_000.0 + 1e-6).floor() as i64
}

impl Sim<'_> {
    fn size(&self) -> i64 {
        self.pods.len() as i64
    }

    fn ready(&self) -> i64 {
        self.pods.iter().filter(|pod| pod.seen_ready).count() as i64
    }

    fn value(&self, column: usize) -> Option<f64> {
        let (at, values) = self.plan.rows.iter().rev().find(|row| row.0 <= self.now)?;
        values[column].filter(|_| self.now - at < 2 * self.plan.step)
    }

    fn set(&mut self, size: i64, by: &'static str) {
        if size == self.size() {
            return;
        }
        while self.size() < size {
            self.pods.push(Pod { created: self.now, ready: self.now + self.plan.startup, seen_ready: false });
        }
        while self.size() > size {
            let place = self.pods.iter().rposition(|pod| !pod.seen_ready).unwrap_or(self.pods.len() - 1);
            self.pods.remove(place);
        }
        self.changes.push((self.now, size, by));
    }

    /// A trigger's answer: its value in thousandths unless it has failed, and whether it is active.
    fn ask(&mut self, place: usize) -> (Option<i64>, bool) {
        let metric = &self.plan.metrics[place];
        let (value, activation) = match metric.kind {
            Kind::Cron { from, until, replicas } => {
                let open = (from..until).contains(&(self.now % 86_400));
                (Some(if open { replicas * 1_000 } else { 0 }), 0)
            }
            Kind::Queue { .. } => (self.value(0).map(|_| milli(self.waiting)), 0),
            Kind::Prometheus { column, zero, activation } => {
                let value = self.value(column).map(|value| milli(value).max(0));
                (value.or(if zero { Some(0) } else { None }), activation)
            }
            Kind::Cpu | Kind::Total { .. } => unreachable!("these are no triggers"),
        };
        if let Some(value) = value {
            self.failures.insert(place, 0);
            return (Some(value), value > activation * 1_000);
        }
        let Some((threshold, replicas, behavior)) = self.plan.keda.as_ref().and_then(|keda| keda.fallback) else {
            return (None, false);
        };
        let failures = self.failures.entry(place).or_default();
        *failures += 1;
        if *failures <= threshold {
            return (None, false);
        }
        let size = self.size();
        let wanted = match behavior {
            "currentReplicas" => size,
            "currentReplicasIfHigher" => size.max(replicas),
            "currentReplicasIfLower" => size.min(replicas),
            _ => replicas,
        };
        match metric.target {
            Target::Value(_) if self.ready() == 0 => (None, false),
            Target::Value(target) => {
                let exact = target as f64 * wanted as f64 / self.ready() as f64;
                (Some(milli(exact)), true)
            }
            Target::Average(target) | Target::Utilization(target, _) => (Some(target * 1_000 * wanted), true),
        }
    }

    fn poll(&mut self) {
        let Some(keda) = &self.plan.keda else { return };
        let answers: Vec<(Option<i64>, bool)> = (0..self.plan.metrics.len()).map(|place| self.ask(place)).collect();
        let failed = answers.iter().any(|answer| answer.0.is_none());
        let size = self.size();
        if answers.iter().any(|answer| answer.1) {
            if size == 0 || (keda.idle.is_some() && size < keda.min) {
                self.last_active = Some(self.now);
                self.set(keda.min.max(1), "activated");
            } else if !failed {
                self.last_active = Some(self.now);
            }
            return;
        }
        if failed && keda.fallback.is_none_or(|fallback| fallback.1 != 0) {
            return;
        }
        let rest = match keda.idle {
            Some(idle) => (size > idle).then_some(idle),
            None => (keda.min == 0 && size > 0).then_some(0),
        };
        if let Some(rest) = rest {
            let due = match self.last_active {
                Some(at) => self.now > at + keda.cooldown,
                None => self.now >= START + keda.initial_cooldown,
            };
            if due {
                self.set(rest, "deactivated");
            }
        } else if keda.idle.is_none() && size < keda.min {
            self.set(keda.min, "activated");
        }
    }

    fn holds(ratio: f64) -> bool {
        (1.0 - 0.1..=1.0 + 0.1).contains(&ratio)
    }

    /// What a metric proposes; `None` where it has failed.
    fn propose(&mut self, place: usize) -> Option<i64> {
        let (size, target) = (self.size(), self.plan.metrics[place].target);
        if let Kind::Cpu = self.plan.metrics[place].kind {
            return self.propose_cpu(target);
        }
        let value = match self.plan.metrics[place].kind {
            Kind::Total { column } => milli(self.value(column)?),
            _ => self.ask(place).0?,
        };
        match target {
            Target::Average(target) => {
                let target = (target * 1_000) as f64;
                let ratio = value as f64 / (target * size as f64);
                Some(if Self::holds(ratio) { size } else { (value as f64 / target).ceil() as i64 })
            }
            Target::Value(target) => {
                let ratio = value as f64 / (target * 1_000) as f64;
                Some(if size > 0 && Self::holds(ratio) {
                    size
                } else if size == 0 {
                    ratio.ceil() as i64
                } else {
                    (ratio * self.ready() as f64).ceil() as i64
                })
            }
            Target::Utilization(..) => None,
        }
    }

    fn propose_cpu(&self, target: Target) -> Option<i64> {
        let Target::Utilization(percent, request) = target else { return None };
        let (size, total, ready) = (self.size(), milli(self.value(0)?), self.ready());
        let (mut used, mut counted, mut unready, mut place) = (0, 0, 0, 0);
        for pod in &self.pods {
            if !pod.seen_ready {
                unready += 1;
                continue;
            }
            let own = total / ready + i64::from(place < total % ready);
            place += 1;
            // In its first five minutes a pod counts once it was measured for a whole window while ready.
            if pod.created + 300 > self.now && self.now < pod.ready + 15 {
                unready += 1;
            } else {
                (used, counted) = (used + own, counted + 1);
            }
        }
        if counted == 0 {
            return None;
        }
        let ratio = |pods: i64| (used * 100 / (request * pods)) as f64 / percent as f64;
        let first = ratio(counted);
        if unready == 0 || first <= 1.0 {
            return Some(if Self::holds(first) { size } else { (first * counted as f64).ceil() as i64 });
        }
        let all = counted + unready;
        let again = ratio(all);
        let wanted = (again * all as f64).ceil() as i64;
        let turned = again < 1.0 || wanted < size;
        Some(if Self::holds(again) || turned { size } else { wanted })
    }

    fn pass(&mut self) {
        let (size, (min, max), now) = (self.size(), self.plan.bounds, self.now);
        self.log.get_or_insert_with(|| vec![(now, size)]);
        if size == 0 && min != 0 {
            return;
        }
        let wanted = if size > max {
            max
        } else if size < min {
            min
        } else {
            let proposals: Vec<Option<i64>> = (0..self.plan.metrics.len()).map(|place| self.propose(place)).collect();
            let Some(most) = proposals.iter().flatten().copied().max() else { return };
            if most < size && proposals.contains(&None) {
                return;
            }
            self.limited(most)
        };
        if let Some((up, down)) = &self.plan.behavior {
            let (place, rules) = if wanted > size { (0, up) } else { (1, down) };
            if wanted != size {
                let longest = rules.policies.iter().map(|policy| policy.2).max().unwrap_or(0);
                let events = &mut self.events[place];
                for event in events.iter_mut() {
                    event.2 |= now - event.0 > longest;
                }
                let event = (now, (wanted - size).abs(), false);
                match events.iter().rposition(|held| held.2) {
                    Some(old) => events[old] = event,
                    None => events.push(event),
                }
            }
        }
        self.set(wanted, "hpa");
    }

    fn limited(&mut self, wanted: i64) -> i64 {
        let (size, (min, max), now) = (self.size(), self.plan.bounds, self.now);
        let Some(log) = &mut self.log else { return wanted };
        let Some((up, down)) = &self.plan.behavior else {
            let most = log.iter().filter(|held| now - held.0 <= 300).map(|held| held.1).fold(wanted, i64::max);
            log.push((now, wanted));
            return most.min(max.min((2 * size).max(4))).max(min);
        };
        let low = log.iter().filter(|held| now - held.0 < up.window).map(|held| held.1).fold(wanted, i64::min);
        let high = log.iter().filter(|held| now - held.0 < down.window).map(|held| held.1).fold(wanted, i64::max);
        log.push((now, wanted));
        let steady = size.max(low).min(high.max(low));
        let within = |events: &[(u64, i64, bool)], period| -> i64 {
            events.iter().filter(|event| now - event.0 < period).map(|event| event.1).sum()
        };
        let limit = |rules: &Rules, sign: i64| {
            if rules.select == "Disabled" {
                return size;
            }
            let each = rules.policies.iter().map(|(percent, value, period)| {
                let base = size - within(&self.events[0], *period) + within(&self.events[1], *period);
                match percent {
                    false => base + sign * value,
                    true if sign > 0 => (base as f64 * (1.0 + *value as f64 / 100.0)).ceil() as i64,
                    true => (base as f64 * (1.0 - *value as f64 / 100.0)) as i64,
                }
            });
            let outermost = if (rules.select == "Max") == (sign > 0) { each.max() } else { each.min() };
            outermost.unwrap_or(size)
        };
        match steady.cmp(&size) {
            Ordering::Greater => steady.min(limit(up, 1).max(size)).min(max),
            Ordering::Less => steady.max(limit(down, -1).min(size)).max(min),
            Ordering::Equal => steady,
        }
    }
}

//! From options to what a rehearsal needs: the columns of a trace, the wishes, the plant; every default that was used is told.

use std::collections::BTreeMap;
use std::io::Read as _;

use jiff::tz::TimeZone;

use crate::args::{Day, named_quantity};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::fleet::Fleet;
use crate::manifest::Workload;
use crate::policy::Autoscaler;
use crate::quantity::words;
use crate::rehearse::{Bind, Capacity, Mode, Outcome, Plant, PoolUse, Recorded, Wish, bind, rehearse, rehearse_fleet};
use crate::trace::{self, Column, Reading};

/// A recorded day, ready to be played.
pub(crate) struct Stage {
    pub(crate) columns: Vec<Column>,
    pub(crate) wish: Wish,
    pub(crate) plant: Plant,
    initial: Option<u32>,
    /// Of each default that was used: the option and its value.
    pub(crate) defaults: Vec<String>,
    pub(crate) findings: Vec<Finding>,
}

/// Reads a file, or standard input for `-`.
pub(crate) fn text_of(file: &str) -> Result<String> {
    let bytes = if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = bytes.map_err(|error| Error::of_file(file, format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::of_file(file, format!("is no text in UTF-8: byte {} is none", at + 1))
    })
}

impl Stage {
    /// With the autoscalers that are to be rehearsed, where their trace is fetched.
    pub(crate) fn new(day: &Day, autoscalers: &[Autoscaler]) -> Result<Self> {
        let zone = day.zone.as_ref().map(|name| {
            TimeZone::get(name).map_err(|_| {
                Error::new(format!("--zone {name}: no zone has that name; write such as Europe/Berlin or UTC"))
            })
        });
        let reading = Reading { zone: zone.transpose()?, fold: day.fold };
        let mut findings = Vec::new();
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let mut columns = crate::prometheus::fetch(day, autoscalers, now, &mut findings)?;
        if day.trace.is_empty() && columns.is_empty() {
            return Err(Error::new("give a recorded day with --trace FILE, or fetch it with --prometheus URL"));
        }
        for named in &day.trace {
            let (name, file) = match named.split_once('=') {
                Some((name, file)) if !std::path::Path::new(named).exists() => (Some(name), file),
                _ => (None, named.as_str()),
            };
            let mut read = trace::read(file, &text_of(file)?, &reading, &mut findings)?;
            if let (Some(name), [one]) = (name, &mut read[..]) {
                one.names.insert(0, name.to_owned());
            }
            columns.extend(read);
        }
        for label in &day.select {
            columns.retain(|held| held.names.iter().any(|name| name.contains(label.as_str())));
            if columns.is_empty() {
                return Err(Error::new(format!("--select {label}: no series of the trace has that label")));
            }
        }
        if day.sum && columns.len() > 1 {
            columns = vec![sum(&columns)];
        }
        let mut defaults = Vec::new();
        let plant = plant(day, &columns, &reading, &mut defaults)?;
        Ok(Self { columns, wish: wish(day)?, plant, initial: day.initial, defaults, findings })
    }

    /// Says what a pod carries, where no option does: those that are compared are held to one measure.
    pub(crate) fn measure_by(&mut self, capacity: Option<f64>) {
        if self.wish.capacity.is_none() {
            self.wish.capacity = capacity.map(Capacity::Of);
        }
    }

    /// Rehearses one autoscaler of a stream.
    pub(crate) fn rehearse(&self, autoscaler: &Autoscaler, workload: Option<&Workload>) -> Result<Outcome> {
        let binding = bind(autoscaler, &self.columns, workload, &self.wish, &self.plant)?;
        let mut findings = binding.findings.clone();
        findings.extend(crate::lint::look(autoscaler, None));
        let initial = self.initial.unwrap_or_else(|| {
            let recorded = binding.recorded.as_ref().and_then(|held| held.reader().value(self.plant.from));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of replicas")]
            let recorded = recorded.map(|count| (count.max(0.0) as u32, "the replicas of then"));
            let of_workload = workload.and_then(|held| held.replicas).map(|count| (count, "the workload's replicas"));
            let min = autoscaler.keda.as_ref().map_or(autoscaler.min, |keda| keda.min);
            let (initial, why) = recorded.or(of_workload).unwrap_or((min, "the minimum"));
            findings.push(Finding::note(format!("--initial {initial} is assumed: {why}")));
            initial
        });
        let is_kafka =
            autoscaler.keda.as_ref().is_some_and(|keda| keda.triggers.iter().any(|held| held.per_partition.is_some()));
        if is_kafka && self.plant.partitions.is_none() {
            findings.push(Finding::warning(
                "KEDA cuts Kafka's lag to the number of partitions times lagThreshold: say how many there are with --partitions",
            ));
        }
        if initial > 100_000 {
            return Err(Error::new(format!("--initial {initial}: more than 100000 pods are not rehearsed")));
        }
        let mut outcome = rehearse(autoscaler, &binding, &self.plant, initial)?;
        findings.append(&mut outcome.findings);
        findings.sort_by_key(|finding| finding.level);
        outcome.findings = findings;
        Ok(outcome)
    }
}

impl Stage {
    /// Rehearses the groups of a fleet on their pools.
    pub(crate) fn rehearse_fleet(&self, fleet: &Fleet) -> Result<(Vec<Outcome>, Vec<PoolUse>)> {
        let (mut bindings, mut initial) = (Vec::new(), Vec::new());
        for group in &fleet.groups {
            let binding = bind(&group.scaler, &self.columns, None, &self.wish, &self.plant)?;
            initial.push(self.initial.unwrap_or(group.scaler.min));
            bindings.push(binding);
        }
        let (mut outcomes, pools) = rehearse_fleet(fleet, &bindings, &self.plant, &initial)?;
        for (outcome, binding) in outcomes.iter_mut().zip(&bindings) {
            outcome.findings.extend(binding.findings.iter().cloned());
        }
        Ok((outcomes, pools))
    }
}

/// All series as one: the sum of what is there at each instant.
fn sum(columns: &[Column]) -> Column {
    let mut sums: BTreeMap<u64, Option<f64>> = BTreeMap::new();
    for (at, value) in columns.iter().flat_map(|held| &held.points) {
        let held = sums.entry(*at).or_default();
        *held = match (*held, *value) {
            (Some(sum), Some(value)) => Some(sum + value),
            (sum, value) => sum.or(value),
        };
    }
    let unit = columns[0].unit.clone().filter(|unit| columns.iter().all(|held| held.unit.as_ref() == Some(unit)));
    Column { names: vec!["sum".into()], unit, points: sums.into_iter().collect(), file: columns[0].file.clone() }
}

fn plant(day: &Day, columns: &[Column], reading: &Reading, defaults: &mut Vec<String>) -> Result<Plant> {
    let first = columns.iter().filter_map(|held| held.points.first()).map(|point| point.0).min();
    let last = columns.iter().filter_map(|held| held.points.last()).map(|point| point.0).max();
    let (Some(first), Some(last)) = (first, last) else { return Err(Error::new("the trace holds no row")) };
    let step = columns.iter().filter_map(|held| trace::median_step(&held.points)).min().unwrap_or(60_000);
    let from = day.from.as_ref().map_or(Ok(first), |text| instant("--from", text, reading))?;
    let until = day.until.as_ref().map_or(Ok(last + step), |text| instant("--until", text, reading))?;
    if from >= until {
        return Err(Error::new("the rehearsal would end before it begins: look at --from and --until"));
    }
    let mut take = |name: &str, given: Option<u64>, default: u64| {
        given.unwrap_or_else(|| {
            defaults.push(format!("--{name} {}", words(default)));
            default
        })
    };
    let sync_ms = take("sync", day.sync, 15_000);
    let passes = (until - from) / sync_ms.max(1);
    if sync_ms == 0 || passes > 50_000_000 {
        return Err(Error::new(format!(
            "{passes} passes of the HPA are too many for one rehearsal: look at --sync, --from and --until"
        )));
    }
    let start_ms = take("start", day.start, 60_000);
    let stop_ms = take("stop", day.stop, 30_000);
    let nodes = day.pool.map(|pool| (pool, take("node-start", day.node_start, 120_000)));
    let metric_lag_ms = take("metric-lag", day.metric_lag, 30_000);
    let metric_window_ms = take("metric-window", day.metric_window, 15_000);
    let warm_up_ms = take("warm-up", day.warm_up, 600_000);
    let flap_ms = take("flap", day.flap, 600_000);
    let downscale_window_ms = take("downscale-window", day.downscale_window, 300_000);
    let cpu_initialization_ms = take("cpu-initialization", day.cpu_initialization, 300_000);
    let initial_readiness_ms = take("initial-readiness", day.initial_readiness, 30_000);
    let tolerance = day.tolerance.unwrap_or_else(|| {
        defaults.push("--tolerance 0.1".into());
        0.1
    });
    if !(0.0..=100.0).contains(&tolerance) {
        return Err(Error::new(format!("--tolerance {tolerance}: must be a number from 0 on, such as 0.1")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    let tolerance_millionths = (tolerance * 1_000_000.0).round() as u32;
    Ok(Plant {
        from,
        until,
        sync_ms,
        start_ms,
        stop_ms,
        nodes,
        metric_lag_ms,
        metric_window_ms,
        warm_up_ms,
        flap_ms,
        tolerance_millionths,
        downscale_window_ms,
        cpu_initialization_ms,
        initial_readiness_ms,
        partitions: day.partitions,
    })
}

fn instant(option: &str, text: &str, reading: &Reading) -> Result<u64> {
    trace::instant(text, reading)
        .ok_or_else(|| Error::new(format!("{option} {text}: write an instant such as 2026-06-01T08:00:00Z")))
}

fn wish(day: &Day) -> Result<Wish> {
    let mut wish = Wish { ignored: day.ignore.clone(), between: day.between, ..Wish::default() };
    for (mode, texts) in [
        (Mode::Load, &day.load),
        (Mode::Utilisation, &day.utilisation),
        (Mode::PerPod, &day.per_pod),
        (Mode::Backlog, &day.backlog),
        (Mode::OpenLoop, &day.open_loop),
    ] {
        for text in texts {
            let (metric, column) =
                text.split_once('=').map_or((text.as_str(), None), |(metric, column)| (metric, Some(column)));
            wish.binds.push(Bind {
                mode,
                metric: Some(metric.to_owned()).filter(|metric| !metric.is_empty()),
                column: column.map(str::to_owned),
            });
        }
    }
    for text in &day.service_rate {
        let (metric, number) = text.split_once('=').unwrap_or(("", text));
        let rate = number.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
        let rate =
            rate.ok_or_else(|| Error::new(format!("--service-rate {text}: write a number above 0, or METRIC=NUMBER")))?;
        wish.service_rates.insert(metric.to_owned(), rate);
    }
    for (option, texts, map) in
        [("--request", &day.request, &mut wish.requests), ("--limit", &day.limit, &mut wish.limits)]
    {
        for text in texts {
            let (name, value) = named_quantity(option, text)?;
            map.insert(name, value);
        }
    }
    wish.recorded = day.recorded_replicas.as_ref().map(|text| match text.parse() {
        Ok(count) => Recorded::Fixed(count),
        Err(_) => Recorded::Column(text.clone()),
    });
    wish.capacity = match day.capacity.as_deref() {
        None => None,
        Some("unlimited") => Some(Capacity::Unlimited),
        Some(text) => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
            let wrong = || Error::new(format!("--capacity {text}: write a number above 0, or unlimited"));
            Some(Capacity::Of(number.ok_or_else(wrong)?))
        }
    };
    Ok(wish)
}

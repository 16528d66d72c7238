//! Which column of a trace feeds which metric, and how its values are to be read.

use std::collections::BTreeMap;

use super::Plant;
use super::guess::{default_between, guess, warn_of_mode};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::manifest::Workload;
use crate::policy::{Autoscaler, Input, Subject, Target};
use crate::quantity::{milli_of, units};
use crate::trace::{Between, Column, Reader, Series};

/// How the values of a column are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What all pods together are asked for, whatever their number.
    Load,
    /// Per cent of the request, as it was with the replicas of then.
    Utilisation,
    /// What each pod reads, whatever their number.
    PerPod,
    /// What comes in each second; what is not served waits.
    Backlog,
    /// The value of the metric as it was then.
    OpenLoop,
}

impl Mode {
    pub(crate) const fn option(self) -> &'static str {
        match self {
            Self::Load => "--load",
            Self::Utilisation => "--utilisation",
            Self::PerPod => "--per-pod",
            Self::Backlog => "--backlog",
            Self::OpenLoop => "--open-loop",
        }
    }
}

/// What an option asks for: a mode, of all metrics or of one, from a column that it may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) mode: Mode,
    pub(crate) metric: Option<String>,
    pub(crate) column: Option<String>,
}

/// The replicas that ran when the trace was recorded.
#[derive(Clone, Debug)]
pub(crate) enum Recorded {
    Fixed(u32),
    Column(String),
}

/// All that options say of binding.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) binds: Vec<Bind>,
    pub(crate) ignored: Vec<String>,
    pub(crate) recorded: Option<Recorded>,
    /// By metric; the empty name stands for all.
    pub(crate) service_rates: BTreeMap<String, f64>,
    /// Thousandths by `cpu` or `container/cpu`.
    pub(crate) requests: BTreeMap<String, i64>,
    pub(crate) limits: BTreeMap<String, i64>,
    pub(crate) capacity: Option<Capacity>,
    pub(crate) between: Option<Between>,
}

/// What one pod carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Capacity {
    Unlimited,
    Of(f64),
}

/// One input with its column.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) mode: Mode,
    pub(crate) series: Series,
    pub(crate) column: String,
    /// What a ready pod drains each second.
    pub(crate) service_rate: f64,
    /// What a pod may use at most, in thousandths.
    pub(crate) limit: Option<i64>,
}

/// An autoscaler's inputs with their columns; `None` for an input that is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Binding {
    pub(crate) inputs: Vec<Option<Bound>>,
    /// Thousandths that a pod requests, by input.
    pub(crate) requests: Vec<Option<i64>>,
    /// The replicas of then.
    pub(crate) recorded: Option<RecordedSeries>,
    /// The input that tells the demand.
    pub(crate) demand: Option<usize>,
    pub(crate) capacity: Option<f64>,
    /// Defaults and choices that were made, to be told.
    pub(crate) findings: Vec<Finding>,
}

/// The replicas of then, over time.
#[derive(Clone, Debug)]
pub(crate) enum RecordedSeries {
    Fixed(u32),
    Series(Series),
}

impl RecordedSeries {
    pub(crate) fn reader(&self) -> RecordedReader<'_> {
        match self {
            Self::Fixed(count) => RecordedReader::Fixed(f64::from(*count)),
            Self::Series(series) => RecordedReader::Series(Reader::new(series)),
        }
    }
}

/// Looks the replicas of then up.
#[derive(Clone, Debug)]
pub(crate) enum RecordedReader<'a> {
    Fixed(f64),
    Series(Reader<'a>),
}

impl RecordedReader<'_> {
    pub(crate) fn value(&mut self, at: u64) -> Option<f64> {
        match self {
            Self::Fixed(count) => Some(*count),
            Self::Series(reader) => reader.value(at),
        }
    }

    pub(crate) fn next_change(&mut self, at: u64) -> u64 {
        match self {
            Self::Fixed(_) => u64::MAX,
            Self::Series(reader) => reader.next_change(at),
        }
    }
}

/// Binds the inputs of an autoscaler to columns.
pub(crate) fn bind(
    autoscaler: &Autoscaler,
    columns: &[Column],
    workload: Option<&Workload>,
    wish: &Wish,
    plant: &Plant,
) -> Result<Binding> {
    let mut binding = Binding::default();
    let recorded_column = match &wish.recorded {
        None => None,
        Some(Recorded::Fixed(count)) => {
            binding.recorded = Some(RecordedSeries::Fixed(*count));
            None
        }
        Some(Recorded::Column(name)) => {
            let column = named(columns, name)?;
            binding.recorded = Some(RecordedSeries::Series(Series::new(column.points.clone(), Between::Held)));
            Some(column.names[0].clone())
        }
    };
    if binding.recorded.is_none()
        && let Some(column) = columns.iter().find(|held| held.names.iter().any(|name| is_replicas(name)))
        && columns.len() > 1
    {
        binding.findings.push(Finding::note(format!("`{}` is read as the replicas of then", column.names[0])));
        binding.recorded = Some(RecordedSeries::Series(Series::new(column.points.clone(), Between::Held)));
    }
    let is_value = |held: &&Column| {
        recorded_column.as_ref() != held.names.first() && !held.names.iter().any(|name| is_replicas(name))
    };
    let values: Vec<&Column> = columns.iter().filter(is_value).collect();
    let own_window = autoscaler.behavior.as_ref().and_then(|behavior| behavior.down.window_ms);
    let window_ms = own_window.unwrap_or(plant.downscale_window_ms);
    for input in &autoscaler.inputs {
        let is_ignored = wish.ignored.iter().any(|name| input.names.contains(name));
        let request = request_of(input, workload, wish);
        binding.requests.push(request);
        if is_ignored {
            binding.inputs.push(None);
            continue;
        }
        let bound = bound(input, &values, wish, workload, window_ms, &mut binding)
            .map_err(|error| at(autoscaler, input, error.message))?;
        if matches!(input.subject, Subject::Resource { .. })
            && matches!(input.target, Target::Utilization(_))
            && request.is_none()
        {
            if bound.mode == Mode::Utilisation {
                // Of a load that is told in parts of the request, the request itself is of no matter.
                if let Some(last) = binding.requests.last_mut() {
                    *last = Some(1_000);
                }
            } else if let Some(name) = lacking(input, workload) {
                let resource = &input.names[0];
                binding.findings.push(Finding::warning(format!(
                    "{resource}: container {name} requests none of it, so that Kubernetes cannot tell the utilisation: the metric fails at every pass; --request {resource}=… tells another sum"
                )));
            } else {
                return Err(no_request(input, autoscaler));
            }
        }
        binding.inputs.push(Some(bound));
    }
    find_demand(autoscaler, wish, &mut binding);
    if binding.recorded.is_none() {
        for (input, bound) in autoscaler.inputs.iter().zip(&binding.inputs) {
            if bound.as_ref().is_some_and(|bound| bound.mode == Mode::Utilisation) {
                return Err(no_replicas(input, autoscaler));
            }
        }
    }
    Ok(binding)
}

fn is_replicas(name: &str) -> bool {
    let name = name.to_lowercase();
    ["replicas", "recorded_replicas", "ready_replicas", "kube_deployment_status_replicas_ready"]
        .contains(&name.as_str())
}

fn named<'a>(columns: &'a [Column], name: &str) -> Result<&'a Column> {
    let found: Vec<&Column> = columns.iter().filter(|held| held.names.iter().any(|known| known == name)).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Error::new(format!("the trace has no column `{name}`; it has {}", list(columns.iter())))),
        _ => Err(Error::new(format!(
            "several series of the trace are called `{name}`: add them up with --sum, or choose one with --select"
        ))),
    }
}

fn list<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    let names: Vec<String> = columns.map(|held| format!("`{}`", held.names[0])).collect();
    match names.len() {
        0..=12 => names.join(", "),
        more => format!("{} and {} more", names[..12].join(", "), more - 12),
    }
}

/// The column, the mode and what belongs to them of one input.
fn bound(
    input: &Input,
    values: &[&Column],
    wish: &Wish,
    workload: Option<&Workload>,
    window_ms: u64,
    binding: &mut Binding,
) -> Result<Bound> {
    let own = |bind: &&Bind| bind.metric.as_ref().is_some_and(|metric| input.names.contains(metric));
    let asked = wish.binds.iter().find(own).or_else(|| wish.binds.iter().find(|bind| bind.metric.is_none()));
    let by_name = |names: &[String]| -> Option<&Column> {
        names.iter().find_map(|name| values.iter().find(|held| held.names.contains(name))).copied()
    };
    let column = match asked.and_then(|bind| bind.column.as_ref()) {
        Some(name) => {
            let found: Vec<Column> = values.iter().map(|held| (*held).clone()).collect();
            named(&found, name)?;
            by_name(std::slice::from_ref(name))
        }
        None => by_name(&input.names).or(if let [one] = values { Some(*one) } else { None }),
    };
    let Some(column) = column else {
        return Err(Error::new(format!(
            "metric {name} has no column in the trace, which has {}: bind one, such as with --load {name}=COLUMN, or leave the metric out with --ignore {name}",
            list(values.iter().copied()),
            name = input.names[0],
        )));
    };
    let mode = match asked {
        Some(bind) => bind.mode,
        None => guess(input, column, binding),
    };
    let is_resource = matches!(input.subject, Subject::Resource { .. });
    if mode == Mode::Utilisation && !is_resource {
        return Err(Error::new(format!("--utilisation {}: a utilisation is of cpu or memory alone", input.names[0])));
    }
    let service_rate =
        input.names.iter().find_map(|name| wish.service_rates.get(name)).or_else(|| wish.service_rates.get(""));
    if mode == Mode::Backlog && service_rate.is_none() {
        return Err(Error::new(format!(
            "--backlog {name} needs --service-rate {name}=N: what one ready pod works off each second",
            name = input.names[0]
        )));
    }
    let between = wish.between.unwrap_or_else(|| default_between(column, window_ms, binding));
    let limit = match &input.subject {
        Subject::Resource { resource, container } => find(&wish.limits, resource, container.as_deref())
            .or_else(|| workload.and_then(|held| held.limit(resource, container.as_deref()))),
        Subject::Pods | Subject::Total => None,
    };
    warn_of_mode(input, mode, binding);
    Ok(Bound {
        mode,
        series: Series::new(column.points.clone(), between),
        column: column.names[0].clone(),
        service_rate: service_rate.copied().unwrap_or(0.0),
        limit,
    })
}

fn find(map: &BTreeMap<String, i64>, resource: &str, container: Option<&str>) -> Option<i64> {
    let whole = container.map(|container| format!("{container}/{resource}"));
    whole.and_then(|name| map.get(&name)).or_else(|| map.get(resource)).copied()
}

fn request_of(input: &Input, workload: Option<&Workload>, wish: &Wish) -> Option<i64> {
    let Subject::Resource { resource, container } = &input.subject else { return None };
    find(&wish.requests, resource, container.as_deref())
        .or_else(|| workload.and_then(|held| held.request(resource, container.as_deref())))
}

/// The container of a workload that makes a utilisation untold.
fn lacking<'a>(input: &Input, workload: Option<&'a Workload>) -> Option<&'a str> {
    let Subject::Resource { resource, container } = &input.subject else { return None };
    workload?.without_request(resource, container.as_deref())
}

fn no_request(input: &Input, autoscaler: &Autoscaler) -> Error {
    let name = input.names.first().map_or("cpu", String::as_str);
    let example = if name.ends_with("memory") { "256Mi" } else { "500m" };
    at(
        autoscaler,
        input,
        format!(
            "{}: a utilisation is of what a pod requests, and that is not known: say it with --request {name}={example}, or put the {} {} into the policy's stream",
            autoscaler.title(),
            autoscaler.target.0,
            autoscaler.target.1
        ),
    )
}

fn no_replicas(input: &Input, autoscaler: &Autoscaler) -> Error {
    let workload = &autoscaler.target.1;
    at(
        autoscaler,
        input,
        format!(
            "a recorded utilisation is not a load: the autoscaler of then held it at its target, so the replicas of then must be known. Give --recorded-replicas N or --recorded-replicas COLUMN, or fetch the load and the replicas instead: \
             `sum(rate(container_cpu_usage_seconds_total{{pod=~\"{workload}-.*\"}}[2m]))` with --load, and `kube_deployment_status_replicas_ready{{deployment=\"{workload}\"}}`"
        ),
    )
}

/// A fault of an input, with its place in the manifest.
fn at(autoscaler: &Autoscaler, input: &Input, message: String) -> Error {
    Error {
        file: Some(autoscaler.file.clone()),
        at: Some((input.at.line, input.at.column)),
        path: input.path.clone(),
        message,
    }
}

/// Which input is the demand, and what one pod carries of it.
fn find_demand(autoscaler: &Autoscaler, wish: &Wish, binding: &mut Binding) {
    let is_demand = |bound: &Option<Bound>| {
        bound.as_ref().is_some_and(|bound| matches!(bound.mode, Mode::Load | Mode::Utilisation | Mode::Backlog))
    };
    binding.demand = binding.inputs.iter().position(is_demand);
    let Some(place) = binding.demand else { return };
    let (input, request) = (&autoscaler.inputs[place], binding.requests[place]);
    let Some(bound) = &binding.inputs[place] else { return };
    binding.capacity = match wish.capacity {
        Some(Capacity::Unlimited) => None,
        Some(Capacity::Of(capacity)) => Some(capacity),
        None => {
            let (found, why) = match (bound.mode, input.target) {
                (Mode::Backlog, _) => (Some(bound.service_rate), "the service rate"),
                (_, Target::Utilization(percent)) => {
                    (request.map(|request| units(request) * units(percent * 10)), "the target share of the request")
                }
                (_, Target::AverageValue(milli)) => (Some(units(milli)), "the target for each replica"),
                (_, Target::Value(_)) => (None, ""),
            };
            if let Some(found) = found {
                binding.findings.push(Finding::note(format!("--capacity {found} is assumed: {why}")));
            }
            found
        }
    };
}

impl Binding {
    /// The demand at an instant, in the unit of the capacity.
    pub(crate) fn demand_reader(&self) -> Option<Demand<'_>> {
        let place = self.demand?;
        let bound = self.inputs[place].as_ref()?;
        let recorded = self.recorded.as_ref().filter(|_| bound.mode == Mode::Utilisation).map(RecordedSeries::reader);
        Some(Demand::new(&bound.series, recorded, units(self.requests[place].unwrap_or(1_000))))
    }

    pub(crate) fn demand_name(&self) -> String {
        let bound = self.demand.and_then(|place| self.inputs[place].as_ref());
        bound.map(|bound| bound.column.clone()).unwrap_or_default()
    }
}

/// The most rows of a demand that are kept for a picture.
const MAX_ROWS: usize = 2_000_000;

impl Binding {
    /// The demand at each row, for a picture.
    pub(crate) fn demand_rows(&self, plant: &Plant) -> Vec<(u64, Option<f64>)> {
        let Some(mut reader) = self.demand_reader() else { return Vec::new() };
        let mut rows = Vec::new();
        let mut at = plant.from;
        // A straight line is followed in steps that a picture can show.
        let fine = ((plant.until - plant.from) / 20_000).max(1_000);
        let is_linear =
            |place: usize| self.inputs[place].as_ref().is_some_and(|bound| bound.series.between == Between::Linear);
        let step = if self.demand.is_some_and(is_linear) { fine } else { u64::MAX };
        while at < plant.until && rows.len() < MAX_ROWS {
            rows.push((at, reader.value(at)));
            at = reader.next_change(at).min(at.saturating_add(step)).max(at + 1);
        }
        rows
    }
}

/// Looks the demand up.
#[derive(Clone, Debug)]
pub(crate) struct Demand<'a> {
    values: Reader<'a>,
    recorded: Option<RecordedReader<'a>>,
    request: f64,
}

impl<'a> Demand<'a> {
    pub(crate) const fn new(series: &'a Series, recorded: Option<RecordedReader<'a>>, request: f64) -> Self {
        Self { values: Reader::new(series), recorded, request }
    }

    pub(crate) fn value(&mut self, at: u64) -> Option<f64> {
        let value = self.values.value(at)?;
        match &mut self.recorded {
            None => Some(value),
            Some(recorded) => Some(value / 100.0 * self.request * recorded.value(at)?),
        }
    }

    pub(crate) fn next_change(&mut self, at: u64) -> u64 {
        let values = self.values.next_change(at);
        self.recorded.as_mut().map_or(values, |recorded| values.min(recorded.next_change(at)))
    }
}

/// A load in thousandths.
pub(super) fn milli(value: f64) -> i64 {
    milli_of(value).unwrap_or(0)
}

//! What a manifest says, once it has been read: the same few nouns for every kind and version.

use yaml::Mark;

use crate::cron::Window;
use crate::formula::Formula;

/// One autoscaler of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Autoscaler {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    /// The workload that it scales: kind and name.
    pub(crate) target: (String, String),
    /// The file that it was read from.
    pub(crate) file: String,
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// What a trace has to tell, or an option has to bind.
    pub(crate) inputs: Vec<Input>,
    /// What the HPA measures, in its order.
    pub(crate) metrics: Vec<Metric>,
    /// `None` for a manifest without a `behavior`, which is not the same as one with its defaults.
    pub(crate) behavior: Option<Behavior>,
    /// Of a `ScaledObject`: what KEDA does around its HPA.
    pub(crate) keda: Option<Keda>,
}

/// Something that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// The names under which it may be bound to a column, the first one first.
    pub(crate) names: Vec<String>,
    pub(crate) subject: Subject,
    pub(crate) path: String,
    pub(crate) at: Mark,
    /// What is aimed for.
    pub(crate) target: Target,
    /// What a gap in the trace is.
    pub(crate) gap: Gap,
    /// The query of a prometheus trigger.
    pub(crate) query: Option<String>,
    /// Whether the source is a queue, whose depth the pods of then have drained.
    pub(crate) is_queue: bool,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A resource of each pod, or of one container of each pod.
    Resource { resource: String, container: Option<String> },
    /// Something else of each pod.
    Pods,
    /// Something of another object, or from outside.
    Total,
}

/// What a missing value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The metric has failed.
    Fails,
    /// The metric reads 0.
    Zero,
}

/// What is aimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Whole per cent of the request.
    Utilization(i64),
    /// Thousandths for each replica.
    AverageValue(i64),
    /// Thousandths, as it is.
    Value(i64),
}

/// A metric of the HPA.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) label: String,
    pub(crate) source: Source,
    pub(crate) target: Target,
}

/// Where the value of a metric comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An input, by its place.
    Input(usize),
    /// A trigger of KEDA, by its place.
    Trigger(usize),
    /// The formula over the triggers.
    Formula,
}

/// How fast, and after how long, an HPA moves; the tolerances are in millionths.
#[derive(Clone, Debug)]
pub(crate) struct Behavior {
    pub(crate) up: Rules,
    pub(crate) down: Rules,
}

/// One direction of a [`Behavior`].
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) select: Select,
    pub(crate) policies: Vec<Pace>,
    /// `None` for the controller's own window.
    pub(crate) window_ms: Option<u64>,
    pub(crate) tolerance_millionths: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Select {
    Max,
    Min,
    Disabled,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) unit: PaceUnit,
    pub(crate) value: u32,
    pub(crate) period_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaceUnit {
    Pods,
    Percent,
}

impl Rules {
    /// What Kubernetes fills in where a behavior does not speak of growing.
    pub(crate) fn default_up() -> Self {
        let pods = Pace { unit: PaceUnit::Pods, value: 4, period_ms: 15_000 };
        let percent = Pace { unit: PaceUnit::Percent, value: 100, period_ms: 15_000 };
        Self { select: Select::Max, policies: vec![pods, percent], window_ms: Some(0), tolerance_millionths: None }
    }

    /// What Kubernetes fills in where a behavior does not speak of shrinking.
    pub(crate) fn default_down() -> Self {
        let percent = Pace { unit: PaceUnit::Percent, value: 100, period_ms: 15_000 };
        Self { select: Select::Max, policies: vec![percent], window_ms: None, tolerance_millionths: None }
    }
}

/// What KEDA does around the HPA that it makes.
#[derive(Clone, Debug)]
pub(crate) struct Keda {
    pub(crate) polling_ms: u64,
    pub(crate) cooldown_ms: u64,
    pub(crate) initial_cooldown_ms: u64,
    /// As it is written: 0 allows zero.
    pub(crate) min: u32,
    pub(crate) idle: Option<u32>,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) formula: Option<Composite>,
    pub(crate) pauses: Pauses,
}

/// What annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pauses {
    pub(crate) at_replicas: Option<u32>,
    pub(crate) set: Vec<Pause>,
}

/// An annotation that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// The HPA is deleted, and the loop rests.
    Whole,
    Shrinking,
    Growing,
    /// The opposite of a pause: triggers count as active.
    ForcedActive,
}

impl Pauses {
    pub(crate) fn put(&mut self, pause: Pause, is_set: bool) {
        if is_set && !self.has(pause) {
            self.set.push(pause);
        }
    }

    pub(crate) fn has(&self, pause: Pause) -> bool {
        self.set.contains(&pause)
    }

    /// Whether nothing scales the workload.
    pub(crate) fn is_whole(&self) -> bool {
        self.at_replicas.is_some() || self.has(Pause::Whole)
    }
}

/// A trigger of a `ScaledObject`.
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    pub(crate) kind: String,
    pub(crate) name: Option<String>,
    pub(crate) feed: Feed,
    pub(crate) target: Target,
    /// The trigger is active above this, in thousandths.
    pub(crate) activation: i64,
    /// Whether the HPA sees what the last poll saw.
    pub(crate) cached: bool,
    /// Kafka's lag is cut to this much for each partition.
    pub(crate) per_partition: Option<i64>,
}

/// Where a trigger's value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Feed {
    /// An input, by its place.
    Input(usize),
    /// CPU or memory, which has no value of KEDA's.
    Resource,
    /// A window of time.
    Cron(Box<Window>),
}

/// What holds while triggers fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fallback {
    pub(crate) threshold: u32,
    pub(crate) replicas: u32,
    pub(crate) behavior: FallbackBehavior,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FallbackBehavior {
    Static,
    Current,
    CurrentIfHigher,
    CurrentIfLower,
    ScalingModifiers,
}

/// A formula over triggers, in the place of them.
#[derive(Clone, Debug)]
pub(crate) struct Composite {
    pub(crate) formula: Formula,
    pub(crate) target: Target,
    pub(crate) activation: f64,
}

impl Autoscaler {
    /// `HorizontalPodAutoscaler web`.
    pub(crate) fn title(&self) -> String {
        let kind = if self.keda.is_some() { "ScaledObject" } else { "HorizontalPodAutoscaler" };
        match &self.namespace {
            Some(namespace) => format!("{kind} {namespace}/{}", self.name),
            None => format!("{kind} {}", self.name),
        }
    }
}

impl Target {
    /// The number, in its own unit.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Utilization(number) | Self::AverageValue(number) | Self::Value(number) => number,
        }
    }
}

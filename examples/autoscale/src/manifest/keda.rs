//! KEDA's `ScaledObject`.

use yaml::{Error, View};

use super::behavior;
use super::field::{Metadata, Reader, both, count, metadata, shown, source};
use super::trigger;
use crate::formula::Formula;
use crate::policy::{
    Autoscaler, Behavior, Composite, Fallback, FallbackBehavior, Feed, Input, Keda, Metric, Pause, Pauses, Rules,
    Select, Source, Target, Trigger,
};
use crate::quantity::milli_of;

pub(super) fn read(root: &View<'_>, version: &str, reader: &mut Reader<'_>) -> Result<Autoscaler, Error> {
    check_version(root, version)?;
    reader.fields(root, &["apiVersion", "kind", "metadata", "spec", "status"], &[])?;
    let metadata = metadata(root)?;
    let pauses = pauses(&metadata)?;
    let spec = root.require("spec")?;
    let known = reader.fields(&spec, &FIELDS, &[]);
    both(known, scaled_object(&spec, metadata, pauses, reader))
}

fn scaled_object(
    spec: &View<'_>,
    metadata: Metadata,
    pauses: Pauses,
    reader: &mut Reader<'_>,
) -> Result<Autoscaler, Error> {
    let target = reference(&spec.require("scaleTargetRef")?, reader)?;
    let bounds = Bounds::read(spec, reader)?;
    let mut list = triggers(spec, bounds.min, reader)?;
    without_effect(spec, &bounds, &list.all, reader)?;
    let advanced = advanced(spec, &list.all, reader)?;
    if let Some(formula) = &advanced.formula {
        list.metrics.retain(|metric| matches!(metric.source, Source::Input(_)));
        let label = "composite-metric".into();
        list.metrics.push(Metric { label, source: Source::Formula, target: formula.target });
    }
    let only_resources = list.all.iter().all(|held| matches!(held.feed, Feed::Resource));
    let fallback = spec.get("fallback")?.map(|view| fallback(&view, only_resources, &advanced, reader)).transpose()?;
    let mut behavior = advanced.behavior;
    for (pause, up) in [(Pause::Shrinking, false), (Pause::Growing, true)] {
        if pauses.has(pause) {
            let filled = || Behavior { up: Rules::default_up(), down: Rules::default_down() };
            let held = behavior.get_or_insert_with(filled);
            let rules = if up { &mut held.up } else { &mut held.down };
            rules.select = Select::Disabled;
        }
    }
    let ms = |name: &str, least: u32, otherwise: u32| {
        number(spec, name, least, otherwise).map(|count| u64::from(count) * 1_000)
    };
    let keda = Keda {
        polling_ms: ms("pollingInterval", 1, 30)?,
        cooldown_ms: ms("cooldownPeriod", 0, 300)?,
        initial_cooldown_ms: ms("initialCooldownPeriod", 0, 0)?,
        min: bounds.min,
        idle: bounds.idle,
        triggers: list.all,
        fallback,
        formula: advanced.formula,
        pauses,
    };
    Ok(Autoscaler {
        name: metadata.name,
        namespace: metadata.namespace,
        target,
        file: reader.file(),
        min: bounds.min.max(1),
        max: bounds.max,
        inputs: with_unique_names(list.inputs),
        metrics: list.metrics,
        behavior,
        keda: Some(keda),
    })
}

const FIELDS: [&str; 10] = [
    "scaleTargetRef",
    "pollingInterval",
    "cooldownPeriod",
    "initialCooldownPeriod",
    "idleReplicaCount",
    "minReplicaCount",
    "maxReplicaCount",
    "advanced",
    "triggers",
    "fallback",
];

fn check_version(root: &View<'_>, version: &str) -> Result<(), Error> {
    let view = root.require("apiVersion")?;
    match version {
        "keda.sh/v1alpha1" => Ok(()),
        "keda.k8s.io/v1alpha1" => Err(view.error(
            "is of KEDA 1: write `apiVersion: keda.sh/v1alpha1`, `scaleTargetRef.name` for `deploymentName`, and minReplicaCount under `spec`",
        )),
        other => Err(view.error(format!("must be keda.sh/v1alpha1, found `{other}`"))),
    }
}

fn number(spec: &View<'_>, name: &str, least: u32, otherwise: u32) -> Result<u32, Error> {
    spec.get(name)?.map_or(Ok(otherwise), |view| count(&view, least))
}

/// How many replicas there may be.
struct Bounds {
    min: u32,
    max: u32,
    idle: Option<u32>,
}

impl Bounds {
    fn read(spec: &View<'_>, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let (min, max) = (number(spec, "minReplicaCount", 0, 0)?, number(spec, "maxReplicaCount", 1, 100)?);
        if min > max {
            let view = spec.require("minReplicaCount")?;
            return Err(view.error(format!("MinReplicaCount={min} must be less than MaxReplicaCount={max}")));
        }
        let Some(view) = spec.get("idleReplicaCount")? else { return Ok(Self { min, max, idle: None }) };
        let idle = count(&view, 0)?;
        if idle >= min {
            return Err(view.error(format!(
                "IdleReplicaCount={idle} must be less than MinReplicaCount={min}: leave idleReplicaCount out, or raise minReplicaCount"
            )));
        }
        if idle > 0 {
            reader.warn(&view, "only 0 works: the HPA brings the workload back to minReplicaCount from any other size");
        }
        Ok(Self { min, max, idle: Some(idle) })
    }
}

/// What stands under `triggers`.
#[derive(Default)]
struct Triggers {
    inputs: Vec<Input>,
    metrics: Vec<Metric>,
    all: Vec<Trigger>,
}

fn triggers(spec: &View<'_>, min: u32, reader: &mut Reader<'_>) -> Result<Triggers, Error> {
    let mut held = Triggers::default();
    let list = spec.require("triggers")?;
    for (place, view) in list.items()?.enumerate() {
        let (trigger, of_resource) = trigger::read(&view, place, &mut held.inputs, reader)?;
        let is_twin = |other: &Trigger| other.name.is_some() && other.name == trigger.name;
        if held.all.iter().any(is_twin) {
            let name = trigger.name.unwrap_or_default();
            return Err(view.error(format!(
                "triggerName \"{name}\" is defined multiple times in the ScaledObject, but it must be unique"
            )));
        }
        let label = trigger.name.clone().unwrap_or_else(|| format!("s{place}-{}", trigger.kind));
        let (source, target) = match of_resource {
            Some(target) => (Source::Input(held.inputs.len() - 1), target),
            None => (Source::Trigger(place), trigger.target),
        };
        held.metrics.push(Metric { label, source, target });
        held.all.push(trigger);
    }
    if held.all.is_empty() {
        return Err(list.error("no triggers defined in the ScaledObject"));
    }
    if min == 0 && held.all.iter().all(|held| matches!(held.feed, Feed::Resource)) {
        let view = spec.get("minReplicaCount")?.unwrap_or(list);
        return Err(Error::new(
            view.at(),
            "spec.minReplicaCount",
            "scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in this case): set minReplicaCount to 1 or more",
        ));
    }
    Ok(held)
}

/// Tells of spans of time that govern nothing.
fn without_effect(
    spec: &View<'_>,
    bounds: &Bounds,
    triggers: &[Trigger],
    reader: &mut Reader<'_>,
) -> Result<(), Error> {
    if bounds.min == 0 || bounds.idle.is_some() {
        return Ok(());
    }
    let min = bounds.min;
    if let Some(view) = spec.get("cooldownPeriod")? {
        reader.warn(
            &view,
            format!("has no effect with minReplicaCount {min} and no idleReplicaCount; what shrinks N to {min} is the HPA's scaleDown behavior"),
        );
    }
    if let Some(view) = spec.get("pollingInterval")?.filter(|_| !triggers.iter().any(|held| held.cached)) {
        reader.warn(
            &view,
            format!("has no effect with minReplicaCount {min} and no idleReplicaCount; the HPA asks every 15 s"),
        );
    }
    Ok(())
}

/// A type that several triggers have names none of them.
fn with_unique_names(mut inputs: Vec<Input>) -> Vec<Input> {
    let all: Vec<String> = inputs.iter().flat_map(|input| input.names.clone()).collect();
    for input in &mut inputs {
        input.names.retain(|name| all.iter().filter(|other| *other == name).count() == 1);
    }
    inputs
}

fn reference(view: &View<'_>, reader: &mut Reader<'_>) -> Result<(String, String), Error> {
    if let Some(old) = view.get("deploymentName")? {
        return Err(old.error("is of KEDA 1: write `name`"));
    }
    reader.fields(view, &["apiVersion", "kind", "name"], &["envSourceContainerName"])?;
    let kind = view.get("kind")?.map_or_else(|| Ok("Deployment".to_owned()), |kind| source(&kind))?;
    Ok((kind, source(&view.require("name")?)?))
}

/// What annotations ask for; a text that is no truth value counts as true, as in KEDA.
fn pauses(metadata: &Metadata) -> Result<Pauses, Error> {
    let mut pauses = Pauses::default();
    let is_true = |text: &str| !matches!(text, "false" | "False" | "FALSE" | "f" | "F" | "0");
    for (name, value, at, path) in &metadata.annotations {
        match name.strip_prefix("autoscaling.keda.sh/") {
            Some("paused") => pauses.put(Pause::Whole, is_true(value)),
            Some("paused-replicas") => {
                let count = value.parse::<u32>().ok().filter(|count| *count <= i32::MAX.unsigned_abs());
                let error = || Error::new(*at, path.clone(), format!("must be a whole number, found `{value}`"));
                pauses.at_replicas = Some(count.ok_or_else(error)?);
            }
            Some("paused-scale-in") => pauses.put(Pause::Shrinking, is_true(value)),
            Some("paused-scale-out") => pauses.put(Pause::Growing, is_true(value)),
            Some("force-activation") => pauses.put(Pause::ForcedActive, is_true(value)),
            _ => {}
        }
    }
    Ok(pauses)
}

#[derive(Default)]
struct Advanced {
    behavior: Option<Behavior>,
    formula: Option<Composite>,
}

fn advanced(spec: &View<'_>, triggers: &[Trigger], reader: &mut Reader<'_>) -> Result<Advanced, Error> {
    let Some(view) = spec.get("advanced")? else { return Ok(Advanced::default()) };
    reader.fields(&view, &["horizontalPodAutoscalerConfig", "scalingModifiers"], &["restoreToOriginalReplicaCount"])?;
    let mut advanced = Advanced::default();
    if let Some(config) = view.get("horizontalPodAutoscalerConfig")? {
        reader.fields(&config, &["behavior"], &["name"])?;
        advanced.behavior = config.get("behavior")?.map(|view| behavior::read(&view, reader)).transpose()?;
    }
    if let Some(modifiers) = view.get("scalingModifiers")?.filter(|held| held.map().is_ok_and(|map| !map.is_empty())) {
        advanced.formula = Some(composite(&modifiers, triggers, reader)?);
    }
    Ok(advanced)
}

fn composite(view: &View<'_>, triggers: &[Trigger], reader: &mut Reader<'_>) -> Result<Composite, Error> {
    reader.fields(view, &["formula", "target", "activationTarget", "metricType"], &[])?;
    let number = |name: &str| -> Result<Option<f64>, Error> {
        let Some(held) = view.get(name)? else { return Ok(None) };
        let parsed = source(&held)?.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        parsed.map(Some).ok_or_else(|| held.error(format!("must be a number, found `{}`", shown(&held))))
    };
    let formula_view = view.require("formula")?;
    let mut names = Vec::new();
    for (place, trigger) in triggers.iter().enumerate() {
        match (&trigger.feed, &trigger.name) {
            (Feed::Resource, _) => {}
            (_, Some(name)) => names.push(name.clone()),
            (_, None) => {
                return Err(Error::new(
                    formula_view.at(),
                    format!("spec.triggers[{place}].name"),
                    "is missing: with a formula every trigger that is not cpu or memory needs a name",
                ));
            }
        }
    }
    let formula = Formula::parse(&source(&formula_view)?, &names).map_err(|words| formula_view.error(words))?;
    let milli = number("target")?.and_then(milli_of);
    let Some(milli) = milli.filter(|milli| *milli > 0) else {
        return Err(Error::new(
            view.at(),
            format!("{}.target", view.path()),
            "formula is given but target is empty or not greater than 0",
        ));
    };
    let target = match view.get("metricType")? {
        Some(kind) => match kind.text()? {
            "AverageValue" => Target::AverageValue(milli),
            "Value" => Target::Value(milli),
            other => return Err(kind.error(format!("must be AverageValue or Value, found `{other}`"))),
        },
        None => Target::AverageValue(milli),
    };
    Ok(Composite { formula, target, activation: number("activationTarget")?.unwrap_or(0.0) })
}

fn fallback(
    view: &View<'_>,
    only_resources: bool,
    advanced: &Advanced,
    reader: &mut Reader<'_>,
) -> Result<Fallback, Error> {
    reader.fields(view, &["failureThreshold", "replicas", "behavior"], &[])?;
    if only_resources && advanced.formula.is_none() {
        return Err(view.error("needs at least one trigger that is not cpu or memory"));
    }
    let behavior = match view.get("behavior")? {
        None => FallbackBehavior::Static,
        Some(held) => match held.text()? {
            "static" => FallbackBehavior::Static,
            "currentReplicas" => FallbackBehavior::Current,
            "currentReplicasIfHigher" => FallbackBehavior::CurrentIfHigher,
            "currentReplicasIfLower" => FallbackBehavior::CurrentIfLower,
            "scalingModifiers" if advanced.formula.is_some() => FallbackBehavior::ScalingModifiers,
            "scalingModifiers" => {
                return Err(
                    held.error("scalingModifiers fallback behavior requires scalingModifiers.formula to be defined")
                );
            }
            other => {
                return Err(held.error(format!(
                    "must be static, currentReplicas, currentReplicasIfHigher, currentReplicasIfLower or scalingModifiers, found `{other}`"
                )));
            }
        },
    };
    let threshold = count(&view.require("failureThreshold")?, 0)?;
    Ok(Fallback { threshold, replicas: count(&view.require("replicas")?, 0)?, behavior })
}

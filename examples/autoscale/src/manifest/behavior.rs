//! `behavior`: windows, policies and tolerances.

use yaml::{Error, View};

use super::field::{Reader, count, shown};
use crate::policy::{Behavior, Pace, PaceUnit, Rules, Select};

/// Reads a `behavior`, and fills in what it does not say as Kubernetes does.
pub(super) fn read(view: &View<'_>, reader: &mut Reader<'_>) -> Result<Behavior, Error> {
    reader.fields(view, &["scaleUp", "scaleDown"], &[])?;
    let mut behavior = Behavior { up: Rules::default_up(), down: Rules::default_down() };
    for (name, rules) in [("scaleUp", &mut behavior.up), ("scaleDown", &mut behavior.down)] {
        if let Some(view) = view.get(name)? {
            direction(&view, rules, reader)?;
        }
    }
    Ok(behavior)
}

fn direction(view: &View<'_>, rules: &mut Rules, reader: &mut Reader<'_>) -> Result<(), Error> {
    reader.fields(view, &["stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"], &[])?;
    if let Some(window) = view.get("stabilizationWindowSeconds")? {
        let seconds = count(&window, 0)?;
        if seconds > 3_600 {
            return Err(window.error(format!("must be at most 3600, found {seconds}")));
        }
        rules.window_ms = Some(u64::from(seconds) * 1_000);
    }
    if let Some(select) = view.get("selectPolicy")? {
        rules.select = match select.text()? {
            "Max" => Select::Max,
            "Min" => Select::Min,
            "Disabled" => Select::Disabled,
            other => return Err(select.error(format!("must be Max, Min or Disabled, found `{other}`"))),
        };
    }
    if let Some(policies) = view.get("policies")? {
        rules.policies = policies.items()?.map(|policy| pace(&policy, reader)).collect::<Result<_, _>>()?;
        if rules.policies.is_empty() {
            return Err(policies.error("must specify at least one policy; leave the field out for the default ones"));
        }
    }
    if let Some(tolerance) = view.get("tolerance")? {
        rules.tolerance_millionths = Some(millionths(&tolerance)?);
        reader.note(&tolerance, "needs Kubernetes 1.33 with the feature gate HPAConfigurableTolerance, or a later one");
    }
    Ok(())
}

fn pace(view: &View<'_>, reader: &mut Reader<'_>) -> Result<Pace, Error> {
    reader.fields(view, &["type", "value", "periodSeconds"], &[])?;
    let kind = view.require("type")?;
    let unit = match kind.text()? {
        "Pods" => PaceUnit::Pods,
        "Percent" => PaceUnit::Percent,
        other => return Err(kind.error(format!("must be Pods or Percent, found `{other}`"))),
    };
    let period = view.require("periodSeconds")?;
    let seconds = count(&period, 1)?;
    if seconds > 1_800 {
        return Err(period.error(format!("must be at most 1800, found {seconds}")));
    }
    Ok(Pace { unit, value: count(&view.require("value")?, 1)?, period_ms: u64::from(seconds) * 1_000 })
}

/// A tolerance in millionths.
fn millionths(view: &View<'_>) -> Result<u32, Error> {
    let text = shown(view);
    let value = match text.strip_suffix('m') {
        Some(milli) => milli.parse::<f64>().ok().map(|value| value / 1_000.0),
        None => text.parse::<f64>().ok(),
    };
    match value {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
        Some(value) if (0.0..=1_000.0).contains(&value) => Ok((value * 1_000_000.0).round() as u32),
        _ => Err(view.error(format!("must be a number from 0 on, such as 0.05, found `{text}`"))),
    }
}

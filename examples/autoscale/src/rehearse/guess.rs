//! What options do not say: the likeliest reading of a column, each told, and with its doubts.

use super::binding::{Binding, Mode};
use crate::finding::Finding;
use crate::policy::{Input, Subject, Target};
use crate::trace::{Between, Column};

/// What a column most likely holds, where no option says it.
pub(super) fn guess(input: &Input, column: &Column, binding: &mut Binding) -> Mode {
    let file = column.file.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = format!("{} {file}", column.names.join(" ")).to_lowercase();
    let percent = column.unit.as_deref() == Some("%")
        || ["utilization", "utilisation", "percent"].iter().any(|word| name.contains(word));
    let (mode, why) = match &input.subject {
        Subject::Resource { .. } if percent => (Mode::Utilisation, "its name, its file or its unit says per cent"),
        Subject::Resource { resource, .. } if resource == "memory" => (Mode::PerPod, "memory is of each pod"),
        Subject::Resource { .. } => (Mode::Load, "as cores that all pods together use"),
        Subject::Pods => (Mode::Load, "as what all pods together are asked for"),
        Subject::Total if input.is_queue => (Mode::OpenLoop, "as the depth of a queue as it was"),
        Subject::Total if matches!(input.target, Target::Value(_)) => (Mode::OpenLoop, "its target is a Value"),
        Subject::Total => (Mode::Load, "as a total that does not depend on the pods"),
    };
    binding.findings.push(Finding::note(format!(
        "{}: `{}` is read with {} ({why}); --load, --utilisation, --per-pod, --backlog or --open-loop say otherwise",
        input.names[0],
        column.names[0],
        mode.option()
    )));
    mode
}

/// What has to be known of a mode.
pub(super) fn warn_of_mode(input: &Input, mode: Mode, binding: &mut Binding) {
    let name = &input.names[0];
    match mode {
        Mode::OpenLoop if input.is_queue => binding.findings.push(Finding::warning(format!(
            "{name}: the recorded depth was worked off by the pods of then, and does not follow those of the rehearsal; --backlog with the arrivals does"
        ))),
        Mode::OpenLoop => binding.findings.push(Finding::warning(format!(
            "{name}: the recorded value does not follow the pods of the rehearsal"
        ))),
        Mode::PerPod => binding.findings.push(Finding::note(format!(
            "{name}: each pod reads what the trace says, however many there are"
        ))),
        Mode::Load | Mode::Utilisation | Mode::Backlog => {}
    }
    if mode == Mode::Load && matches!(input.target, Target::Value(_)) {
        binding.findings.push(Finding::warning(format!(
            "{name}: a Value target is compared with a total that does not fall as pods are added, so that the size goes to its maximum; AverageValue divides by the pods"
        )));
    }
}

/// Held rows that are as far apart as the window of scaling in resonate with it.
pub(super) fn default_between(column: &Column, window_ms: u64, binding: &mut Binding) -> Between {
    let step = crate::trace::median_step(&column.points);
    if step.is_some_and(|step| window_ms > 0 && step >= window_ms / 2 && column.points.len() > 2) {
        let text = format!(
            "the rows of `{}` are {} apart, and half the window of scaling in is {}: held rows would resonate with it, and values are taken on straight lines between rows; --between held says otherwise",
            column.names[0],
            crate::quantity::words(step.unwrap_or(0)),
            crate::quantity::words(window_ms / 2)
        );
        binding.findings.push(Finding::warning(text));
        return Between::Linear;
    }
    Between::Held
}

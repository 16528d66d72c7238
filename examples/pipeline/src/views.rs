//! Looking at a plan without running it: lists, graphs, explanations.

use std::fmt::Write as _;

use gitlab_ci::{AllowFailure, Job, Plan, Start, When};

use crate::select::waits_for;

/// What starts a job, in a few words.
fn start(job: &Job) -> String {
    let when = match job.when {
        When::OnSuccess => "on success",
        When::OnFailure => "on failure",
        When::Always => "always",
    };
    match job.start {
        Start::Auto => when.to_owned(),
        Start::Manual => "manual".to_owned(),
        Start::After(time) => format!("after {} s", time.as_secs()),
    }
}

/// A table of the jobs.
pub(crate) fn list(plan: &Plan) -> String {
    let width = |of: &dyn Fn(&Job) -> usize| plan.jobs.iter().map(of).max().unwrap_or(0);
    let name = width(&|job| job.name.chars().count()).max(4);
    let stage = width(&|job| job.stage.chars().count()).max(5);
    let mut out = format!("{:name$}  {:stage$}  {:10}  waits for\n", "name", "stage", "when");
    for (at, job) in plan.jobs.iter().enumerate() {
        let waits = match &job.needs {
            Some(needs) if needs.is_empty() => "nothing".to_owned(),
            Some(_) => {
                waits_for(plan, at).iter().map(|need| plan.jobs[*need].name.as_str()).collect::<Vec<_>>().join(", ")
            }
            None if waits_for(plan, at).is_empty() => "nothing".to_owned(),
            None => "earlier stages".to_owned(),
        };
        // Writing into a text cannot fail.
        let _written = writeln!(out, "{:name$}  {:stage$}  {:10}  {waits}", job.name, job.stage, start(job));
    }
    for absent in &plan.absent {
        let _written = writeln!(out, "{:name$}  not in this pipeline: {}", absent.name, absent.reason);
    }
    out
}

/// The order of the jobs, stage by stage.
pub(crate) fn text_graph(plan: &Plan) -> String {
    let mut out = String::new();
    let mut stage = None;
    for (at, job) in plan.jobs.iter().enumerate() {
        if stage != Some(job.stage_index) {
            let _written = writeln!(out, "{}", job.stage);
            stage = Some(job.stage_index);
        }
        let arrow = match &job.needs {
            Some(needs) if needs.is_empty() => " ← nothing".to_owned(),
            Some(_) => {
                let names: Vec<&str> = waits_for(plan, at).iter().map(|need| plan.jobs[*need].name.as_str()).collect();
                format!(" ← {}", names.join(", "))
            }
            None => String::new(),
        };
        let _written = writeln!(out, "  {}{arrow}", job.name);
    }
    out
}

/// The same as a Mermaid flowchart.
pub(crate) fn mermaid(plan: &Plan) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for stage in &plan.stages {
        let jobs: Vec<(usize, &Job)> = plan.jobs.iter().enumerate().filter(|(_, job)| job.stage == *stage).collect();
        if jobs.is_empty() {
            continue;
        }
        let index = jobs[0].1.stage_index;
        let _written = writeln!(out, "  subgraph s{index}[\"{}\"]", escaped(stage));
        for (at, job) in jobs {
            let _written = writeln!(out, "    j{at}[\"{}\"]", escaped(&job.name));
        }
        out.push_str("  end\n");
    }
    let used: Vec<usize> = plan.jobs.iter().map(|job| job.stage_index).collect();
    for (at, job) in plan.jobs.iter().enumerate() {
        match &job.needs {
            Some(needs) => needs.iter().for_each(|need| {
                let _written = writeln!(out, "  j{} --> j{at}", need.job);
            }),
            None => {
                // The nearest stage before stands for all of them.
                if let Some(before) = used.iter().filter(|stage| **stage < job.stage_index).max() {
                    let _written = writeln!(out, "  s{before} --> j{at}");
                }
            }
        }
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('"', "#quot;")
}

/// Everything about one job.
pub(crate) fn explain(plan: &Plan, at: usize, held: Option<&str>, last: Option<(u64, String)>) -> String {
    let job = &plan.jobs[at];
    let mut out = format!("{} ({}, stage {})\n", job.name, job.place, job.stage);
    let mut row = |name: &str, text: &str| {
        let _written = writeln!(out, "  {name:14} {text}");
    };
    row("decided by", &job.decided_by);
    row("starts", held.unwrap_or(&start(job)));
    let names = |all: &[usize]| -> String {
        let names: Vec<&str> = all.iter().map(|at| plan.jobs[*at].name.as_str()).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let waits = names(&waits_for(plan, at));
    row("waits for", &if job.needs.is_some() { waits } else { format!("{waits} (all of earlier stages)") });
    row("artifacts of", &names(&job.takes_from));
    let failure = match &job.allow_failure {
        AllowFailure::No => "fails the pipeline".to_owned(),
        AllowFailure::Yes => "is allowed".to_owned(),
        AllowFailure::ExitCodes(codes) => {
            format!(
                "is allowed with the exit codes {}",
                codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )
        }
    };
    row("its failure", &failure);
    if job.retry.max > 0 {
        let which = [job.retry.when.clone(), job.retry.exit_codes.iter().map(ToString::to_string).collect()].concat();
        let which = if which.is_empty() { String::new() } else { format!(" after {}", which.join(", ")) };
        row("tried again", &format!("{} times{which}", job.retry.max));
    }
    row("time limit", &format!("{} s", job.timeout.unwrap_or(crate::DEFAULT_TIMEOUT).as_secs()));
    if let Some(group) = &job.resource_group {
        row("alone with", group);
    }
    if let Some(image) = &job.image {
        row("image", &image.name);
    }
    if !job.services.is_empty() {
        row("services", &job.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(", "));
    }
    for cache in &job.cache {
        row("cache", &cache.paths.join(", "));
    }
    if let Some(artifacts) = &job.artifacts {
        row("keeps", &artifacts.paths.join(", "));
    }
    if let Some((run, told)) = last {
        row(&format!("in run {run}"), &told);
    }
    out
}

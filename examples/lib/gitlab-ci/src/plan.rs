//! From a file's jobs to those of one pipeline, in order.

use std::collections::{BTreeMap, BTreeSet};

use yaml::{Error, Mark};

use crate::around::guessed_tier;
use crate::config::{Config, JobConfig};
use crate::context::Context;
use crate::keys::{Cell, NeedName, Parallel, WhenWord};
use crate::model::{Absent, AllowFailure, Job, Need, Outcome, Place, Plan, Start, Trigger, When};
use crate::rules::{Matched, World};
use crate::slug::{environment_slug, slug};
use crate::source::Remark;
use crate::variables::{CycleError, Layers, Value, Variables, expand};

/// How many jobs a pipeline may have, those of `parallel` included.
const MAX_JOBS: usize = 2_000;

/// What the reader found out besides the configuration.
pub(crate) struct Read<'r> {
    pub(crate) config: &'r Config,
    pub(crate) world: &'r World<'r>,
    pub(crate) context: &'r Context,
    pub(crate) place: &'r dyn Fn(Mark) -> Place,
}

/// What was decided about one job.
struct Decision {
    by: String,
    word: WhenWord,
    matched: Option<Matched>,
}

/// A job that is in the pipeline, whose needs are still names.
struct Chosen<'c> {
    job: Job,
    config: &'c JobConfig,
    needs: Option<Vec<NeedName>>,
}

impl Read<'_> {
    pub(crate) fn plan(&self, remarks: &mut Vec<Remark>) -> Result<Outcome, Error> {
        let config = self.config;
        self.check_names()?;
        let mut layers = Layers {
            predefined: self.context.predefined(),
            global: config.variables.clone(),
            project: self.context.project.clone(),
            given: self.context.given.clone(),
            ..Layers::default()
        };
        let mut warnings = Vec::new();
        if let Some(rules) = &config.workflow {
            let at = Mark { file: 0, line: 1, column: 1 };
            let first = self.world.first(rules, &layers, &mut warnings);
            let reason = match first.map_err(|why| Error::new(at, "workflow.rules", why))? {
                Some(matched) if matched.when == Some(WhenWord::Never) => {
                    format!("{} of `workflow` says `never`", matched.by)
                }
                Some(matched) => {
                    layers.workflow = matched.variables;
                    String::new()
                }
                None => "no rule of `workflow` matches".to_owned(),
            };
            if !reason.is_empty() {
                return Ok(Outcome::None { reason, notes: Vec::new() });
            }
        }
        remarks.extend(warnings.drain(..).map(|warning| (Mark::default(), "workflow.rules".to_owned(), warning)));
        let (mut chosen, mut absent) = (Vec::new(), Vec::new());
        for job in &config.jobs {
            self.choose(job, &layers, &mut chosen, &mut absent, remarks)?;
        }
        if chosen.iter().all(|chosen| matches!(chosen.job.stage.as_str(), ".pre" | ".post")) {
            let reason = if chosen.is_empty() { "no job is wanted" } else { "all jobs are in `.pre` and `.post`" };
            let reason = match absent.first() {
                Some(Absent { name, reason: why }) if chosen.is_empty() => format!("{reason} (`{name}`: {why})"),
                Some(_) | None => reason.to_owned(),
            };
            return Ok(Outcome::None { reason, notes: Vec::new() });
        }
        chosen.sort_by_key(|chosen| chosen.job.stage_index);
        let jobs = linked(chosen)?;
        let values = layers.expanded().unwrap_or_default();
        let name = config.name.as_ref().map(|name| expand(name, &values)).filter(|name| !name.is_empty());
        Ok(Outcome::Pipeline(Plan { name, stages: config.stages.clone(), jobs, absent, ..Plan::default() }))
    }

    /// What jobs name must be there, whether it is in this pipeline or not.
    fn check_names(&self) -> Result<(), Error> {
        let all: BTreeMap<&str, &JobConfig> = self.config.jobs.iter().map(|job| (job.name.as_str(), job)).collect();
        let expanded: BTreeMap<String, &JobConfig> = self
            .config
            .jobs
            .iter()
            .flat_map(|job| names_of(job).into_iter().map(move |(name, ..)| (name, job)))
            .collect();
        let find = |name: &str| all.get(name).or_else(|| expanded.get(name)).copied();
        for job in &self.config.jobs {
            let in_rules = job.rules.iter().flatten().filter_map(|rule| rule.needs.as_ref());
            for need in job.needs.iter().chain(in_rules).flatten() {
                let wrong = |message: String| Error::new(need.node, format!("{}.needs", job.name), message);
                match find(&need.job) {
                    Some(other) if other.name == job.name => return Err(wrong(format!("`{}` needs itself", job.name))),
                    Some(other) if other.stage_index > job.stage_index => {
                        return Err(wrong(format!(
                            "`{}` needs `{}`, which is in the later stage `{}`",
                            job.name, need.job, other.stage
                        )));
                    }
                    Some(_) => {}
                    None if need.optional => {}
                    None => {
                        return Err(wrong(format!("`{}` needs `{}`, which is no job of the file", job.name, need.job)));
                    }
                }
            }
            for (at, name) in job.dependencies.iter().flat_map(|(at, names)| names.iter().map(move |name| (at, name))) {
                let wrong = |message: String| Error::new(*at, format!("{}.dependencies", job.name), message);
                match find(name) {
                    Some(other) if other.stage_index > job.stage_index => {
                        return Err(wrong(format!("`{name}` is in the later stage `{}`", other.stage)));
                    }
                    Some(_) => {}
                    None => return Err(wrong(format!("`{name}` is no job of the file"))),
                }
            }
        }
        let needs = |job: &JobConfig| -> Vec<usize> {
            let position = |need: &NeedName| {
                let other = find(&need.job)?;
                self.config.jobs.iter().position(|job| job.name == other.name)
            };
            job.needs.iter().flatten().filter_map(position).collect()
        };
        let graph: Vec<Vec<usize>> = self.config.jobs.iter().map(needs).collect();
        let circle = circle(&graph);
        if let Some(first) = circle.first() {
            let names: Vec<&str> = circle.iter().map(|at| self.config.jobs[*at].name.as_str()).collect();
            let job = &self.config.jobs[*first];
            let message = format!("jobs need each other in a circle: {} → {}", names.join(" → "), job.name);
            return Err(Error::new(job.at, format!("{}.needs", job.name), message));
        }
        Ok(())
    }

    /// Puts the jobs that one of the file makes into the pipeline, or says why not.
    fn choose<'c>(
        &self,
        config: &'c JobConfig,
        layers: &Layers,
        chosen: &mut Vec<Chosen<'c>>,
        absent: &mut Vec<Absent>,
        remarks: &mut Vec<Remark>,
    ) -> Result<(), Error> {
        for (name, cell, parallel) in names_of(config) {
            let mut layers = layers.clone();
            if let Some(names) = &config.inherits {
                layers.global.retain(|name, _| names.contains(name));
            }
            layers.job.clone_from(&config.variables);
            layers.matrix = cell.into_iter().map(|(name, value)| (name, Value::new(value))).collect();
            layers.predefined.extend(of_the_job(config, &name, parallel));
            let wrong = |why: String| Error::new(config.at, config.name.clone(), why);
            let mut warnings = Vec::new();
            let decided = self.decide(config, &layers, &mut warnings).map_err(wrong)?;
            remarks.extend(warnings.into_iter().map(|warning| (config.at, format!("{}.rules", config.name), warning)));
            let decision = match decided {
                Ok(decision) => decision,
                Err(reason) => {
                    absent.push(Absent { name, reason });
                    continue;
                }
            };
            if let Some(refused) = &config.refused {
                return Err(refused.clone());
            }
            if chosen.len() == MAX_JOBS {
                return Err(wrong(format!("the pipeline has more than {MAX_JOBS} jobs")));
            }
            if chosen.iter().any(|other| other.job.name == name) {
                return Err(wrong(format!("two jobs are called `{name}`")));
            }
            chosen.push(self.chosen(config, name, parallel, layers, decision)?);
        }
        Ok(())
    }

    /// Whether a job is in the pipeline; else, why not.
    fn decide(
        &self,
        config: &JobConfig,
        layers: &Layers,
        warnings: &mut Vec<String>,
    ) -> Result<Result<Decision, String>, String> {
        let own = config.when.unwrap_or(WhenWord::OnSuccess);
        let Some(rules) = &config.rules else {
            let wanted = self.world.wanted(config.only.as_ref(), config.except.as_ref(), layers, warnings)?;
            return Ok(wanted.map(|by| Decision { by, word: own, matched: None }));
        };
        let Some(matched) = self.world.first(rules, layers, warnings)? else {
            return Ok(Err("no rule matches".to_owned()));
        };
        let word = matched.when.unwrap_or(own);
        if word == WhenWord::Never {
            return Ok(Err(format!("{} says `never`", matched.by)));
        }
        Ok(Ok(Decision { by: matched.by.clone(), word, matched: Some(matched) }))
    }

    fn chosen<'c>(
        &self,
        config: &'c JobConfig,
        name: String,
        parallel: Option<(usize, usize)>,
        mut layers: Layers,
        decision: Decision,
    ) -> Result<Chosen<'c>, Error> {
        let Decision { by, word, matched } = decision;
        let manual_on_the_job = config.when == Some(WhenWord::Manual);
        let base = config.allow_failure.clone().unwrap_or(if manual_on_the_job {
            AllowFailure::Yes
        } else {
            AllowFailure::No
        });
        let (mut allow_failure, mut needs, mut start_in) = (base, config.needs.clone(), config.start_in);
        if let Some(matched) = matched {
            layers.rule = matched.variables;
            allow_failure = matched.allow_failure.unwrap_or(allow_failure);
            needs = matched.needs.or(needs);
            start_in = matched.start_in.or(start_in);
        }
        let wrong = |why: String| Error::new(config.at, config.name.clone(), why);
        let (when, start) = match word {
            WhenWord::OnSuccess | WhenWord::Never => (When::OnSuccess, Start::Auto),
            WhenWord::OnFailure => (When::OnFailure, Start::Auto),
            WhenWord::Always => (When::Always, Start::Auto),
            WhenWord::Manual => (When::OnSuccess, Start::Manual),
            WhenWord::Delayed => {
                let time = start_in.ok_or_else(|| wrong("`when: delayed` needs `start_in`".to_owned()))?;
                (When::OnSuccess, Start::After(time))
            }
        };
        let values = layers.expanded().map_err(|why| wrong(why.to_string()))?;
        let environment = config.environment.clone().map(|mut environment| {
            if environment.tier.is_empty() {
                guessed_tier(&expand(&environment.name, &values)).clone_into(&mut environment.tier);
            }
            environment
        });
        let job = Job {
            group: config.name.clone(),
            place: (self.place)(config.at),
            stage: config.stage.clone(),
            stage_index: config.stage_index,
            before_script: config.before_script.clone(),
            script: config.script.clone(),
            after_script: config.after_script.clone(),
            variables: layers,
            decided_by: by,
            when,
            start,
            allow_failure,
            retry: config.retry.clone(),
            timeout: config.timeout,
            needs: None,
            takes_from: Vec::new(),
            artifacts: config.artifacts.clone(),
            cache: config.cache.clone(),
            image: config.image.clone(),
            services: config.services.clone(),
            resource_group: config.resource_group.as_ref().map(|group| expand(group, &values)),
            environment,
            coverage: config.coverage.clone(),
            tags: config.tags.iter().map(|tag| expand(tag, &values)).collect(),
            parallel,
            trigger: config.trigger.clone().map(|trigger| Trigger {
                files: trigger
                    .files
                    .iter()
                    .map(|file| expand(file, &values).trim_start_matches('/').to_owned())
                    .collect(),
                ..trigger
            }),
            name,
        };
        Ok(Chosen { job, config, needs })
    }
}

/// Names become numbers.
fn linked(chosen: Vec<Chosen<'_>>) -> Result<Vec<Job>, Error> {
    let place = |name: &str, cells: Option<&Vec<Cell>>| -> Vec<usize> {
        let names = cells.map(|cells| cells.iter().map(|cell| cell_name(name, cell)).collect::<Vec<_>>());
        let is_it = |job: &Job| match &names {
            Some(names) => names.contains(&job.name),
            None => job.group == name || job.name == name,
        };
        chosen.iter().enumerate().filter(|(_, chosen)| is_it(&chosen.job)).map(|(at, _)| at).collect()
    };
    let mut links = Vec::new();
    for Chosen { job, config, needs } in &chosen {
        let wrong = |at: Mark, message: String| Error::new(at, format!("{}.needs", config.name), message);
        let mut found: Option<Vec<Need>> = needs.as_ref().map(|_| Vec::new());
        for need in needs.iter().flatten() {
            let places = place(&need.job, need.cells.as_ref());
            if places.is_empty() && !need.optional {
                let message = format!(
                    "`{}` needs `{}`, which is not in this pipeline: give it a rule that lets it in, or write `optional: true`",
                    job.name, need.job
                );
                return Err(wrong(need.node, message));
            }
            let list = found.get_or_insert_default();
            for at in places {
                if chosen[at].job.stage_index > job.stage_index {
                    let other = &chosen[at].job;
                    return Err(wrong(
                        need.node,
                        format!("`{}` needs `{}`, which is in the later stage `{}`", job.name, other.name, other.stage),
                    ));
                }
                if !list.iter().any(|there| there.job == at) {
                    list.push(Need { job: at, artifacts: need.artifacts });
                }
            }
        }
        let depends: Option<BTreeSet<usize>> =
            config.dependencies.as_ref().map(|(_, names)| names.iter().flat_map(|name| place(name, None)).collect());
        if let (Some((at, names)), Some(needs)) = (&config.dependencies, &found) {
            let of_needs = |name: &String| place(name, None).iter().all(|at| needs.iter().any(|need| need.job == *at));
            if let Some(name) = names.iter().find(|name| !of_needs(name)) {
                let message = format!(
                    "`{name}` is not among the `needs` of `{}`: with both, artifacts come from what is needed",
                    job.name
                );
                return Err(Error::new(*at, format!("{}.dependencies", config.name), message));
            }
        }
        let earlier = |at: &usize| chosen[*at].job.stage_index < job.stage_index;
        let mut takes: Vec<usize> = match (&found, &depends) {
            (Some(needs), _) => needs.iter().filter(|need| need.artifacts).map(|need| need.job).collect(),
            (None, Some(depends)) => depends.iter().copied().collect(),
            (None, None) => (0..chosen.len()).filter(earlier).collect(),
        };
        if let Some(depends) = &depends {
            takes.retain(|at| depends.contains(at));
        }
        takes.sort_unstable();
        links.push((found, takes));
    }
    let graph: Vec<Vec<usize>> =
        links.iter().map(|(needs, _)| needs.iter().flatten().map(|need| need.job).collect()).collect();
    let circle = circle(&graph);
    if let Some(first) = circle.first() {
        let names: Vec<&str> = circle.iter().map(|at| chosen[*at].job.name.as_str()).collect();
        let first = &chosen[*first];
        let message = format!("jobs need each other in a circle: {} → {}", names.join(" → "), first.job.name);
        return Err(Error::new(first.config.at, format!("{}.needs", first.config.name), message));
    }
    let jobs = chosen.into_iter().map(|chosen| chosen.job).zip(links);
    Ok(jobs.map(|(job, (needs, takes_from))| Job { needs, takes_from, ..job }).collect())
}

/// A job that `parallel` makes: its name, its variables, and its number among how many.
type Named = (String, Cell, Option<(usize, usize)>);

/// The jobs that a pipeline makes of one.
fn names_of(job: &JobConfig) -> Vec<Named> {
    match &job.parallel {
        None => vec![(job.name.clone(), Vec::new(), None)],
        Some(Parallel::Number(total)) => {
            (1..=*total).map(|at| (format!("{} {at}/{total}", job.name), Vec::new(), Some((at, *total)))).collect()
        }
        Some(Parallel::Matrix(cells)) => {
            let named = |(at, cell): (usize, &Vec<(String, String)>)| {
                (cell_name(&job.name, cell), cell.clone(), Some((at, cells.len())))
            };
            (1..).zip(cells).map(named).collect()
        }
    }
}

fn cell_name(job: &str, cell: &[(String, String)]) -> String {
    let values: Vec<&str> = cell.iter().map(|(_, value)| value.as_str()).collect();
    format!("{job}: [{}]", values.join(", "))
}

/// Predefined variables that each job has of its own.
fn of_the_job(config: &JobConfig, name: &str, parallel: Option<(usize, usize)>) -> Variables {
    let mut all = vec![
        ("CI_JOB_NAME", name.to_owned()),
        ("CI_JOB_NAME_SLUG", slug(name)),
        ("CI_JOB_STAGE", config.stage.clone()),
        ("CI_NODE_TOTAL", parallel.map_or(1, |(_, total)| total).to_string()),
    ];
    if let Some((at, _)) = parallel {
        all.push(("CI_NODE_INDEX", at.to_string()));
    }
    if config.when == Some(WhenWord::Manual) {
        all.push(("CI_JOB_MANUAL", "true".to_owned()));
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), Value::raw(value))).collect()
}

/// A circle in a graph, if there is one: each of these leads to the next, and the last to the first.
fn circle(graph: &[Vec<usize>]) -> Vec<usize> {
    // Kahn: what can be taken away, bottom first, is in no circle.
    let mut waits: Vec<usize> = graph.iter().map(Vec::len).collect();
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); graph.len()];
    for (at, needs) in graph.iter().enumerate() {
        for need in needs {
            needed_by[*need].push(at);
        }
    }
    let mut ready: Vec<usize> = (0..graph.len()).filter(|at| waits[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        for after in &needed_by[at] {
            waits[*after] -= 1;
            if waits[*after] == 0 {
                ready.push(*after);
            }
        }
    }
    let Some(mut at) = (0..graph.len()).find(|at| waits[*at] > 0) else { return Vec::new() };
    let mut path: Vec<usize> = Vec::new();
    loop {
        if let Some(start) = path.iter().position(|on_path| *on_path == at) {
            return path.split_off(start);
        }
        path.push(at);
        match graph[at].iter().find(|need| waits[**need] > 0) {
            Some(next) => at = *next,
            None => return Vec::new(),
        }
    }
}

impl Job {
    /// The job's variables with their final values: with those that are known only when it runs, and those of the dotenv
    /// reports that it takes.
    ///
    /// # Errors
    /// Variables that refer to each other in a circle.
    pub fn values(&self, at_run: Variables, dotenv: Variables) -> Result<BTreeMap<String, String>, CycleError> {
        let mut layers = self.variables.clone();
        layers.predefined.extend(at_run);
        layers.dotenv = dotenv;
        if let Some(environment) = &self.environment {
            let set = |layers: &mut Layers, name: &str, value: String| {
                layers.predefined.insert(name.to_owned(), Value::raw(value));
            };
            let name = expand(&environment.name, &layers.expanded()?);
            set(&mut layers, "CI_ENVIRONMENT_SLUG", environment_slug(&name));
            set(&mut layers, "CI_ENVIRONMENT_NAME", name);
            set(&mut layers, "CI_ENVIRONMENT_TIER", environment.tier.clone());
            set(&mut layers, "CI_ENVIRONMENT_ACTION", environment.action.clone());
            if let Some(url) = &environment.url {
                let url = expand(url, &layers.expanded()?);
                set(&mut layers, "CI_ENVIRONMENT_URL", url);
            }
        }
        layers.expanded()
    }
}

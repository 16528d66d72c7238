//! What a run says while it runs, and in the end: for people, or as lines of JSON.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::live::Live;
use crate::mask::Masks;

/// How a run speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Success,
    /// It failed, and may.
    Warning,
    Failed,
    Skipped,
    /// A person may start it.
    Manual,
    /// It was not reached.
    Created,
    Canceled,
    Absent,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Manual => "manual",
            Self::Created => "created",
            Self::Canceled => "canceled",
            Self::Absent => "absent",
        }
    }

    const fn colour(self) -> &'static str {
        match self {
            Self::Success => "32",
            Self::Warning | Self::Manual => "33",
            Self::Failed | Self::Canceled => "31",
            Self::Skipped | Self::Created | Self::Absent => "2",
        }
    }
}

/// What became of a job.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobLine {
    pub(crate) name: String,
    pub(crate) stage: String,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) coverage: Option<f64>,
    /// Milliseconds since the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_ms: Option<u64>,
}

/// Where a piece of a job's output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A command, as it is echoed.
    Command,
    /// What a command wrote.
    Output,
    /// What this program has to say about the job.
    Note,
}

/// Says what happens.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    colours: bool,
    width: usize,
    masks: Masks,
    begun: Instant,
    live: Live,
    /// One line at a time.
    out: Mutex<()>,
}

impl Report {
    pub(crate) fn new(format: Format, masks: Masks, names: impl Iterator<Item = usize>) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let width = names.max().unwrap_or(0).min(32);
        let live = Live::new(format == Format::Text);
        Self { format, colours, width, masks, begun: Instant::now(), live, out: Mutex::new(()) }
    }

    pub(crate) const fn masks(&self) -> &Masks {
        &self.masks
    }

    /// Milliseconds since the run began.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn put(&self, text: &str) {
        let _one_at_a_time = self.out.lock();
        self.live.put(text);
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Something about the whole run.
    pub(crate) fn note(&self, message: &str) {
        let message = self.masks.text(message);
        match self.format {
            Format::Text => self.put(&self.paint("2", &format!("note: {message}"))),
            Format::Json => self.put(&json!({"event": "note", "message": message}).to_string()),
        }
    }

    pub(crate) fn began(&self, run: u64, name: &str, jobs: usize, what: &str) {
        self.live.began(jobs);
        match self.format {
            Format::Text => self.put(&format!("run {run}: {name}, {}; {what}", counted(jobs, "job"))),
            Format::Json => {
                self.put(&json!({"event": "began", "run": run, "name": name, "jobs": jobs, "tree": what}).to_string());
            }
        }
    }

    pub(crate) fn job_began(&self, name: &str, attempt: u32) {
        self.live.job_began(name);
        match self.format {
            Format::Text => {
                let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                self.put(&self.paint("36", &format!("{name}: starts{again}")));
            }
            Format::Json => {
                let line = json!({"event": "job_began", "job": name, "attempt": attempt, "at_ms": self.now_ms()});
                self.put(&line.to_string());
            }
        }
    }

    /// One line of a job's output, in which masked values are hidden already.
    pub(crate) fn line(&self, name: &str, kind: Kind, text: &str) {
        match self.format {
            Format::Text => {
                let prefix = self.paint("36", &format!("{name:<width$} │", width = self.width));
                let text = match kind {
                    Kind::Command => self.paint("32", text),
                    Kind::Output => text.to_owned(),
                    Kind::Note => self.paint("2", text),
                };
                self.put(&format!("{prefix} {text}"));
            }
            Format::Json => {
                let kind = match kind {
                    Kind::Command => "command",
                    Kind::Output => "output",
                    Kind::Note => "note",
                };
                self.put(&json!({"event": "output", "job": name, "kind": kind, "text": text}).to_string());
            }
        }
    }

    pub(crate) fn job_ended(&self, line: &JobLine) {
        self.live.job_ended(&line.name);
        match self.format {
            Format::Text => {
                let time = duration(line);
                let state = self.paint(line.state.colour(), line.state.word());
                let why = line.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                self.put(&format!("{}: {state}{why}{time}", line.name));
            }
            Format::Json => self.put(&with_event("job_ended", line)),
        }
    }

    /// The end of the run: what became of each job.
    pub(crate) fn ended(&self, result: &str, exit: u8, jobs: &[JobLine], where_to_look: &str) {
        self.live.ended();
        if self.format == Format::Json {
            self.put(
                &json!({"event": "ended", "result": result, "exit": exit, "jobs": jobs, "ms": self.now_ms()})
                    .to_string(),
            );
            return;
        }
        let name = jobs.iter().map(|job| job.name.chars().count()).max().unwrap_or(0).max(3);
        self.put("");
        self.put(&self.paint("1", &format!("{:name$}  {:9}  {:>8}  {:>5}  why", "job", "state", "time", "tries")));
        for job in jobs {
            let time = duration(job).trim_start_matches(", ").to_owned();
            let tries = if job.attempts == 0 { String::new() } else { job.attempts.to_string() };
            let coverage = job.coverage.map(|coverage| format!("coverage {coverage} %"));
            let why = [job.reason.clone(), coverage].into_iter().flatten().collect::<Vec<_>>().join(", ");
            let state = self.paint(job.state.colour(), &format!("{:9}", job.state.word()));
            self.put(format!("{:name$}  {state}  {time:>8}  {tries:>5}  {why}", job.name).trim_end());
        }
        let time = Duration::from_millis(self.now_ms()).as_secs_f64();
        self.put(&format!("\n{result} in {time:.1} s; {where_to_look}"));
    }
}

fn duration(job: &JobLine) -> String {
    match (job.started_ms, job.finished_ms) {
        (Some(started), Some(finished)) => {
            let time = Duration::from_millis(finished.saturating_sub(started));
            if time.as_secs() < 60 {
                format!(", {:.1} s", time.as_secs_f64())
            } else {
                format!(", {} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
            }
        }
        _ => String::new(),
    }
}

fn with_event(event: &str, line: &JobLine) -> String {
    let mut value = serde_json::to_value(line).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("event".to_owned(), event.into());
    }
    value.to_string()
}

/// So many of something, in words: `1 file`, `3 files`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

//! Given, when, then, as text: `scenarios/*.txt`. Each line that begins with `>` is done; what follows is what it must tell,
//! reasons included. `SCENARIOS=write cargo test -p tenon-jobqueue --test scenarios` writes what is told now, for review.
#![allow(unused_must_use, reason = "effects that a scenario is not about")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and is told by the environment to write"
)]

mod common;

use common::{Host, pool, request, worker};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use tenon_jobqueue::{
    Act, Answer, Assignment, CallId, Class, Component, ComponentMode, Condition, Config, Engine, Hold, Incarnation,
    JobId, JobKey, Judgement, Key, NewJob, OnFailure, OnNewer, Outcome, PipelineId, PullRequest, Refused, ResultKey,
    Service, Start, Submission, Tag, When, Worker,
};

/// One engine, or two on one database, and every delivery that a worker saw, by job.
struct Play {
    hosts: Vec<Host>,
    seen: BTreeMap<u64, Vec<Assignment>>,
    parked: Vec<CallId>,
    /// Every pull, in order.
    pulls: Vec<CallId>,
}

/// The words of a command: plain ones, and `name=value`.
struct Words<'a>(Vec<&'a str>);

impl Words<'_> {
    fn plain(&self) -> impl Iterator<Item = &str> {
        self.0.iter().copied().filter(|word| !word.contains('='))
    }

    fn number(&self, place: usize) -> u64 {
        self.plain().nth(place).unwrap_or_else(|| panic!("{:?}: a number is missing", self.0)).parse().unwrap()
    }

    fn named(&self, name: &str) -> Option<u64> {
        let word = self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.map(|value| value.parse().unwrap())
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap()
}

/// `7@2,manual,key=1`: job 7 of order 2, which somebody must approve, with key 1.
fn job(text: &str) -> NewJob {
    let mut parts = text.split(',');
    let (id, order) = parts.next().unwrap().split_once('@').unwrap();
    let mut new = common::new_job(id.parse().unwrap(), order.parse().unwrap());
    for part in parts {
        let (name, value) = part.split_once(':').unwrap_or((part, "0"));
        let value: u64 = value.parse().unwrap();
        let (spec, short) = (&mut new.spec, u16::try_from(value).unwrap_or(u16::MAX));
        match name {
            "manual" => spec.start = Start::Manual,
            "after" => spec.start = Start::After(small(value)),
            "always" => spec.when = When::Always,
            "on-failure" => spec.when = When::OnFailure,
            "may-fail" => spec.on_failure = OnFailure::Allowed,
            "ask" => spec.condition = Condition::Ask,
            "key" => spec.key = Some(Key::new(value)),
            "gives-way" => spec.on_newer = OnNewer::GivesWay,
            "unchanged" => spec.unchanged = Some(ResultKey(value)),
            "component" => spec.component = Component::new(small(value)),
            "attempts" => spec.policy.max_attempts = short,
            "crashes" => spec.policy.max_crashes = short,
            "nacks" => spec.policy.max_nacks = short,
            "lease" => spec.policy.lease_ms = small(value),
            "timeout" => spec.policy.timeout_ms = small(value),
            "backoff" => (spec.policy.backoff_ms, spec.policy.backoff_cap_ms) = (small(value), small(value)),
            other => panic!("no such trait of a job: {other}"),
        }
    }
    new
}

fn refused(why: Refused) -> String {
    format!("refused: {why} (J{})\n", why.code())
}

fn answered(answer: Answer) -> String {
    match answer {
        Answer::Refused(why) => refused(why),
        Answer::Done { state, until } if until == tenon_jobqueue::Timestamp::MAX => format!("{state:?}\n"),
        Answer::Done { state, until } => format!("{state:?} until {}\n", until.as_millis()),
        other => format!("{other:?}\n"),
    }
}

impl Play {
    fn new(header: &str) -> Self {
        let ageing = header.strip_prefix("ageing ").and_then(|rest| rest.split(':').next());
        let mut host = Host::new();
        if let Some(ms) = ageing {
            let config = Config::builder(Incarnation::new(1)).seed(42).settling_ms(0).ageing_ms(ms.parse().unwrap());
            host = Host::on(config.build().unwrap(), std::rc::Rc::default());
        }
        Self { hosts: vec![host], seen: BTreeMap::new(), parked: Vec::new(), pulls: Vec::new() }
    }

    /// What was emitted since the last time, besides answers.
    fn news(&mut self, at: usize) -> String {
        let (host, mut out) = (&mut self.hosts[at], String::new());
        for (call, assignment) in host.assigned.drain(..) {
            let (key, entry) = (assignment.token.key, assignment.entry);
            let again = if key.attempt.get() > 1 { format!(", attempt {}", key.attempt) } else { String::new() };
            let parked = if self.parked.contains(&call) { "the parked pull: " } else { "" };
            writeln!(out, "{parked}job {}{again} to worker {}, {entry:?}", key.job, assignment.worker.name).unwrap();
            self.seen.entry(key.job.get()).or_default().push(assignment);
        }
        for (worker, token) in host.aborts.drain(..) {
            writeln!(out, "worker {} is told to stop job {}", worker.name, token.key.job).unwrap();
        }
        for token in host.polls.drain(..) {
            writeln!(out, "the result of job {} is asked for", token.key.job).unwrap();
        }
        for (id, state) in host.closed.drain(..) {
            writeln!(out, "pipeline {id} {state:?}").unwrap();
        }
        out
    }

    /// What a worker says with its newest delivery of a job, or with the one that `of=` counts.
    fn say(&mut self, host: usize, words: &Words<'_>, act: Act) -> String {
        let seen = &self.seen[&words.number(1)];
        let nth = words.named("of").map_or(seen.len(), |nth| usize::try_from(nth).unwrap());
        let (to, worker) = (seen[nth - 1], seen[nth - 1].worker);
        let life = words.named("life").map_or(worker.incarnation, Incarnation::new);
        let host = &mut self.hosts[host];
        let call = host.engine.work(host.now, Worker { incarnation: life, ..worker }, to.token, act);
        answered(host.answer(call))
    }

    fn ask(
        &mut self,
        at: usize,
        command: impl FnOnce(&mut Engine, tenon_jobqueue::Timestamp) -> Result<CallId, Refused>,
    ) -> String {
        let host = &mut self.hosts[at];
        match command(&mut host.engine, host.now) {
            Ok(call) => {
                host.run();
                host.answers.get(&call).map_or_else(|| "waits\n".to_owned(), |answer| answered(*answer))
            }
            Err(why) => refused(why),
        }
    }

    fn pull(&mut self, at: usize, words: &Words<'_>) -> String {
        let want = words.plain().nth(2).map_or(1, |want| want.parse().unwrap());
        let previous = words.named("previous").map(|nth| self.pulls[usize::try_from(nth).unwrap() - 1]);
        let life = words.named("life").map_or(Incarnation::new(1), Incarnation::new);
        let worker = Worker { incarnation: life, ..worker(words.number(1)) };
        let pull = PullRequest { wait_ms: words.named("wait").unwrap_or(0), worker, previous, ..request(1, want) };
        let host = &mut self.hosts[at];
        let call = match host.engine.pull(host.now, &pull) {
            Ok(call) => call,
            Err(why) => return refused(why),
        };
        host.run();
        self.pulls.push(call);
        match host.answers.get(&call) {
            Some(Answer::Pulled { jobs: 0 }) => "nothing\n".to_owned(),
            Some(_) => String::new(),
            None => {
                self.parked.push(call);
                "parked\n".to_owned()
            }
        }
    }

    fn submit(&mut self, at: usize, words: &Words<'_>) -> String {
        let jobs: Vec<NewJob> = words.plain().filter(|word| word.contains('@')).map(job).collect();
        let (id, class) = (PipelineId::new(words.number(1)), Class::new(small(words.named("class").unwrap_or(0))));
        let priority = u8::try_from(words.named("priority").unwrap_or(0)).unwrap();
        self.ask(at, |engine, now| engine.submit(now, &Submission { id, class, priority, jobs: &jobs, needs: &[] }))
    }

    /// Windows, components, pools, tags: what an operator does.
    fn operate(&mut self, at: usize, words: &Words<'_>) -> String {
        let host = &mut self.hosts[at];
        let now = host.now;
        let component = words.named("component").map(|number| Component::new(small(number)));
        let service = if words.0.contains(&"open") { Service::Open } else { Service::Closed };
        match words.0[0] {
            "hold" => {
                let until = now.after_millis(words.named("for").unwrap());
                let hold = Hold { filter: small(words.number(1)), class: None, component, from: now, until };
                host.engine.hold(now, hold).unwrap();
            }
            "release" => host.engine.release(now, small(words.number(1))),
            "component" => {
                let mode = if service == Service::Open { ComponentMode::Runs } else { ComponentMode::Skipped };
                host.engine.set_component(now, Component::new(small(words.number(1))), mode).unwrap();
            }
            "tag" => host.engine.set_tag(now, Tag::OTHER, service).unwrap(),
            "pool" => {
                let mut spec = pool(1, &[Tag::OTHER], small(words.named("leases").unwrap_or(1_000)));
                if words.0.contains(&"closed") {
                    spec.service = Service::Closed;
                }
                host.engine.put_pool(now, spec).unwrap();
            }
            "remember" => host.engine.remember(now, ResultKey(words.number(1)), JobId::new(words.number(2))),
            "judge" => {
                let job = JobKey { job: JobId::new(words.number(1)), attempt: tenon_jobqueue::Attempt::FIRST };
                let until = now.after_millis(words.named("for").unwrap_or(0));
                let judgement = match words.0[2] {
                    "pass" => Judgement::Pass,
                    "skip" => Judgement::Skip { filter: 9 },
                    "reuse" => Judgement::Reuse { result_of: JobId::new(1) },
                    _ => Judgement::Hold { filter: 9, until },
                };
                host.engine.handle_judged(now, job, judgement);
            }
            other => panic!("no such command: {other}"),
        }
        host.run();
        String::new()
    }

    fn show(&self, at: usize, words: &Words<'_>) -> String {
        let host = &self.hosts[at];
        let mut out = String::new();
        match words.0[0] {
            "jobs" => {
                for number in words.plain().skip(1) {
                    let job = host.job(number.parse().unwrap());
                    let attempt = if job.key.attempt.get() > 1 {
                        format!(", attempt {}", job.key.attempt)
                    } else {
                        String::new()
                    };
                    writeln!(out, "job {}{attempt}: {:?}, {:?}", job.id(), job.state, job.reason).unwrap();
                }
            }
            "tally" => writeln!(out, "{:?}", host.job(words.number(1)).tally).unwrap(),
            "outcome" => writeln!(out, "{:?}", host.job(words.number(1)).outcome).unwrap(),
            "pipeline" => writeln!(out, "{:?}", host.pipeline(words.number(1)).state()).unwrap(),
            "why" => {
                let told = host.engine.explain(JobId::new(words.number(1)));
                out = told.map_or_else(|| "not here\n".to_owned(), |told| format!("{:?}\n", told.why));
            }
            "judged" => writeln!(out, "{:?}", host.judged.iter().map(|key| key.job.get()).collect::<Vec<_>>()).unwrap(),
            "writes" => writeln!(out, "{} writes", host.writes).unwrap(),
            "depth" => writeln!(out, "{} wait", host.engine.depth(Tag::OTHER)).unwrap(),
            "leased" => writeln!(out, "{} leased", host.engine.leased(common::POOL)).unwrap(),
            other => panic!("no such command: {other}"),
        }
        out
    }

    fn step(&mut self, line: &str) -> String {
        let (line, at) = line.strip_prefix("two: ").map_or((line, 0), |line| (line, 1));
        let words = Words(line.split(' ').collect());
        let now = self.hosts[at].now;
        let later = |place: usize| now.after_millis(words.number(place));
        let job = |place: usize| JobId::new(words.number(place));
        let mut out = match words.0[0] {
            "submit" => self.submit(at, &words),
            "pull" => self.pull(at, &words),
            "ack" => self.say(at, &words, Act::Ack),
            "beat" => self.say(at, &words, Act::Heartbeat),
            "nack" => self.say(at, &words, Act::Nack),
            "resume" => self.say(at, &words, Act::Resume),
            "succeed" => self.say(at, &words, Act::Report(Outcome::Succeeded)),
            "fail" => self.say(at, &words, Act::Report(Outcome::Failed { code: 1 })),
            "give-up" => self.say(at, &words, Act::Report(Outcome::FailedForGood { code: 2 })),
            "snooze" => self.say(at, &words, Act::Snooze(later(2))),
            "suspend" => self.say(at, &words, Act::Suspend(later(2))),
            "poll" => self.say(at, &words, Act::Poll(later(2))),
            "pause" => self.say(at, &words, Act::Pause(later(2))),
            "callback" => {
                let token = self.seen[&words.number(1)].last().unwrap().token;
                self.ask(at, |engine, now| engine.callback(now, token))
            }
            "approve" => self.ask(at, |engine, now| engine.approve(now, job(1))),
            "abort" => self.ask(at, |engine, now| engine.abort(now, job(1))),
            "retry" => self.ask(at, |engine, now| engine.retry(now, job(1))),
            "stop" => self.ask(at, |engine, now| engine.abort_pipeline(now, PipelineId::new(words.number(1)))),
            "retry-all" => self.ask(at, |engine, now| engine.retry_pipeline(now, PipelineId::new(words.number(1)))),
            "pass" => {
                let end = self.hosts[at].now.after_millis(words.number(1));
                self.hosts[at].pass(words.number(1));
                self.hosts.iter_mut().for_each(|host| host.now = end);
                String::new()
            }
            "restart" => {
                self.hosts[0].restart(words.number(1));
                String::new()
            }
            "second" => {
                let mut two = self.hosts[0].beside(2);
                let rows = two.db.borrow().open();
                let _counted = two.engine.load(two.now, &rows);
                two.run();
                self.hosts.push(two);
                String::new()
            }
            "jobs" | "tally" | "outcome" | "pipeline" | "why" | "judged" | "writes" | "depth" | "leased" => {
                self.show(at, &words)
            }
            _ => self.operate(at, &words),
        };
        for host in 0..self.hosts.len() {
            out += &self.news(host);
        }
        out
    }
}

/// The script with what each step tells now.
fn play(script: &str) -> String {
    let header = script.lines().next().unwrap_or_default();
    let mut play = Play::new(header);
    let mut out = format!("{header}\n");
    for line in script.lines().skip(1) {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(out, "{line}").unwrap();
            out += &play.step(command);
        } else if line.starts_with('#') {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let (head, _) = text.split_once("\n== ").unwrap();
        let mut now = head.to_owned();
        for script in text.split("\n== ").skip(1) {
            count += 1;
            let told = play(script);
            if std::env::var_os("SCENARIOS").is_none() {
                assert_eq!(told.trim_end(), script.trim_end(), "{}", entry.path().display());
            }
            write!(now, "\n== {}\n", told.trim_end()).unwrap();
        }
        if std::env::var_os("SCENARIOS").is_some() {
            std::fs::write(entry.path(), now).unwrap();
        }
    }
    assert!(count >= 60, "only {count} scenarios");
}

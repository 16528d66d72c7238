//! CI files and what must come of them, through the program.
//!
//! The folder is named by `PIPELINE_CASES`, or is the project's own. A case is a folder with a repository's files and
//! `expect.json`. An empty folder fails, and so does a field that nobody knows.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it ran")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Case folders at the same time.
const AT_ONCE: usize = 4;

#[test]
fn every_case_comes_out_as_it_must() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let folder = std::env::var_os("PIPELINE_CASES").map_or(own, PathBuf::from);
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expect.json").is_file())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has no case", folder.display());
    let sandbox = has_sandbox();
    let left = Mutex::new(cases.iter());
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some(case) = next else { return };
                    let told = check(case, sandbox);
                    if !told.is_empty() {
                        wrong.lock().unwrap().insert(case.file_name().unwrap().to_owned(), told);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let mut told = String::new();
    for (case, lines) in &wrong {
        let _written = write!(told, "\n{}:\n  {}", case.display(), lines.join("\n  "));
    }
    println!("{} cases, {} wrong", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "{told}");
}

/// Whether jobs can be kept apart here; said aloud if not, and a failure where it must be.
fn has_sandbox() -> bool {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join(".gitlab-ci.yml"), "a: {script: 'true'}").unwrap();
    repository(dir.path(), "main");
    let done = program(dir.path(), state.path()).arg("run").output().unwrap();
    let works = done.status.code() == Some(0);
    if !works {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(std::env::var_os("TENON_NO_SKIPS").is_none(), "no sandbox: {said}");
        println!("the cases run with --no-sandbox: {said}");
    }
    works
}

fn program(project: &Path, state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.current_dir(project).env("PIPELINE_STATE_DIR", state);
    command
}

fn repository(folder: &Path, branch: &str) {
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=Case", "-c", "user.email=case@example.com", "-c", "commit.gpgsign=false"];
        let done = Command::new("git").current_dir(folder).args(identity).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q", "-b", branch]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "The case"]);
    git(&["remote", "add", "origin", "https://gitlab.example.com/group/project.git"]);
}

/// What a run said.
struct Told {
    exit: i32,
    ended: Value,
    /// By job: all lines, and those that commands wrote.
    logs: BTreeMap<String, (String, String)>,
    message: String,
}

fn run(case: &Path, expect: &Value, sandbox: bool) -> Told {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copied = Command::new("cp").arg("-a").arg(case.join(".")).arg(dir.path()).status().unwrap();
    assert!(copied.success());
    fs::remove_file(dir.path().join("expect.json")).unwrap();
    let args = &expect["args"];
    let branch = args["branch"].as_str().unwrap_or("main");
    repository(dir.path(), branch);
    let mut command = program(dir.path(), state.path());
    command.args(["run", "--log-format", "json", "--executor", "shell", "--parallel", "8"]);
    for (name, value) in args.as_object().into_iter().flatten() {
        match name.as_str() {
            "sandbox" if value == false => drop(command.arg("--no-sandbox")),
            "allow_deploy" if value == true => drop(command.arg("--allow-deploy")),
            "branch" | "sandbox" | "allow_deploy" => {}
            "tag" | "source" | "target_branch" => {
                command.args([&format!("--{}", name.replace('_', "-")), value.as_str().unwrap()]);
            }
            "jobs" | "flags" => {
                command.args(value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()));
            }
            "variables" => {
                for (name, value) in value.as_object().unwrap() {
                    let value = if value == "unique per run" { unique() } else { value.as_str().unwrap().to_owned() };
                    command.arg("--variable").arg(format!("{name}={value}"));
                }
            }
            other => unreachable!("the argument `{other}` of a case is not known"),
        }
    }
    if !sandbox && args["sandbox"] != false {
        command.arg("--no-sandbox");
    }
    let done = command.output().unwrap();
    let mut told = Told {
        exit: done.status.code().unwrap_or(-1),
        ended: Value::Null,
        logs: BTreeMap::new(),
        message: String::new(),
    };
    for line in String::from_utf8(done.stdout).unwrap().lines() {
        let event: Value = serde_json::from_str(line).expect(line);
        match event["event"].as_str().unwrap() {
            "output" => {
                let (log, output) = told.logs.entry(event["job"].as_str().unwrap().to_owned()).or_default();
                let text = event["text"].as_str().unwrap();
                let _written = writeln!(log, "{text}");
                if event["kind"] == "output" {
                    let _written = writeln!(output, "{text}");
                }
            }
            "ended" => told.ended = event,
            _ => {}
        }
    }
    told.message =
        told.ended["message"].as_str().unwrap_or_default().to_owned() + &String::from_utf8_lossy(&done.stderr);
    told
}

fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{}-{now}", std::process::id())
}

fn check(case: &Path, sandbox: bool) -> Vec<String> {
    let expect: Value = serde_json::from_slice(&fs::read(case.join("expect.json")).unwrap()).expect("expect.json");
    let told = run(case, &expect, sandbox);
    let mut wrong = Vec::new();
    let mut same = |what: String, found: &Value, wanted: &Value| {
        if found != wanted {
            wrong.push(format!("{what}: {found}, wanted {wanted}"));
        }
    };
    let none = Value::Null;
    let jobs: BTreeMap<&str, &Value> =
        told.ended["jobs"].as_array().into_iter().flatten().map(|job| (job["name"].as_str().unwrap(), job)).collect();
    for (field, wanted) in expect.as_object().unwrap() {
        match field.as_str() {
            "result" => same("result".to_owned(), &told.ended["result"], wanted),
            "exit" => same("exit".to_owned(), &told.exit.into(), wanted),
            "about" | "args" | "gitlab_ci_local_4_75_1" | "error_has" | "jobs" | "order" | "finished_before" => {}
            other => unreachable!("the field `{other}` of a case is not known"),
        }
    }
    for word in expect["error_has"].as_array().into_iter().flatten() {
        if !told.message.to_lowercase().contains(&word.as_str().unwrap().to_lowercase()) {
            wrong.push(format!("the message lacks {word}: {}", told.message));
        }
    }
    for (name, expected) in expect["jobs"].as_object().into_iter().flatten() {
        let found = jobs.get(name.as_str()).copied().unwrap_or(&none);
        let empty = (String::new(), String::new());
        let log = told.logs.get(name).unwrap_or(&empty);
        check_job(name, expected, found, log, &mut wrong);
    }
    let time = |name: &Value, field: &str| jobs.get(name.as_str().unwrap()).and_then(|job| job[field].as_u64());
    for pair in expect["order"].as_array().map(Vec::as_slice).unwrap_or_default().windows(2) {
        if !(time(&pair[0], "finished_ms") <= time(&pair[1], "started_ms") && time(&pair[0], "finished_ms").is_some()) {
            wrong.push(format!("{} did not end before {} began", pair[0], pair[1]));
        }
    }
    for pair in expect["finished_before"].as_array().into_iter().flatten() {
        if !(time(&pair[0], "finished_ms") < time(&pair[1], "finished_ms") && time(&pair[0], "finished_ms").is_some()) {
            wrong.push(format!("{} did not finish before {}", pair[0], pair[1]));
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("it said: {} {}", told.message.trim(), told.ended));
    }
    wrong
}

fn check_job(name: &str, expected: &Value, found: &Value, (log, output): &(String, String), wrong: &mut Vec<String>) {
    for (field, wanted) in expected.as_object().unwrap() {
        match field.as_str() {
            "state" if wanted == "absent" => {
                if !found.is_null() {
                    wrong.push(format!("{name} is there"));
                }
            }
            "state" | "exit_code" | "attempts" => {
                if found[field] != *wanted {
                    wrong.push(format!("{name}.{field}: {}, wanted {wanted}; its log:\n{log}", found[field]));
                }
            }
            "coverage" => {
                if found["coverage"].as_f64() != wanted.as_f64() {
                    wrong.push(format!("{name}.coverage: {}, wanted {wanted}", found["coverage"]));
                }
            }
            "reason" => {
                if !found["reason"].as_str().unwrap_or_default().contains(wanted.as_str().unwrap()) {
                    wrong.push(format!("{name}.reason: {}, wanted {wanted}", found["reason"]));
                }
            }
            "log_has" | "log_lacks" | "log_lacks_output" => {
                let (text, has) = match field.as_str() {
                    "log_has" => (log, true),
                    "log_lacks" => (log, false),
                    _ => (output, false),
                };
                for part in wanted.as_array().unwrap() {
                    if text.contains(part.as_str().unwrap()) != has {
                        wrong.push(format!("{name}.{field}: {part}; its log:\n{text}"));
                    }
                }
            }
            "seconds_at_most" => {
                let time =
                    found["finished_ms"].as_u64().zip(found["started_ms"].as_u64()).map(|(end, start)| end - start);
                if time.is_none_or(|time| time > wanted.as_u64().unwrap() * 1_000) {
                    wrong.push(format!("{name} took {time:?} ms, wanted at most {wanted} s"));
                }
            }
            other => unreachable!("the field `{other}` of a job is not known"),
        }
    }
}

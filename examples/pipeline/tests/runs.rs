//! Runs that are killed, interrupted, resumed and looked at, through the program.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long something may take that happens at once on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Project {
    root: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { root: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() };
        for (name, text) in files {
            let path = project.root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        project.git(&["init", "-q", "-b", "main"]);
        project.git(&["add", "-A"]);
        project.git(&["commit", "-q", "-m", "First"]);
        project
    }

    fn git(&self, args: &[&str]) -> String {
        let identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
        let done = Command::new("git").current_dir(self.root.path()).args(identity).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command
            .current_dir(self.root.path())
            .args(args)
            .env("PIPELINE_STATE_DIR", self.state.path())
            .stdin(Stdio::null());
        command
    }

    /// Without the sandbox: these tests look at processes and files of the machine.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn text(&self, args: &[&str]) -> (i32, String) {
        let done = self.run(args);
        let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        (done.status.code().unwrap_or(-1), text)
    }

    /// The folder of a run.
    fn folder(&self, run: u32) -> PathBuf {
        let mut folders = fs::read_dir(self.state.path())
            .unwrap()
            .map(|entry| entry.unwrap().path().join("runs").join(run.to_string()));
        folders.find(|folder| folder.is_dir()).unwrap()
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20));
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn id(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn is_alive(process: &str) -> bool {
    // One that has ended and waits to be reaped is not alive.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
fn after_kill_9_no_finished_job_runs_again() {
    let project = Project::new(&[(
        ".gitlab-ci.yml",
        "stages: [a, b, c]\n\
         a: {stage: a, script: ['echo a >> $OUT/log', 'echo made > f'], artifacts: {paths: [f]}}\n\
         b: {stage: b, script: ['echo b >> $OUT/log', 'test -e $OUT/go || sleep 15', 'cat f']}\n\
         c: {stage: c, script: ['echo c >> $OUT/log']}\n",
    )]);
    let out = tempfile::tempdir().unwrap();
    let variable = format!("OUT={}", out.path().display());
    let log = out.path().join("log");
    let mut first =
        project.command(&["run", "--no-sandbox", "--variable", &variable]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the second job begins", || lines(&log).len() == 2);
    kill(id(&first), Signal::SIGKILL).unwrap();
    first.wait().unwrap();
    fs::write(out.path().join("go"), "").unwrap();
    let (code, text) = project.text(&["resume", "--no-sandbox"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(lines(&log), ["a", "b", "b", "c"], "{text}");
    assert!(text.contains("artifacts of a: 1 file") && text.contains("made"), "{text}");
    // A run that has ended has nothing left to do.
    let (code, text) = project.text(&["resume", "--no-sandbox"]);
    assert_eq!((code, lines(&log).len()), (0, 4), "{text}");
}

#[test]
fn an_interrupt_stops_everything_and_leaves_nothing() {
    let project = Project::new(&[(
        ".gitlab-ci.yml",
        "a: {script: ['setsid sh -c \"echo \\$\\$ > $OUT/detached; exec sleep 300\" &', 'echo $$ > $OUT/a; exec sleep 300']}\n\
         b: {script: ['echo $$ > $OUT/b; sleep 300']}\n\
         c: {stage: deploy, script: ['echo never']}\n",
    )]);
    let out = tempfile::tempdir().unwrap();
    let variable = format!("OUT={}", out.path().display());
    let mut run = project
        .command(&["run", "--no-sandbox", "--parallel", "2", "--variable", &variable])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap_or_default().trim().to_owned();
    wait_for("the jobs run", || ["a", "b", "detached"].iter().all(|name| !read(name).is_empty()));
    kill(id(&run), Signal::SIGINT).unwrap();
    let said: Vec<String> = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{said:#?}");
    for name in ["a", "b", "detached"] {
        wait_for(&format!("{name} ends"), || !is_alive(&read(name)));
    }
    assert!(!project.folder(1).join("jobs").exists(), "no copy is left");
    assert!(said.iter().any(|line| line.starts_with("c ") && line.contains("canceled")), "{said:#?}");
}

#[test]
fn masked_values_appear_nowhere_and_file_values_are_files() {
    let project = Project::new(&[
        (
            ".gitlab-ci.yml",
            "a:\n  variables: {COPY: 'x$TOKEN'}\n  script:\n    - echo \"token $TOKEN, copy $COPY\"\n    - printf s3cr; sleep 0.2; echo et-value\n    - cat \"$KEY\"\n    - printf '<t>%s</t>' \"$TOKEN\" > r.xml\n  artifacts: {reports: {junit: r.xml}}\n",
        ),
        (".gitignore", ".pipeline-variables.yml\n"),
        (
            ".pipeline-variables.yml",
            "TOKEN: {value: s3cret-value, masked: true}\nKEY: {value: \"line one\\nline two\", type: file}\n",
        ),
    ]);
    let junit = project.state.path().join("junit.xml");
    for format in ["text", "json"] {
        let file = junit.to_str().unwrap();
        let (code, text) = project.text(&["run", "--no-sandbox", "--log-format", format, "--junit", file]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("token [MASKED], copy x[MASKED]") && text.contains("line two"), "{text}");
        assert!(!text.contains("s3cret-value"), "{text}");
    }
    let report = fs::read_to_string(&junit).unwrap();
    assert!(report.contains("tests=\"1\" failures=\"0\"") && report.contains("token [MASKED]"), "{report}");
    let mut left = vec![project.state.path().to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(12).any(|window| window == b"s3cret-value");
            assert!(!found, "{} holds the masked value", path.display());
        }
    }
}

#[test]
fn the_users_tree_is_read_and_never_written() {
    let project = Project::new(&[
        (
            ".gitlab-ci.yml",
            "a: {script: ['cat tracked new', 'echo changed > tracked; echo x > made; rm new; git status --porcelain | head -1'], artifacts: {paths: [made]}}\n",
        ),
        ("tracked", "committed\n"),
        (".gitignore", "ignored\n"),
    ]);
    fs::write(project.root.path().join("tracked"), "as it is now\n").unwrap();
    fs::write(project.root.path().join("new"), "untracked\n").unwrap();
    fs::write(project.root.path().join("ignored"), "ignored\n").unwrap();
    let before = project.git(&["status", "--porcelain", "--ignored"]);
    let (code, text) = project.text(&["run", "--no-sandbox"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("as it is now") && text.contains("untracked"), "{text}");
    assert_eq!(project.git(&["status", "--porcelain", "--ignored"]), before);
    assert_eq!(fs::read_to_string(project.root.path().join("tracked")).unwrap(), "as it is now\n");
    assert!(project.folder(1).join("artifacts/0/files/made").is_file());

    let (code, text) = project.text(&["run", "--no-sandbox", "--committed"]);
    assert_eq!(code, 1, "the commit has no file `new`: {text}");
    assert!(text.contains("committed") && !text.contains("as it is now\n"), "{text}");
}

#[test]
fn a_blocked_run_goes_on_when_its_job_is_played() {
    let project = Project::new(&[(
        ".gitlab-ci.yml",
        "stages: [a, b]\ngate: {stage: a, rules: [{when: manual}], script: ['echo pressed']}\nafter: {stage: b, script: ['echo after']}\n",
    )]);
    let (code, text) = project.text(&["run", "--no-sandbox"]);
    assert_eq!(code, 3, "{text}");
    let (code, text) = project.text(&["resume", "--no-sandbox", "--play", "gate"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("pressed") && text.contains("after │ after"), "{text}");
}

#[test]
fn a_plan_can_be_looked_at() {
    let project = Project::new(&[(
        ".gitlab-ci.yml",
        "stages: [a, b]\n\
         make: {stage: a, script: ['true'], interruptible: true, artifacts: {paths: [out]}}\n\
         other: {stage: a, rules: [{if: $NOPE}], script: ['true']}\n\
         test: {stage: b, needs: [make], retry: 2, timeout: 90s, rules: [{if: $CI}], script: ['true']}\n\
         last: {stage: b, script: ['true']}\n",
    )]);
    let (code, list) = project.text(&["list"]);
    assert_eq!(code, 0);
    assert_eq!(
        list.lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            "name  stage  when        waits for",
            "make  a      on success  nothing",
            "test  b      on success  make",
            "last  b      on success  earlier stages",
            "other  not in this pipeline: no rule matches",
        ]
    );
    let (_, graph) = project.text(&["graph"]);
    assert_eq!(graph, "a\n  make\nb\n  test ← make\n  last\n");
    let (_, mermaid) = project.text(&["graph", "--mermaid"]);
    assert!(
        mermaid.starts_with("flowchart LR\n") && mermaid.contains("j0 --> j1") && mermaid.contains("s1 --> j2"),
        "{mermaid}"
    );
    let (_, explained) = project.text(&["explain", "test"]);
    for part in ["rule 1, line 4 (`$CI`)", "make", "2 times", "90 s", "fails the pipeline"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    assert!(!explained.contains("in run"), "{explained}");
    assert_eq!(project.text(&["run"]).0, 0);
    let (_, explained) = project.text(&["explain", "test"]);
    assert!(explained.contains("in run 1") && explained.contains("waited for `make`, which ended "), "{explained}");
    assert!(explained.contains("success after "), "{explained}");
    let (code, told) = project.text(&["explain", "other"]);
    assert_eq!(code, 2);
    assert!(told.contains("`other` is not in this pipeline: no rule matches"), "{told}");
    let (code, checked) = project.text(&["lint"]);
    assert_eq!(code, 0);
    assert!(checked.contains("`interruptible`: has no effect") && checked.contains("3 jobs from 1 file"), "{checked}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let project = Project::new(&[(".gitlab-ci.yml", "a: {script: ['true']}\n")]);
    for (args, code, words) in [
        (&["run", "nobody"][..], 2, "there is no job `nobody`; there are a"),
        (&["run", "--source", "magic"], 2, "known are push"),
        (&["run", "--changes-base"], 2, "value is required"),
        (&["resume"], 2, "there is no run of this project yet"),
        (&["shell", "a"], 2, "there is no run of this project yet"),
        (&["run", "--variables-file", "none.yml"], 2, "none.yml"),
        (&["run", "--include-root", "x=none"], 2, "is no folder"),
        (&["clean"], 0, "0 runs and caches removed"),
        (&["completions", "bash"], 0, "complete -F _pipeline"),
    ] {
        let (found, text) = project.text(args);
        assert_eq!(found, code, "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {text}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, text) = project.text(&["run", "-C", elsewhere.path().to_str().unwrap()]);
    assert!(code == 2 && text.contains("not in the work tree of a Git repository"), "{text}");
}

#[test]
fn without_a_sandbox_nothing_runs_unless_it_was_said() {
    let project = Project::new(&[(".gitlab-ci.yml", "a: {script: ['echo ran']}\n")]);
    // A machine on which the sandbox cannot be made: its folder is a file.
    fs::write(project.state.path().join("sandbox"), "").unwrap();
    let (code, text) = project.text(&["run"]);
    assert_eq!(code, 2, "{text}");
    assert!(!text.contains("│ ran"), "{text}");
    let (code, text) = project.text(&["run", "--no-sandbox"]);
    assert!(code == 0 && text.contains("│ ran"), "{text}");
}

#[test]
fn runs_and_caches_are_removed() {
    let project = Project::new(&[(".gitlab-ci.yml", "a: {cache: {paths: [c]}, script: ['echo c > c']}\n")]);
    for _ in 0..3 {
        assert_eq!(project.text(&["run", "--no-sandbox"]).0, 0);
    }
    let (_, text) = project.text(&["clean", "--keep", "100"]);
    assert!(text.starts_with("0 runs"), "{text}");
    let (_, text) = project.text(&["clean"]);
    assert!(text.starts_with("4 runs and caches removed"), "{text}");
}

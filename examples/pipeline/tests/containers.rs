//! Jobs in containers, with a real podman and an image made of busybox. Skipped by name where these are not there, and a
//! failure then if `TENON_NO_SKIPS` is set.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const IMAGE: &str = "localhost/local/busybox:1";

/// Podman with a store of its own.
struct Podman {
    dir: tempfile::TempDir,
}

impl Podman {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let conf = "[containers]\ndefault_ulimits = [\"nofile=1000:1000\", \"nproc=1000:1000\"]\n[engine]\nruntime = \"runc\"\n";
        fs::write(dir.path().join("containers.conf"), conf).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/store\"\nrunroot = \"{0}/run\"\n",
            dir.path().display()
        );
        fs::write(dir.path().join("storage.conf"), storage).unwrap();
        let podman = Self { dir };
        let why = podman.make_image().err()?;
        if why.is_empty() {
            return Some(podman);
        }
        assert!(std::env::var_os("TENON_NO_SKIPS").is_none(), "no containers: {why}");
        println!("skipped: no containers: {why}");
        None
    }

    /// An error without words is none.
    fn make_image(&self) -> Result<(), String> {
        let root = self.dir.path().join("rootfs/bin");
        fs::create_dir_all(&root).unwrap();
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
        let busybox = busybox.ok_or("no busybox (the package is called busybox-static)")?;
        fs::copy(busybox, root.join("busybox")).unwrap();
        for name in ["sh", "cat", "echo", "env", "head", "mkdir", "nc", "printf", "pwd", "sleep", "test", "true"] {
            std::os::unix::fs::symlink("busybox", root.join(name)).unwrap();
        }
        let tar = self.dir.path().join("image.tar");
        let made =
            Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(self.dir.path().join("rootfs")).arg(".").status();
        assert!(made.is_ok_and(|status| status.success()));
        let imported = self
            .command("podman")
            .arg("import")
            .arg(&tar)
            .arg("local/busybox:1")
            .output()
            .map_err(|why| format!("podman: {why}"))?;
        let said = |done: &Output| String::from_utf8_lossy(&done.stderr).into_owned();
        if !imported.status.success() {
            return Err(said(&imported));
        }
        let ran = self.command("podman").args(["run", "--rm", IMAGE, "/bin/sh", "-c", "true"]).output().unwrap();
        Err(if ran.status.success() { String::new() } else { said(&ran) })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("CONTAINERS_CONF", self.dir.path().join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.dir.path().join("storage.conf"));
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // The store has files of other users.
        let _left = self.command("podman").args(["rmi", "-af"]).output();
    }
}

#[test]
fn images_and_services_are_containers_and_nothing_is_left() {
    let Some(podman) = Podman::new() else { return };
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = r#"
stages: [a, b]
variables: {IMG: "localhost/local/busybox:1", LINES: "x\ny", SECRET: in-the-file}
job:
  stage: a
  image: {name: "$IMG", entrypoint: [""], pull_policy: never}
  script: [pwd, "cat tracked", "mkdir out; echo made > out/x", 'echo "$LINES"', 'echo "$CI_JOB_IMAGE"', 'cat "$KEY"']
  after_script: ["echo after $CI_JOB_STATUS"]
  artifacts: {paths: [out]}
pipe_fails: {stage: a, image: $IMG, allow_failure: true, script: ["false | true", "echo not-reached"]}
service:
  stage: a
  image: $IMG
  services: [{name: $IMG, alias: db, variables: {WHO: peer}, command: [sh, -c, 'while true; do echo "hello from $WHO" | nc -l -p 5432; done']}]
  script: ["for i in 1 2 3 4 5; do nc db 5432 < /dev/null && break; sleep 1; done"]
shell: {stage: b, script: ["cat out/x"]}
late: {stage: b, image: $IMG, timeout: 3s, allow_failure: true, script: ["sleep 300"]}
missing: {stage: b, image: localhost/none:1, pull_policy: never, allow_failure: true, script: ["true"]}
"#;
    let file = file.replace(
        "missing: {stage: b, image: localhost/none:1, pull_policy: never,",
        "missing: {stage: b, image: {name: 'localhost/none:1', pull_policy: never},",
    );
    fs::write(project.path().join(".gitlab-ci.yml"), file).unwrap();
    fs::write(project.path().join("tracked"), "original\n").unwrap();
    fs::write(project.path().join(".pipeline-variables.yml"), "KEY: {value: \"in a file\", type: file}\n").unwrap();
    for args in [
        &["init", "-q", "-b", "main"][..],
        &["add", "-A"],
        &["-c", "user.name=T", "-c", "user.email=t@example.com", "commit", "-qm", "First"],
    ] {
        assert!(Command::new("git").current_dir(project.path()).args(args).status().unwrap().success());
    }
    let mut run = podman.command(env!("CARGO_BIN_EXE_pipeline"));
    run.current_dir(project.path()).env("PIPELINE_STATE_DIR", state.path());
    let done = run.args(["run", "--executor", "container", "--no-sandbox"]).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{text}");
    for wanted in [
        "/builds/local/",
        "│ original",
        "│ y",
        IMAGE,
        "│ in a file",
        "│ after success",
        "pipe_fails: warning (exit code 1)",
        "is reached as db",
        "hello from peer",
        "shell      │ made",
        "late: warning (timeout)",
        "missing: warning (exit code 125",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains("│ not-reached"), "{text}");
    for list in [&["ps", "-aq"][..], &["network", "ls", "-q", "--filter", "label=pipeline.run"]] {
        let left = podman.command("podman").args(list).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "{list:?}");
    }
}

//! What a hostile job tries, as root runs it and as a user does.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use sandbox::{JOB_ID, Job, Network, Sandbox};
use tempfile::TempDir;

/// A user of the machine that nobody else is.
const SOMEBODY: u32 = 61_011;

/// A sandbox and a place to build in, run by root or by a user.
struct World {
    dir: TempDir,
    sandbox: Sandbox,
    /// Whom the command is spawned as, if not as this process's own user.
    as_user: Option<u32>,
}

impl World {
    /// As this process's user; and, where that is root, as another user too.
    fn all() -> Vec<Self> {
        let callers = if geteuid().is_root() { vec![None, Some(SOMEBODY)] } else { vec![None] };
        callers.into_iter().filter_map(Self::of).collect()
    }

    fn of(as_user: Option<u32>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let sandbox = Sandbox::new(dir.path().join("sandbox")).unwrap().hide(dir.path()).path("/usr/bin:/bin");
        if as_user.is_none()
            && let Err(why) = sandbox.probe()
        {
            assert!(std::env::var_os("TENON_NO_SKIPS").is_none(), "{why}, and TENON_NO_SKIPS is set");
            println!("skipped: no sandbox: {why}");
            return None;
        }
        let sandbox = if as_user.is_some() { sandbox.for_a_user() } else { sandbox };
        fs::create_dir_all(dir.path().join("place/checkout")).unwrap();
        let world = Self { dir, sandbox, as_user };
        world.sandbox.give(&world.checkout()).unwrap();
        world.hand_over();
        Some(world)
    }

    /// What is the spawning user's belongs to it.
    fn hand_over(&self) {
        let Some(user) = self.as_user else { return };
        let inside = ["sandbox", "sandbox/passwd", "sandbox/group", "sandbox/nsswitch.conf", "place", "place/checkout"];
        for path in inside {
            chown(self.dir.path().join(path), Some(user), Some(user)).unwrap();
        }
    }

    fn checkout(&self) -> PathBuf {
        self.dir.path().join("place/checkout")
    }

    fn job(&self, script: &str) -> Job {
        Job::new(self.dir.path().join("place"), ["/bin/sh", "-c", script])
    }

    fn spawn(&self, job: &Job) -> Child {
        let mut command = self.sandbox.command(job).unwrap();
        if let Some(user) = self.as_user {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, script: &str) -> Output {
        self.spawn(&self.job(script)).wait_with_output().unwrap()
    }

    /// The script succeeds; what it printed.
    fn ok(&self, script: &str) -> String {
        let out = self.run(script);
        assert!(out.status.success(), "as {:?}: {script}: {}", self.as_user, said(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// The script fails, and not because there is no such program.
    fn fails(&self, script: &str) -> String {
        let out = self.run(script);
        assert!(!out.status.success(), "as {:?}: {script} succeeded: {}", self.as_user, said(&out));
        assert!(!said(&out).contains("not found"), "as {:?}: {script}: {}", self.as_user, said(&out));
        said(&out)
    }
}

fn said(out: &Output) -> String {
    format!("{} {}{}", out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn a_job_has_no_power_over_the_machine() {
    for world in World::all() {
        assert_eq!(world.ok("id -u; id -g; id -un").lines().collect::<Vec<_>>(), ["1000", "1000", "job"]);
        let status = world.ok("cat /proc/self/status");
        for cap in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{cap}:\t0000000000000000")), "{cap}: {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        world.ok("touch made; ln -s /etc/shadow link");
        let made = fs::metadata(world.checkout().join("made")).unwrap();
        let wanted = match world.as_user {
            Some(user) => user,
            None if geteuid().is_root() => JOB_ID,
            None => geteuid().as_raw(),
        };
        assert_eq!((made.uid(), made.gid() == 0), (wanted, false));
        for attempt in [
            "mount -o remount,rw /",
            "mount -o remount,rw,bind /usr",
            "mount -t tmpfs none /tmp",
            "mount --bind /tmp /usr",
            "umount /proc",
            "umount -l /dev",
            "unshare --user true",
            "unshare --mount true",
            "/usr/sbin/chroot / true",
            "setpriv --reuid 0 true",
            "hostname other",
            "chown 0:0 made",
            "mknod disk b 8 0",
        ] {
            world.fails(attempt);
        }
    }
}

#[test]
fn a_job_writes_to_its_checkout_and_to_what_goes_with_it() {
    for world in World::all() {
        world.ok("echo x > out && mkdir sub && echo x > /tmp/x && echo x > ~/x && echo x > /var/tmp/x && echo x > /dev/shm/x");
        for place in
            ["/", "/usr", "/usr/bin", "/etc", "/job", "/bin", "/lib", "/home", "/var", "/proc", "/proc/sys/kernel"]
        {
            world.fails(&format!("echo x > {place}/x-of-a-job"));
        }
        world.fails("echo x > /job/environment");
        world.fails("echo x > /etc/passwd");
        assert_eq!(fs::read_to_string(world.checkout().join("out")).unwrap(), "x\n");
        assert_eq!(
            world.ok("ls -A /tmp /var/tmp ~ /dev/shm | grep -c x || true").trim(),
            "0",
            "nothing is left of the last job"
        );
    }
}

#[test]
fn a_job_sees_nothing_of_others() {
    for world in World::all() {
        let other = world.dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("token"), "secret").unwrap();
        fs::set_permissions(other.join("token"), fs::Permissions::from_mode(0o666)).unwrap();
        let socket = UnixListener::bind(other.join("socket")).unwrap();
        fs::set_permissions(other.join("socket"), fs::Permissions::from_mode(0o777)).unwrap();
        let paths = [
            other.join("token"),
            other.join("socket"),
            world.dir.path().join("place"),
            world.dir.path().join("sandbox"),
        ];
        for path in paths.iter().map(|path| path.to_str().unwrap()) {
            world.fails(&format!("ls -d {path}"));
            // Links of the checkout lead to what the job sees.
            world.fails(&format!("ln -sf {path} out && ls -L out"));
        }
        for path in [
            "/etc/shadow",
            "/etc/gshadow",
            "/etc/ssl/private",
            "/etc/ssh",
            "/root/.ssh",
            "/run",
            "/var/run",
            "/var/lib",
            "/sys",
            "/mnt",
        ] {
            world.fails(&format!("ls -d {path}"));
        }
        assert_eq!(world.ok("ls -A /home").trim(), "job");
        let processes = world.ok("ls /proc | grep -c '^[0-9]'");
        assert!(processes.trim().parse::<u32>().unwrap() < 10, "{processes}");
        let environment = world.ok("cat /proc/*/environ | tr '\\0' '\\n'");
        assert!(!environment.contains("CARGO_MANIFEST_DIR"), "{environment}");
        drop(socket);
    }
}

#[test]
fn a_job_reaches_the_network_when_it_may() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}'", listener.local_addr().unwrap().port());
    for mut world in World::all() {
        world.fails(&script);
        world.sandbox = world.sandbox.network(Network::Host);
        world.ok(&script);
    }
}

#[test]
fn nothing_outlives_a_job_that_ends_or_is_killed() {
    for (n, world) in World::all().into_iter().enumerate() {
        let mark = format!("{}.{}", 100_000 + n, std::process::id());
        world.ok(&format!("setsid sleep {mark} & (setsid nohup sleep {mark} &) ; sleep 0.1"));
        await_that("what it left behind ends with it", || running(&mark) == 0);

        let mut child =
            world.spawn(&world.job(&format!("setsid sleep {mark} & echo begun > begun; setsid sleep {mark}")));
        await_that("it has begun", || world.checkout().join("begun").exists() && running(&mark) >= 2);
        child.kill().unwrap();
        child.wait().unwrap();
        await_that("it ends with its command", || running(&mark) == 0);
    }
}

#[test]
fn what_a_job_is_told_is_its_own_and_no_other_program_s() {
    for world in World::all() {
        let odd = "it's \"a\" $(touch /tmp/x) `b` \\ \n line\ttab é";
        let job = world.job("printf %s \"$ODD\"; exit 7").env("ODD", odd).env("LD_PRELOAD", "/job/checkout/x.so");
        let out = world.spawn(&job).wait_with_output().unwrap();
        assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stdout).as_ref()), (Some(7), odd));
        let command = world.sandbox.command(&job).unwrap();
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert!(
            !words.iter().any(|word| word.contains("it's") || word.contains("x.so")),
            "others can read it: {words:?}"
        );
        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["LC_ALL", "PATH"], "it reaches the programs that build the sandbox");
        for bad in ["", "a-b", "1a", "a=b", "x y", "f()"] {
            assert!(world.sandbox.command(&world.job("true").env(bad, "x")).is_err(), "{bad}");
        }
        assert_eq!(world.ok("env | grep -c ^ODD= || true").trim(), "0");
    }
}

#[test]
fn tools_are_seen_and_what_is_hidden_in_them_is_not() {
    for mut world in World::all() {
        // Not in `/tmp`, which is the job's own.
        let base = if geteuid().is_root() { "/srv" } else { env!("CARGO_TARGET_TMPDIR") };
        let tools = tempfile::tempdir_in(base).unwrap();
        fs::set_permissions(tools.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(tools.path().join("tool"), "#!/bin/sh\necho tool\n").unwrap();
        fs::set_permissions(tools.path().join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let seen = tools.path().join("tool");
        world.sandbox = world.sandbox.tools(tools.path());
        assert_eq!(world.ok(seen.to_str().unwrap()), "tool\n");
        world.fails(&format!("echo x > {}/y", tools.path().display()));
        world.sandbox = world.sandbox.hide(tools.path().join("tool"));
        world.fails(&format!("ls {}", seen.display()));
        world.sandbox = world.sandbox.hide("/usr/share");
        world.fails("ls /usr/share/doc");
    }
}

/// How many processes of the machine sleep for this long.
fn running(mark: &str) -> usize {
    let wanted = format!("sleep\0{mark}\0");
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes())).count()
}

fn await_that(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_missing_program_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(dir.path().join("sandbox")).unwrap();
    if !Path::new("/usr/bin/bwrap").exists() && Command::new("bwrap").arg("--version").status().is_err() {
        assert!(sandbox.probe().unwrap_err().to_string().contains("bubblewrap"));
    }
    let gone = fs::remove_dir_all(dir.path()).map(|()| sandbox.probe());
    assert!(gone.unwrap().is_err(), "a sandbox without its files runs");
}

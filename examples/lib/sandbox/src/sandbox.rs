//! The sandbox: what it needs, what it is told, and the command that it makes of a job.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::mounts::{Mounts, tool_folders};

/// Where a job finds its checkout.
pub const CHECKOUT: &str = "/job/checkout";
/// A job's home folder, which goes with it.
pub const HOME: &str = "/home/job";
/// The uid and gid that a job has on the machine where the sandbox is run by root: nobody's.
pub const JOB_ID: u32 = 61_007;

/// The uid and gid that a job sees itself as.
const INSIDE: &str = "1000";
/// Where the environment of a job stands, beside its checkout and inside.
const ENVIRONMENT: &str = "environment";
const ENVIRONMENT_INSIDE: &str = "/job/environment";
/// Reads the environment, then becomes the job. Nothing of it reaches the programs that build the sandbox: a
/// `LD_PRELOAD` would run in them.
const BECOME: &str = r#". /job/environment; exec "$@""#;
/// For the programs that build the sandbox.
const SAFE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most that `/tmp`, the home and `/dev/shm` hold each, in bytes.
const SCRATCH_BYTES: u64 = 1 << 30;

/// What a job reaches of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing but a loopback of its own.
    #[default]
    None,
    /// All that the machine reaches, what listens on its loopback and its abstract Unix sockets among it.
    Host,
}

/// Why jobs cannot be run apart from this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// There is no bubblewrap.
    #[error("`bwrap` is not installed (the package is called bubblewrap)")]
    NotInstalled,
    /// A program that root needs besides is missing.
    #[error("`{0}` is not installed (the package is called util-linux), and root needs it")]
    NoSetpriv(&'static str),
    /// The kernel, or the container that this runs in, does not permit it.
    #[error("`bwrap` may not make namespaces here: {0}")]
    NotPermitted(String),
    /// The sandbox's own files cannot be written, or bubblewrap cannot be started.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Who runs the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Must become somebody else first: root in a user namespace is root on every file that it sees.
    Root,
    User,
}

/// How jobs are run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    folder: PathBuf,
    caller: Caller,
    network: Network,
    hidden: Vec<PathBuf>,
    tools: Vec<PathBuf>,
    path: OsString,
    rustup: Option<PathBuf>,
    scratch_bytes: u64,
}

/// One program to run, and where.
#[derive(Clone, Debug)]
pub struct Job {
    place: PathBuf,
    argv: Vec<OsString>,
    env: Vec<(String, OsString)>,
    files: Vec<(PathBuf, PathBuf)>,
}

impl Job {
    /// A job whose checkout is the folder `checkout` in `place`. `place` is the caller's alone; the sandbox keeps a file
    /// there.
    pub fn new<S: Into<OsString>>(place: impl Into<PathBuf>, argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { place: place.into(), argv, env: Vec::new(), files: Vec::new() }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Shows it a file or folder, read-only, at another place.
    #[must_use]
    pub fn read_only(mut self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        self.files.push((from.into(), to.into()));
        self
    }

    fn checkout(&self) -> PathBuf {
        self.place.join("checkout")
    }
}

impl Sandbox {
    /// A sandbox without network, which sees the tools on this process's `PATH`. It keeps a few small files of its own in
    /// `folder`, which is made.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = std::path::absolute(folder.into())?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let folder = fs::canonicalize(folder)?;
        for (name, text) in [
            ("passwd", format!("root:x:0:0::/root:/bin/sh\njob:x:{INSIDE}:{INSIDE}:job:{HOME}:/bin/sh\n")),
            ("group", format!("root:x:0:\njob:x:{INSIDE}:\n")),
            ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ] {
            fs::write(folder.join(name), text)?;
        }
        let home = env::var_os("HOME").map(PathBuf::from);
        let rustup = env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".rustup")));
        Ok(Self {
            folder,
            caller: if nix::unistd::geteuid().is_root() { Caller::Root } else { Caller::User },
            network: Network::None,
            hidden: Vec::new(),
            tools: Vec::new(),
            path: env::var_os("PATH").unwrap_or_else(|| SAFE_PATH.into()),
            rustup: rustup.filter(|folder| folder.is_dir()),
            scratch_bytes: SCRATCH_BYTES,
        })
    }

    /// What jobs reach of the network.
    #[must_use]
    pub const fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Keeps a file or folder from sight even where it lies among the system's programs or the tools.
    #[must_use]
    pub fn hide(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        self.hidden.push(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
        self
    }

    /// Shows jobs one more folder, read-only, at its own place.
    #[must_use]
    pub fn tools(mut self, folder: impl Into<PathBuf>) -> Self {
        self.tools.push(folder.into());
        self
    }

    /// The search path of jobs, whose folders they see as far as those hold programs [default: this process's].
    #[must_use]
    pub fn path(mut self, path: impl Into<OsString>) -> Self {
        self.path = path.into();
        self
    }

    /// The most that `/tmp`, the home and `/dev/shm` hold each, in bytes [default: 1 GiB].
    #[must_use]
    pub const fn scratch_bytes(mut self, most: u64) -> Self {
        self.scratch_bytes = most;
        self
    }

    /// Runs nothing in a sandbox, to find out whether that can be done.
    ///
    /// # Errors
    /// What is in the way, in words for whoever runs the program.
    pub fn probe(&self) -> Result<(), Unavailable> {
        find("bwrap").ok_or(Unavailable::NotInstalled)?;
        if self.caller == Caller::Root {
            find("setpriv").ok_or(Unavailable::NoSetpriv("setpriv"))?;
        }
        let place = self.folder.join("probe");
        fs::create_dir_all(place.join("checkout"))?;
        self.give(&place.join("checkout"))?;
        let job = Job::new(&place, ["sh", "-c", "cd . && : > probed && rm probed"]);
        let done = self.command(&job)?.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(Unavailable::NotPermitted(if said.is_empty() { done.status.to_string() } else { said }))
    }

    /// Gives a checkout, with all that is in it, to whom jobs run as. Links are not followed.
    ///
    /// # Errors
    /// Something in it cannot be given.
    pub fn give(&self, checkout: &Path) -> io::Result<()> {
        if self.caller == Caller::User {
            return Ok(());
        }
        let mut left = vec![checkout.to_owned()];
        while let Some(path) = left.pop() {
            lchown(&path, Some(JOB_ID), Some(JOB_ID))?;
            if fs::symlink_metadata(&path)?.is_dir() {
                for entry in fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
            }
        }
        Ok(())
    }

    /// The command that runs a job. Killing its process ends the job with all that it started; so does the end of the
    /// *thread* that spawned it.
    ///
    /// # Errors
    /// The job has a variable that no shell can set, or its place cannot be written.
    pub fn command(&self, job: &Job) -> io::Result<Command> {
        let argv = self.argv(job)?;
        let (program, rest) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(rest).env_clear().envs(Self::environment()).current_dir("/");
        Ok(command)
    }

    /// The environment that the command is to be spawned with: the same for every job.
    #[must_use]
    pub fn environment() -> Vec<(String, OsString)> {
        vec![("PATH".to_owned(), SAFE_PATH.into()), ("LC_ALL".to_owned(), "C".into())]
    }

    /// The words of the command that runs a job, for callers that spawn it by their own means: with
    /// [`Sandbox::environment`] and no other.
    ///
    /// # Errors
    /// As [`Sandbox::command`].
    pub fn argv(&self, job: &Job) -> io::Result<Vec<OsString>> {
        self.write_environment(job)?;
        let bwrap = find("bwrap").unwrap_or_else(|| "/usr/bin/bwrap".into());
        let mut words = vec![bwrap.clone().into_os_string()];
        let mut inside = Mounts::default();
        match self.caller {
            Caller::Root => {
                // Root gathers what the job may see, from wherever it lies; somebody else makes the sandbox of it.
                let mut outside = Mounts::default();
                self.see(job, &mut outside);
                outside.add(&["--dev", "/dev", "--bind", "/proc", "/proc"]);
                outside.add(&["--dir", "/tmp", "--dir", "/var/tmp", "--dir", HOME, "--remount-ro", "/"]);
                outside.add(&["--unshare-pid", "--die-with-parent", "--new-session", "--chdir", "/", "--"]);
                let id = JOB_ID.to_string();
                let setpriv = find("setpriv").unwrap_or_else(|| "/usr/bin/setpriv".into());
                outside.add(&[setpriv.as_os_str()]);
                outside.add(&["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", "--"]);
                outside.add(&[bwrap.as_os_str()]);
                words.append(&mut outside.words);
                inside.add(&["--bind", "/", "/"]);
            }
            Caller::User => self.see(job, &mut inside),
        }
        self.part(&mut inside);
        inside.add(&["--", "/bin/sh", "-c", BECOME, "job"]);
        inside.add(&job.argv);
        words.append(&mut inside.words);
        Ok(words)
    }

    /// What of the machine, and of the job's own, is there.
    fn see(&self, job: &Job, mounts: &mut Mounts) {
        mounts.system(&self.hidden);
        mounts.etc(&self.folder, self.network == Network::Host);
        let mut tools = tool_folders(&self.path, self.rustup.as_deref());
        tools.extend(self.tools.iter().cloned());
        mounts.tools(&tools, &self.hidden);
        mounts.writable(&job.checkout(), Path::new(CHECKOUT));
        mounts.read_only(&job.place.join(ENVIRONMENT), Path::new(ENVIRONMENT_INSIDE));
        for (from, to) in &job.files {
            mounts.read_only(from, to);
        }
    }

    /// What parts the job from the machine.
    fn part(&self, mounts: &mut Mounts) {
        mounts.add(&["--unshare-user", "--disable-userns", "--uid", INSIDE, "--gid", INSIDE, "--cap-drop", "ALL"]);
        mounts.add(&["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "job"]);
        if self.network == Network::None {
            mounts.add(&["--unshare-net"]);
        }
        mounts.add(&["--die-with-parent", "--new-session", "--proc", "/proc", "--dev", "/dev"]);
        let size = self.scratch_bytes.to_string();
        for own in ["/tmp", "/var/tmp", HOME, "/dev/shm"] {
            mounts.add(&["--perms", "0700", "--size", &size, "--tmpfs", own]);
        }
        mounts.add(&["--remount-ro", "/", "--chdir", CHECKOUT]);
    }

    /// The environment of a job as a file of shell commands.
    fn write_environment(&self, job: &Job) -> io::Result<()> {
        let mut text = Vec::new();
        let mut set = |name: &str, value: &OsStr| {
            let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is no name of a variable")));
            }
            if value.as_bytes().contains(&0) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` has a zero byte")));
            }
            text.extend_from_slice(b"export ");
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"='");
            for byte in value.as_bytes() {
                match byte {
                    b'\'' => text.extend_from_slice(br"'\''"),
                    byte => text.push(*byte),
                }
            }
            text.extend_from_slice(b"'\n");
            Ok(())
        };
        for (name, value) in [("HOME", HOME), ("USER", "job"), ("LOGNAME", "job"), ("SHELL", "/bin/sh")] {
            set(name, OsStr::new(value))?;
        }
        set("TMPDIR", OsStr::new("/tmp"))?;
        set("PATH", &self.path)?;
        if let Some(rustup) = &self.rustup {
            set("RUSTUP_HOME", rustup.as_os_str())?;
        }
        for (name, value) in &job.env {
            set(name, value)?;
        }
        fs::write(job.place.join(ENVIRONMENT), text)
    }
}

#[doc(hidden)]
impl Sandbox {
    /// As a user other than root, who spawns the command.
    #[must_use]
    pub fn for_a_user(mut self) -> Self {
        self.caller = Caller::User;
        self
    }
}

/// A program of the system, never one of the search path that this process was given.
fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(SAFE_PATH).map(|folder| folder.join(name)).find(|path| path.is_file())
}

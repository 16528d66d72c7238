//! A `PostgreSQL` of one's own in a temporary folder, for tests and benches.
//!
//! A test asks [`Server::start_or_skip`]. Where no `PostgreSQL` is installed, the test says so by name and ends; with
//! `TENON_NEEDS_POSTGRES` in the environment it fails instead.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ends its sessions and writes everything down.
    Fast,
    /// It is killed with all its processes, as when a machine fails.
    Kill,
}

/// A server on a free loopback port; it ends, and its folder goes, when this is dropped.
#[derive(Debug)]
pub struct Server {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts a server, or says on the error stream that the test `name` is skipped.
    ///
    /// # Errors
    ///
    /// No server can be started although one is installed, or although `TENON_NEEDS_POSTGRES` is set.
    pub fn start_or_skip(name: &str) -> io::Result<Option<Self>> {
        match installed() {
            Some(bin) => Self::start_from(bin).map(Some),
            None if std::env::var_os("TENON_NEEDS_POSTGRES").is_some() => Err(missing()),
            None => {
                // The test's own output is shown only if it fails.
                writeln!(io::stderr(), "{name}: skipped: no PostgreSQL")?;
                Ok(None)
            }
        }
    }

    /// Starts a server; every commit is on disk before it is answered.
    ///
    /// # Errors
    ///
    /// None is installed, or it does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_from(installed().ok_or_else(missing)?)
    }

    fn start_from(bin: PathBuf) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("job-store-pg").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Self { bin, folder, port, child: None };
        let (mut initdb, user) = server.command("initdb")?;
        if let Some(user) = user {
            std::os::unix::fs::chown(server.folder.path(), Some(user), None)?;
        }
        let made = initdb.args(["-A", "trust", "-U", "tenon", "-E", "UTF8", "--no-sync", "-D"]).arg(server.data());
        if !made.status()?.success() {
            return Err(io::Error::other("initdb failed"));
        }
        server.run()?;
        Ok(server)
    }

    /// Starts the server again after [`Server::stop`].
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn run(&mut self) -> io::Result<()> {
        let (mut postgres, _) = self.command("postgres")?;
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        postgres.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        self.child = Some(postgres.process_group(0).spawn()?);
        let (mut ready, _) = self.command("pg_isready")?;
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() || !ready.status()?.success() {
            if start.elapsed() > Duration::from_secs(30) {
                return Err(io::Error::other("PostgreSQL does not come up"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Stops the server; its data stay.
    ///
    /// # Errors
    ///
    /// It cannot be told.
    pub fn stop(&mut self, how: Stop) -> io::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let group = format!("-{}", child.id());
        let (signal, whom) = match how {
            Stop::Fast => ("-INT", child.id().to_string()),
            Stop::Kill => ("-KILL", group.clone()),
        };
        Command::new("kill").args([signal, "--", &whom]).stderr(Stdio::null()).status()?;
        let told = Instant::now();
        while child.try_wait()?.is_none() && told.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status()?;
        child.wait().map(drop)
    }

    /// Says this to its database, as its superuser.
    ///
    /// # Errors
    ///
    /// The server is down, or does not take it.
    pub fn psql(&self, sql: &str) -> io::Result<()> {
        let (mut psql, _) = self.command("psql")?;
        psql.args(["-q", "-U", "tenon", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", sql, "postgres"]);
        if psql.status()?.success() { Ok(()) } else { Err(io::Error::other("psql failed")) }
    }

    /// The address of its database, as programs take it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://tenon@127.0.0.1:{}/postgres", self.port)
    }

    /// Makes a database on it: its address.
    ///
    /// # Errors
    ///
    /// There is one of this name, or the server is down.
    pub fn database(&self, name: &str) -> io::Result<String> {
        let (mut createdb, _) = self.command("createdb")?;
        let made = createdb.args(["-U", "tenon", "-h", "127.0.0.1", "-p", &self.port.to_string(), name]).status()?;
        if !made.success() {
            return Err(io::Error::other("createdb failed"));
        }
        Ok(format!("postgres://tenon@127.0.0.1:{}/{name}", self.port))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of the server's; it refuses to run as root, and then runs as the user that its package made.
    fn command(&self, program: &str) -> io::Result<(Command, Option<u32>)> {
        let mut command = Command::new(self.bin.join(program));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if number(&["-u"])? != 0 {
            return Ok((command, None));
        }
        let (user, group) = (number(&["-u", "postgres"])?, number(&["-g", "postgres"])?);
        command.uid(user).gid(group).current_dir("/");
        Ok((command, Some(user)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ends = self.stop(Stop::Fast);
    }
}

fn missing() -> io::Error {
    io::Error::other("PostgreSQL is not installed (apt-get install postgresql)")
}

/// The newest version's programs.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    folders.filter(|folder: &PathBuf| Path::new(folder).join("initdb").exists()).max()
}

fn number(arguments: &[&str]) -> io::Result<u32> {
    let output = Command::new("id").args(arguments).output()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(io::Error::other)
}

//! The hooks: a process that Git starts and that is only a pipe to its node, and the node's end of that pipe.
//!
//! Everything is decided in the node. A hook that outlives its `receive-pack` therefore decides nothing: its node has closed the
//! push, and the pipe with it. The pipe is a loopback connection that a secret of one push opens; the cluster's token never gets
//! into Git's environment.
//!
//! From the hook: one line of JSON ([`Hello`]), then its standard input. To the hook: frames of a kind byte, a length in four bytes
//! (big-endian) and that many bytes, for standard output, standard error and, last, the exit code.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::git::objects::ObjectFolders;

/// The hooks that forge installs.
pub(crate) const NAMES: [&str; 2] = ["pre-receive", "proc-receive"];
/// Where the node's end of the pipe listens.
const ADDRESS: &str = "FORGE_HOOK_ADDRESS";
/// What opens it for one push.
const SECRET: &str = "FORGE_HOOK_SECRET";

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;

/// The first line a hook sends.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    secret: String,
    hook: String,
    objects: Option<String>,
    alternates: Option<String>,
}

/// `forge hook NAME`: what Git runs.
pub(crate) fn run(name: &str) -> ExitCode {
    match pipe(name) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The client sees this line as `remote: …`.
            let _ = writeln!(io::stderr(), "forge: the push could not be handled: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pipe(name: &str) -> io::Result<u8> {
    let env = |name: &str| {
        std::env::var(name)
            .map_err(|_| io::Error::other(format!("{name} is not set; hooks are run by forge's own nodes")))
    };
    let address: SocketAddr = env(ADDRESS)?.parse().map_err(io::Error::other)?;
    let hello = Hello {
        secret: env(SECRET)?,
        hook: name.to_owned(),
        objects: std::env::var("GIT_OBJECT_DIRECTORY").ok(),
        alternates: std::env::var("GIT_ALTERNATE_OBJECT_DIRECTORIES").ok(),
    };
    let mut node = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    node.set_nodelay(true)?;
    let mut line = serde_json::to_vec(&hello)?;
    line.push(b'\n');
    node.write_all(&line)?;
    let mut input = node.try_clone()?;
    // Ends with the process, whether Git has closed its end or not.
    std::thread::spawn(move || -> io::Result<()> {
        let mut stdin = io::stdin().lock();
        loop {
            let block = stdin.fill_buf()?;
            if block.is_empty() {
                return input.shutdown(std::net::Shutdown::Write);
            }
            input.write_all(block)?;
            let count = block.len();
            stdin.consume(count);
        }
    });
    loop {
        let mut head = [0; 5];
        node.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let mut data = Vec::new();
        (&mut node).take(u64::from(u32::from_be_bytes(length))).read_to_end(&mut data)?;
        match kind {
            STDOUT => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&data)?;
                stdout.flush()?;
            }
            STDERR => io::stderr().write_all(&data)?,
            _ => return Ok(data.first().copied().unwrap_or(1)),
        }
    }
}

/// Writes the folder of hooks: each only calls this very program.
pub(crate) fn install(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(folder)?;
    let program = std::env::current_exe()?.to_string_lossy().replace('\'', r"'\''");
    for name in NAMES {
        let draft = folder.join(format!("{name}.making"));
        std::fs::write(&draft, format!("#!/bin/sh\nexec '{program}' hook {name}\n"))?;
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o700))?;
        std::fs::rename(&draft, folder.join(name))?;
    }
    Ok(())
}

/// A hook that runs and waits for its node's answer.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) hook: String,
    pub(crate) folders: ObjectFolders,
    pub(crate) input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
}

impl Call {
    /// Something for the hook's standard output, which Git reads.
    pub(crate) async fn stdout(&mut self, data: &[u8]) -> io::Result<()> {
        self.frame(STDOUT, data).await
    }

    /// Something for the user, who sees it as `remote: …`.
    pub(crate) async fn say(&mut self, line: &str) -> io::Result<()> {
        self.frame(STDERR, format!("{line}\n").as_bytes()).await
    }

    /// Ends the hook.
    pub(crate) async fn exit(mut self, code: u8) -> io::Result<()> {
        self.frame(EXIT, &[code]).await
    }

    async fn frame(&mut self, kind: u8, data: &[u8]) -> io::Result<()> {
        let mut frame = vec![kind];
        frame.extend_from_slice(&u32::try_from(data.len()).map_err(io::Error::other)?.to_be_bytes());
        frame.extend_from_slice(data);
        self.output.write_all(&frame).await?;
        self.output.flush().await
    }
}

/// The node's end: which pushes are open, by their secrets.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    address: SocketAddr,
    open: Arc<Mutex<BTreeMap<String, mpsc::Sender<Call>>>>,
}

impl Desk {
    /// Listens on a free loopback port.
    pub(crate) async fn open() -> io::Result<Desk> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let desk = Desk { address: listener.local_addr()?, open: Arc::default() };
        let this = desk.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = this.clone();
                tokio::spawn(async move {
                    let asked = tokio::time::timeout(Duration::from_secs(10), greet(stream)).await;
                    if let Ok(Some((secret, call))) = asked {
                        let to = desk.lock().get(&secret).cloned();
                        if let Some(to) = to {
                            // A push that has ended hears nothing more; the dropped call ends the hook.
                            let _ = to.send(call).await;
                        }
                    }
                });
            }
        });
        Ok(desk)
    }

    /// Opens the pipe for one push.
    pub(crate) fn admit(&self) -> io::Result<Pass> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let secret: String = crate::home::hex(&bytes);
        let (to, calls) = mpsc::channel(2);
        self.lock().insert(secret.clone(), to);
        Ok(Pass { desk: self.clone(), secret, calls })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, mpsc::Sender<Call>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn greet(stream: tokio::net::TcpStream) -> Option<(String, Call)> {
    stream.set_nodelay(true).ok()?;
    let (input, output) = stream.into_split();
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    (&mut input).take(64 << 10).read_until(b'\n', &mut line).await.ok()?;
    let hello: Hello = serde_json::from_slice(&line).ok()?;
    let folders = ObjectFolders { own: hello.objects.map(Into::into), behind: hello.alternates.map(Into::into) };
    Some((hello.secret, Call { hook: hello.hook, folders, input, output }))
}

/// One push's right to be called by its hooks; it ends with the value.
#[derive(Debug)]
pub(crate) struct Pass {
    desk: Desk,
    secret: String,
    calls: mpsc::Receiver<Call>,
}

impl Pass {
    /// What the hooks' environment needs.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        [(ADDRESS, self.desk.address.to_string()), (SECRET, self.secret.clone())]
    }

    /// The next hook that runs.
    pub(crate) async fn call(&mut self) -> Option<Call> {
        self.calls.recv().await
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.desk.lock().remove(&self.secret);
    }
}

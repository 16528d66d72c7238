//! The data folder: one lock, one token, one place for everything that must outlive the process.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The file of the data folder that holds the token of users, unless another is named.
pub(crate) const ACCESS_TOKEN: &str = "access-token";
/// Where the token of users is, for the commands of this machine.
const TOKEN_PATH: &str = "access-token-path";

/// An open data folder. The lock is held as long as this lives.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    token: String,
    _lock: File,
}

impl Home {
    /// Opens the folder, makes it if it is not there, and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data folder {}: choose another with --data", path.display()))?;
        let path = fs::canonicalize(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!(
                "another forge serves the data folder {}: stop it, or choose another folder with --data",
                path.display()
            );
        }
        let token = read_or_make_token(&path.join("token"))?;
        Ok(Self { path, token, _lock: lock })
    }

    /// The secret that every call between router and nodes carries.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A secret of its own for those who may not have the nodes': kept in the file `name`, made at first use.
    pub(crate) fn secret(&self, name: &str) -> Result<String> {
        read_or_make_token(&self.path.join(name))
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store.db")
    }

    /// The life of the store. It stands beside the store, not in it: a backup would bring an old one back.
    pub(crate) fn generation(&self) -> Result<u32> {
        let file = self.path.join("generation");
        match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} does not hold a number", file.display())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(1),
            Err(e) => Err(e.into()),
        }
    }

    /// Begins the next life of the store; it is on disk once this returns.
    pub(crate) fn next_generation(&self) -> Result<u32> {
        let next = self.generation()?.checked_add(1).context("the store has come back too often")?;
        let partial = self.path.join("generation.new");
        let mut file = File::create(&partial)?;
        file.write_all(next.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(partial, self.path.join("generation"))?;
        File::open(&self.path)?.sync_all()?;
        Ok(next)
    }

    /// Tells where the token of users is, for the commands that talk to the router; nowhere, if there is none.
    pub(crate) fn publish_token_file(&self, path: Option<&Path>) -> Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        let partial = self.path.join("access-token-path.new");
        fs::write(&partial, path.map_or(&b""[..], |path| path.as_os_str().as_bytes()))?;
        Ok(fs::rename(partial, self.path.join(TOKEN_PATH))?)
    }

    /// Where a node says what it does.
    pub(crate) fn node_log(&self, id: u32) -> PathBuf {
        self.path.join(format!("node-{id}/log"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder for bodies that are too large for memory; emptied at each start.
    pub(crate) fn spool(&self) -> Result<PathBuf> {
        let spool = self.path.join("spool");
        match fs::remove_dir_all(&spool) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        fs::create_dir(&spool)?;
        Ok(spool)
    }

    /// Tells where the router listens, for the commands that talk to it.
    pub(crate) fn publish_address(&self, url: &str) -> Result<()> {
        let partial = self.path.join("address.new");
        fs::write(&partial, url)?;
        Ok(fs::rename(partial, self.path.join("address"))?)
    }
}

/// Where the router that serves `data` listens.
pub(crate) fn published_address(data: &Path) -> Result<String> {
    let file = data.join("address");
    fs::read_to_string(&file).with_context(|| {
        format!(
            "no forge has served the folder {}: start one with `forge --data {}`, or name the server with --server",
            data.display(),
            data.display()
        )
    })
}

/// Where the token of the forge that serves `data` is, if it has one.
pub(crate) fn published_token_file(data: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = fs::read(data.join(TOKEN_PATH)).ok().filter(|path| !path.is_empty())?;
    Some(std::ffi::OsString::from_vec(path).into())
}

fn read_or_make_token(file: &Path) -> Result<String> {
    match fs::read_to_string(file) {
        Ok(token) if token.len() == 64 => return Ok(token),
        Ok(_) => bail!("{} does not hold a token: remove it, a new one is made", file.display()),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    let token = hex(&random_bytes()?);
    let mut out = OpenOptions::new().create_new(true).write(true).mode(0o600).open(file)?;
    out.write_all(token.as_bytes())?;
    out.sync_all()?;
    Ok(token)
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A key's worth of the system's chance.
pub(crate) fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))?;
    Ok(bytes)
}

/// Sixty-four bits of the system's chance.
pub(crate) fn random() -> Result<u64> {
    getrandom::u64().map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))
}

//! A secret in a file: made once, shown to programs that may read the file, changed while the server runs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A secret that is shorter can be guessed.
const SHORTEST: usize = 20;
const LONGEST: usize = 1024;

/// A secret text. It is not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has {SHORTEST} to {LONGEST} printable characters, without spaces")]
pub struct BadSecret;

impl Secret {
    /// A secret that somebody chose; white space around it is not part of it.
    ///
    /// # Errors
    /// It is empty, short, or holds what a header cannot carry.
    pub fn new(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        let fits = (SHORTEST..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(BadSecret) }
    }

    /// A new one of 256 random bits.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|e| io::Error::other(format!("the system gives no random numbers: {e}")))?;
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
        Ok(Self(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()))
    }

    /// Whether a client gave this secret. The time that it takes does not tell where the two part.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        let (ours, given) = (self.0.as_bytes(), given.as_bytes());
        ours.len() == given.len() && ours.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }

    /// The text, for whoever may have it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A file that holds a secret. A change of the file holds from the next request on.
#[derive(Debug)]
pub struct SecretFile {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Arc<Secret>)>>,
}

/// What tells one content of a file from another.
type Stamp = (u64, u64, i64, i64);

/// Why a file gives no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It cannot be read or made.
    #[error("the token file {0} cannot be used: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// What it holds is none.
    #[error("the token file {0} does not hold one: {1}")]
    Bad(PathBuf, #[source] BadSecret),
}

impl SecretFile {
    /// A secret file that is there, or a new one with a random secret, for its owner's eyes only.
    ///
    /// # Errors
    /// The file holds no secret, or cannot be read or made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SecretError> {
        let path = path.into();
        if !path.exists() {
            Self::rotate(&path)?;
        }
        let file = Self { path, read: Mutex::new(None) };
        file.current()?;
        Ok(file)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret that it holds now.
    ///
    /// # Errors
    /// It holds none any more: nobody is let in.
    pub fn current(&self) -> Result<Arc<Secret>, SecretError> {
        let broken = |e| SecretError::Io(self.path.clone(), e);
        let meta = fs::metadata(&self.path).map_err(broken)?;
        let stamp = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, secret)) = &*read
            && *seen == stamp
        {
            return Ok(Arc::clone(secret));
        }
        let secret = Arc::new(Self::read(&self.path)?);
        *read = Some((stamp, Arc::clone(&secret)));
        Ok(secret)
    }

    /// Reads the secret that a file holds, as a client does.
    ///
    /// # Errors
    /// It holds none, or cannot be read.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let text = fs::read_to_string(path).map_err(|e| SecretError::Io(path.to_owned(), e))?;
        Secret::new(&text).map_err(|e| SecretError::Bad(path.to_owned(), e))
    }

    /// Puts a new random secret into a file; on disk, and in force, once this returns.
    ///
    /// # Errors
    /// The file cannot be written; the old secret holds.
    pub fn rotate(path: &Path) -> Result<(), SecretError> {
        let broken = |e| SecretError::Io(path.to_owned(), e);
        let write = || {
            let secret = Secret::random()?;
            let partial = path.with_extension("new");
            match fs::remove_file(&partial) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
            file.write_all(format!("{}\n", secret.expose()).as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        write().map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_short_or_odd_is_no_secret() {
        for bad in
            ["", " ", "\n", "short", "nineteen-characters", "twenty characters and spaces", "zwanzig-zeichen-mit-ö"]
        {
            assert!(Secret::new(bad).is_err(), "{bad:?}");
        }
        let secret = Secret::new(" twenty-characters-000\n").unwrap();
        assert!(secret.is("twenty-characters-000"));
        for other in ["", "twenty-characters-001", "twenty-characters-0000", "twenty-characters-00"] {
            assert!(!secret.is(other), "{other}");
        }
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn a_file_is_made_for_its_owner_and_a_new_secret_holds_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access-token");
        let file = SecretFile::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let first = file.current().unwrap();
        assert_eq!((first.expose().len(), file.current().unwrap()), (64, Arc::clone(&first)));
        SecretFile::rotate(&path).unwrap();
        assert!(!file.current().unwrap().is(first.expose()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Opened again it is the same; without one nobody is let in.
        assert_eq!(SecretFile::open(&path).unwrap().current().unwrap(), file.current().unwrap());
        fs::write(&path, "").unwrap();
        assert!(file.current().is_err());
        assert!(SecretFile::open(&path).is_err());
        fs::remove_file(&path).unwrap();
        assert!(file.current().is_err());
    }
}

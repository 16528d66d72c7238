//! Where this program keeps what it needs: outside of the project.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs, io};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// How many runs of a project are kept.
const MAX_RUNS: usize = 10;

/// The state and the caches of one project.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// For all projects.
    pub(crate) root: PathBuf,
    /// For this one.
    pub(crate) project: PathBuf,
    pub(crate) caches: PathBuf,
}

impl Home {
    /// The folders of the project with this root. They are made.
    pub(crate) fn of(project: &Path, given: Option<&Path>) -> Result<Self> {
        let root = match given {
            Some(root) => root.to_owned(),
            None => state_folder()
                .context("neither HOME nor XDG_STATE_HOME is set: say where state is kept with --state-dir")?,
        };
        let root = std::path::absolute(root)?;
        let name = project.file_name().map_or_else(|| "project".into(), |name| name.to_string_lossy().into_owned());
        let clean: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
        let folder = root.join(format!("{clean}-{}", &digest(project.as_os_str().as_encoded_bytes())[..12]));
        let caches = folder.join("cache");
        for folder in [&root, &folder, &caches, &folder.join("runs")] {
            make(folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        }
        Ok(Self { root, project: folder, caches })
    }

    /// The folder of a new run, and its number. The oldest are removed.
    pub(crate) fn new_run(&self) -> Result<(u64, PathBuf)> {
        let runs = self.runs()?;
        let mut number = runs.last().map_or(1, |(number, _)| number + 1);
        let folder = loop {
            let folder = self.project.join("runs").join(number.to_string());
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => break folder,
                // Another run has just begun.
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(why) => return Err(why).context("the folder of the run cannot be made"),
            }
        };
        let many = runs.len().saturating_sub(MAX_RUNS - 1);
        for (_, old) in runs.iter().take(many).filter(|(_, old)| !Lock::is_held(old)) {
            crate::tree::remove(old)?;
        }
        Ok((number, folder))
    }

    /// All runs, the oldest first.
    pub(crate) fn runs(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(self.project.join("runs"))? {
            let entry = entry?;
            if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                runs.push((number, entry.path()));
            }
        }
        runs.sort();
        Ok(runs)
    }

    /// The newest run.
    pub(crate) fn last_run(&self) -> Result<(u64, PathBuf)> {
        self.runs()?.pop().context("there is no run of this project yet: `pipeline run` begins one")
    }

    /// Removes the oldest runs, and the caches that were used longest ago, until what is left has at most so many bytes.
    pub(crate) fn clean(&self, max_bytes: u64) -> Result<(usize, u64)> {
        let mut things: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        let runs = self.runs()?.into_iter().map(|(_, path)| path).filter(|path| !Lock::is_held(path));
        let caches = fs::read_dir(&self.caches)?.flatten().map(|entry| entry.path());
        for path in runs.chain(caches) {
            let used = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            let size = crate::tree::size(&path);
            things.push((used, path, size));
        }
        things.sort();
        let mut left: u64 = things.iter().map(|(_, _, size)| size).sum();
        let (mut removed, mut freed) = (0, 0);
        for (_, path, size) in things {
            if left <= max_bytes && max_bytes > 0 {
                break;
            }
            crate::tree::remove(&path)?;
            (left, removed, freed) = (left - size, removed + 1, freed + size);
        }
        Ok((removed, freed))
    }
}

/// The lock of a run: held as long as a process works at it.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Its end ends the lock.
    _file: fs::File,
}

impl Lock {
    /// Takes the lock; `None` if another process has it.
    pub(crate) fn take(run: &Path) -> Result<Option<Self>> {
        let file = fs::File::create(run.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(why)) => Err(why.into()),
        }
    }

    fn is_held(run: &Path) -> bool {
        fs::File::open(run.join("lock")).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
    }
}

fn state_folder() -> Option<PathBuf> {
    let own = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    own("XDG_STATE_HOME").or_else(|| Some(own("HOME")?.join(".local/state"))).map(|state| state.join("pipeline"))
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A text for some bytes, which no others have.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

//! A log's folder: one blocking writer, any number of readers, and nothing that a crash can spoil.
//!
//! ```text
//! key                        32 secret bytes, for the checksums
//! lock                       held by whoever writes
//! snapshot-VERSION           all refs at a version
//! segment-BASE-END           a folded stretch
//! records                    what was appended since, one frame after another
//! ```
//!
//! A file appears under its name only when it is whole and durable: it is written beside, synced, renamed, and the folder
//! synced. Files that a newer one replaces go after that, so a crash leaves too much, never too little; what is left over
//! is not read again, and goes with the next writer.

#[cfg(test)]
mod torture;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tenon_refslog::{ChecksumKey, Config, Log, LogConfig, Record, Records, Segment, Snapshot, Version};

/// What the folder is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Whether a record was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is durable.
    Now,
    /// Another one of its version was there; nothing is changed.
    Before,
}

/// The end of a write that was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    /// Where in the file of records it starts.
    pub(crate) at: usize,
    pub(crate) len: usize,
}

#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// Held until the store is dropped.
    _lock: Option<File>,
    key: [u8; 32],
    snapshot: Option<(Version, Bytes)>,
    /// Adjacent, after the snapshot.
    segments: Vec<(Version, Version, Bytes)>,
    /// After the segments.
    records: Vec<(Version, Bytes)>,
    torn: Option<Torn>,
}

/// Writes a file whole or not at all, durably.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<Bytes> {
    Ok(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?.into())
}

impl Store {
    /// Whether a log is there.
    pub(crate) fn is_at(folder: &Path) -> bool {
        folder.join("key").exists()
    }

    /// Makes a new log's folder.
    pub(crate) fn create(folder: &Path, key: &[u8; 32]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        if fs::read_dir(folder)?.next().is_some() {
            bail!("{} is neither a log nor empty", folder.display());
        }
        write_whole(&folder.join("key"), key)?;
        Self::open(folder, Access::Write)
    }

    /// Opens a log and reads it. A writer cuts off what a crash left half written.
    pub(crate) fn open(folder: &Path, access: Access) -> Result<Self> {
        if !Self::is_at(folder) {
            bail!("{} is no log of refs: there is no key in it", folder.display());
        }
        let key = read(&folder.join("key"))?;
        let key = <[u8; 32]>::try_from(&key[..]).ok().context("the key has not 32 bytes")?;
        let lock = if access == Access::Write { Some(lock(folder)?) } else { None };
        let mut store = Self {
            folder: folder.to_owned(),
            _lock: lock,
            key,
            snapshot: None,
            segments: Vec::new(),
            records: Vec::new(),
            torn: None,
        };
        store.read_files()?;
        store.read_records()?;
        if access == Access::Write {
            store.clean()?;
        }
        Ok(store)
    }

    /// The numbers in the names of files that start with a word.
    fn files(&self, word: &str) -> Result<Vec<(Vec<u64>, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(numbers) = name.strip_prefix(word) else { continue };
            if let Ok(numbers) = numbers.split('-').map(str::parse).collect::<Result<Vec<u64>, _>>() {
                files.push((numbers, path));
            }
        }
        files.sort();
        Ok(files)
    }

    fn read_files(&mut self) -> Result<()> {
        if let Some((numbers, path)) = self.files("snapshot-")?.pop() {
            self.snapshot = Some((Version(numbers[0]), read(&path)?));
        }
        // From where the snapshot ends, always the longest: what a fold left over is inside of what it made.
        let segments = self.files("segment-")?;
        let mut at = self.snapshot_version();
        while let Some((numbers, path)) = segments.iter().rfind(|(numbers, _)| numbers[0] == at.0) {
            let end = Version(numbers.get(1).copied().filter(|end| *end > at.0).context("a segment goes nowhere")?);
            self.segments.push((at, end, read(path)?));
            at = end;
        }
        Ok(())
    }

    fn read_records(&mut self) -> Result<()> {
        let path = self.folder.join("records");
        if !path.exists() {
            return Ok(());
        }
        let file = read(&path)?;
        let covered = self.covered();
        let mut records = Records::new(file.clone());
        let mut at = 0;
        while let Some(record) = records.next() {
            match record {
                Ok(record) => {
                    let bytes = file.slice(at..records.offset());
                    if record.version() > covered {
                        self.records.push((record.version(), bytes));
                    }
                    at = records.offset();
                }
                Err(cut) if cut.is_torn() => {
                    self.torn = Some(Torn { at: cut.offset(), len: file.len() - cut.offset() });
                    break;
                }
                Err(damage) => return Err(damage).with_context(|| format!("{} is damaged", path.display())),
            }
        }
        Ok(())
    }

    /// Rewrites the records where more is there than counts, and removes files that are not read any more.
    fn clean(&mut self) -> Result<()> {
        let counted: usize = self.records.iter().map(|(_, bytes)| bytes.len()).sum();
        let path = self.folder.join("records");
        let there = fs::metadata(&path).map_or(0, |file| file.len());
        if there != counted as u64 {
            let all: Vec<u8> = self.records.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
            write_whole(&path, &all)?;
            self.torn = None;
        }
        let newest = self.snapshot_version().0;
        for (numbers, path) in self.files("snapshot-")? {
            if numbers[0] != newest {
                fs::remove_file(path)?;
            }
        }
        let used = |numbers: &[u64]| self.segments.iter().any(|(base, end, _)| numbers == [base.0, end.0]);
        for (numbers, path) in self.files("segment-")? {
            if !used(&numbers) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn snapshot_version(&self) -> Version {
        self.snapshot.as_ref().map_or(Version::GENESIS, |(version, _)| *version)
    }

    /// The newest version that needs no record.
    fn covered(&self) -> Version {
        self.segments.last().map_or(self.snapshot_version(), |(_, end, _)| *end)
    }

    fn newest(&self) -> Version {
        self.records.last().map_or(self.covered(), |(version, _)| *version)
    }

    /// What was left half written, for a reader; a writer has cut it off.
    pub(crate) const fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Bytes of all that counts.
    pub(crate) fn bytes(&self) -> usize {
        let segments = self.segments.iter().map(|(_, _, bytes)| bytes);
        let all = self.records.iter().map(|(_, bytes)| bytes).chain(segments);
        all.chain(self.snapshot.as_ref().map(|(_, bytes)| bytes)).map(Bytes::len).sum()
    }

    /// The rules for this log's refs.
    pub(crate) fn config(&self) -> Result<Config> {
        Ok(Config::builder(self.opened()?.format(), ChecksumKey::new(self.key)).build()?)
    }

    fn opened(&self) -> Result<Snapshot> {
        let (version, bytes) = self.snapshot.as_ref().context("the log has no snapshot")?;
        let snapshot = Snapshot::open(bytes.clone()).context("the snapshot is damaged")?;
        if snapshot.point().version != *version {
            bail!("the snapshot of version {version} says that it is of {}", snapshot.point().version);
        }
        Ok(snapshot)
    }

    /// The log, read.
    pub(crate) fn log(&self, rule: LogConfig) -> Result<Log> {
        let mut log = Log::new(rule, self.opened()?);
        for (base, end, bytes) in &self.segments {
            let segment =
                Segment::decode(bytes.clone()).with_context(|| format!("segment {base}..{end} is damaged"))?;
            log.append_segment(segment).with_context(|| format!("segment {base}..{end}"))?;
        }
        for (version, bytes) in &self.records {
            let record = Record::decode(bytes).with_context(|| format!("record {version} is damaged"))?;
            log.append(record).with_context(|| format!("record {version}"))?;
        }
        Ok(log)
    }

    /// Appends a record, durably, if its version is free.
    pub(crate) fn append(&mut self, version: Version, record: Bytes) -> Result<Kept> {
        if version <= self.newest() {
            return Ok(Kept::Before);
        }
        let path = self.folder.join("records");
        let is_new = !path.exists();
        let append = || {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(&record)?;
            file.sync_data()?;
            if is_new { File::open(&self.folder)?.sync_all() } else { Ok(()) }
        };
        append().with_context(|| format!("cannot append to {}", path.display()))?;
        self.records.push((version, record));
        Ok(Kept::Now)
    }

    /// Keeps a snapshot, and then drops what it replaces.
    pub(crate) fn put_snapshot(&mut self, version: Version, bytes: Bytes) -> Result<()> {
        write_whole(&self.folder.join(format!("snapshot-{:020}", version.0)), &bytes)?;
        self.snapshot = Some((version, bytes));
        self.segments.retain(|(_, end, _)| *end > version);
        self.records.retain(|(at, _)| *at > version);
        self.clean()
    }

    /// Keeps a segment, and then drops the pieces that it replaces.
    pub(crate) fn put_segment(&mut self, base: Version, end: Version, bytes: Bytes) -> Result<()> {
        write_whole(&self.folder.join(format!("segment-{:020}-{:020}", base.0, end.0)), &bytes)?;
        self.segments.retain(|(from, to, _)| *from < base || *to > end);
        let at = self.segments.partition_point(|(from, _, _)| *from < base);
        self.segments.insert(at, (base, end, bytes));
        self.records.retain(|(version, _)| *version > end);
        self.clean()
    }
}

fn lock(folder: &Path) -> Result<File> {
    let file = File::create(folder.join("lock")).with_context(|| format!("cannot write to {}", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!("somebody else is writing to {}", folder.display()),
        Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock the log"),
    }
}

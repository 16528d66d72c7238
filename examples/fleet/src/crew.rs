//! The workers, as files: `workers/LAUNCH-N` is a worker's leave to stay, locked while it lives. Renamed to
//! `LAUNCH-N.RELEASE`, it is told to go; to `LAUNCH-N.cancelled`, it need not come at all. So asking twice under one request starts or stops nobody twice.
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use tenon_scaler::{Effect, Progress, Request, RequestId, RequestKind, Snapshot};

pub(crate) struct Worker {
    pub(crate) leave: PathBuf,
    pub(crate) launch: RequestId,
    pub(crate) release: Option<RequestId>,
    /// It was told not to come.
    pub(crate) cancelled: bool,
    /// It has said that it serves.
    pub(crate) came: bool,
    /// It holds its lock, or is so young that it may not have taken it yet.
    pub(crate) alive: bool,
}

impl Worker {
    fn read(leave: PathBuf) -> Result<Self> {
        let name = leave.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts = name.split(['-', '.']);
        let launch = RequestId(parts.next().context("a name without a launch")?.parse()?);
        let end = parts.nth(1);
        let cancelled = end == Some("cancelled");
        let release = end.filter(|_| !cancelled).map(|id| id.parse().map(RequestId)).transpose()?;
        let file = File::open(&leave)?;
        let (came, age) = (file.metadata()?.len() > 0, file.metadata()?.modified()?.elapsed().unwrap_or_default());
        let alive = matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || (!came && age.as_secs() < 5);
        Ok(Self { leave, launch, release, cancelled, came, alive })
    }

    pub(crate) fn serves(&self) -> bool {
        self.came && self.alive && self.release.is_none() && !self.cancelled
    }
}

pub(crate) struct Crew {
    folder: PathBuf,
    program: PathBuf,
    children: Vec<Child>,
}

impl Crew {
    /// The workers of a folder, which run `program worker LEAVE`.
    pub(crate) fn open(folder: &Path, program: PathBuf) -> Result<Self> {
        ["new", "done", "workers"].iter().try_for_each(|part| fs::create_dir_all(folder.join(part)))?;
        Ok(Self { folder: folder.to_owned(), program, children: Vec::new() })
    }

    /// Keeps a snapshot, durably, and then forgets who is gone and what it does not ask about.
    pub(crate) fn save(&mut self, snapshot: &Snapshot) -> Result<()> {
        let new = self.folder.join("state.new");
        fs::write(&new, serde_json::to_string(snapshot)?)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, self.folder.join("state.json"))?;
        let is_asked = |held: &Worker| snapshot.requests().any(|(id, _)| id == held.launch || Some(id) == held.release);
        for held in self.workers()?.iter().filter(|held| !held.alive && !is_asked(held)) {
            fs::remove_file(&held.leave)?;
        }
        Ok(())
    }

    pub(crate) fn workers(&mut self) -> Result<Vec<Worker>> {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        fs::read_dir(self.folder.join("workers"))?.map(|entry| Worker::read(entry?.path())).collect()
    }

    /// What a request has come to. Who died before it was told to go is gone too.
    pub(crate) fn progress(workers: &[Worker], id: RequestId, request: &Request) -> Progress {
        let (mut came, mut staying) = (Progress::default(), 0);
        for held in workers {
            let ours = held.launch == id;
            came.done += u32::from(ours && held.came && !held.cancelled);
            came.failed += u32::from(ours && !held.came && !held.alive && !held.cancelled);
            came.cancelled += u32::from(ours && held.cancelled && !held.alive);
            staying += u32::from(held.release == Some(id) && held.alive);
        }
        if request.kind == RequestKind::Launch { came } else { Progress::done(request.count - staying) }
    }

    /// Acts on an effect. Asked again, it does only what is missing.
    pub(crate) fn act(&mut self, effect: &Effect) -> Result<()> {
        let (workers, request) = (self.workers()?, effect.request());
        let count = match *effect {
            Effect::Launch { count, .. } | Effect::Release { count, .. } => count,
            Effect::Cancel { keep, .. } => return Self::cancel(&workers, request, keep),
        };
        let asked = workers.iter().filter(|held| held.launch == request || held.release == Some(request)).count();
        let mut serving = workers.iter().filter(|held| held.serves());
        for at in asked..count as usize {
            let leave = self.folder.join("workers").join(format!("{request}-{at}"));
            if matches!(effect, Effect::Launch { .. }) {
                File::create_new(&leave)?;
                self.children.push(Command::new(&self.program).arg("worker").arg(&leave).spawn()?);
            } else if let Some(held) = serving.next() {
                fs::rename(&held.leave, held.leave.with_extension(request.to_string()))?;
            } else {
                // Who died before it was told to go is gone.
                fs::write(leave.with_extension(request.to_string()), "gone")?;
            }
        }
        Ok(())
    }
}

impl Crew {
    /// Keeps no more than `keep` workers of a launch: those that have not come need not come.
    fn cancel(workers: &[Worker], launch: RequestId, keep: u32) -> Result<()> {
        let wanted = |held: &&Worker| held.launch == launch && !held.cancelled && (held.came || held.alive);
        let over = workers.iter().filter(wanted).count().saturating_sub(keep as usize);
        for held in workers.iter().filter(wanted).filter(|held| !held.came).take(over) {
            fs::rename(&held.leave, held.leave.with_extension("cancelled"))?;
        }
        Ok(())
    }
}

/// A worker: runs one job after another, as long as it has leave to stay. Whoever has the lock of a job runs it: the lock
/// of a worker that dies is free, and another takes the job.
pub(crate) fn work(leave: &Path) -> Result<()> {
    let folder = leave.ancestors().nth(2).context("leave is in a folder of the spool")?;
    let mut file = File::options().read(true).append(true).open(leave)?;
    file.lock()?;
    file.write_all(b"serves")?;
    while leave.exists() {
        let lock = |job: &PathBuf| File::open(job).ok().filter(|file| file.try_lock().is_ok() && job.exists());
        let jobs = fs::read_dir(folder.join("new"))?.map(|entry| Ok(entry?.path())).collect::<Result<BTreeSet<_>>>()?;
        let Some((_lock, job)) = jobs.iter().find_map(|job| Some((lock(job)?, job))) else {
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        Command::new("sh").arg(job).status()?;
        fs::rename(job, folder.join("done").join(job.file_name().context("a job has a name")?))?;
    }
    Ok(())
}

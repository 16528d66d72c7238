//! The workers, as files: `workers/LAUNCH-N` is a worker's leave to stay, locked while it lives. Renamed to
//! `LAUNCH-N.RELEASE`, it is told to go. So asking twice under one request starts or stops nobody twice.
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tenon_scaler::{Request, RequestId, RequestKind, Snapshot};

pub(crate) struct Worker {
    pub(crate) leave: PathBuf,
    pub(crate) name: String,
    pub(crate) release: String,
    /// It has said that it serves.
    pub(crate) came: bool,
    /// It holds its lock, or is so young that it may not have taken it yet.
    pub(crate) alive: bool,
}

impl Worker {
    fn read(leave: PathBuf) -> Result<Self> {
        let file = File::open(&leave)?;
        let (came, age) = (file.metadata()?.len() > 0, file.metadata()?.modified()?.elapsed().unwrap_or_default());
        let alive = matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || (!came && age.as_secs() < 5);
        let (name, release) = (text(leave.file_stem()), text(leave.extension()));
        Ok(Self { leave, name, release, came, alive })
    }

    pub(crate) fn serves(&self) -> bool {
        self.came && self.alive && self.release.is_empty()
    }
}

pub(crate) struct Crew {
    folder: PathBuf,
    program: PathBuf,
    children: Vec<Child>,
}

fn text(part: Option<&OsStr>) -> String {
    part.unwrap_or_default().to_string_lossy().into_owned()
}

fn files(folder: PathBuf) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

impl Crew {
    /// The workers of a folder, which run `program worker FOLDER NAME`.
    pub(crate) fn open(folder: &Path, program: PathBuf) -> Result<Self> {
        for part in ["new", "running", "done", "workers"] {
            fs::create_dir_all(folder.join(part))?;
        }
        Ok(Self { folder: folder.to_owned(), program, children: Vec::new() })
    }

    /// Keeps a snapshot, durably; what no snapshot asks about any more is forgotten then.
    pub(crate) fn save(&mut self, snapshot: &Snapshot) -> Result<()> {
        let new = self.folder.join("state.new");
        fs::write(&new, serde_json::to_string(snapshot)?)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, self.folder.join("state.json"))?;
        self.forget(snapshot)
    }

    pub(crate) fn load(&self) -> Result<Option<Snapshot>> {
        let text = fs::read_to_string(self.folder.join("state.json")).ok();
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    pub(crate) fn workers(&mut self) -> Result<Vec<Worker>> {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        files(self.folder.join("workers"))?.into_iter().map(Worker::read).collect()
    }

    /// Jobs that wait or run; those of workers that died go back to where they came from.
    pub(crate) fn jobs(&self, workers: &[Worker]) -> Result<i64> {
        for file in files(self.folder.join("running"))? {
            // It is called JOB.WORKER.
            if !workers.iter().any(|held| held.name == text(file.extension()) && held.alive) {
                fs::rename(&file, self.folder.join("new").join(text(file.file_stem())))?;
            }
        }
        Ok(i64::try_from(files(self.folder.join("new"))?.len() + files(self.folder.join("running"))?.len())?)
    }

    /// How many of a request are done, and how many have failed. Who died before it was told to go is gone too.
    pub(crate) fn progress(workers: &[Worker], id: RequestId, request: &Request) -> Result<(u32, u32)> {
        let count = |is: &dyn Fn(&Worker) -> bool| u32::try_from(workers.iter().filter(|held| is(held)).count());
        let (release, launch) = (id.to_string(), format!("{id}-"));
        if request.kind == RequestKind::Release {
            return Ok((request.count - count(&|held| held.release == release && held.alive)?, 0));
        }
        let failed = count(&|held| held.name.starts_with(&launch) && !held.came && !held.alive)?;
        Ok((count(&|held| held.name.starts_with(&launch) && held.came)?, failed))
    }

    pub(crate) fn launch(&mut self, request: RequestId, count: u32) -> Result<()> {
        let asked = self.workers()?;
        let names = (0..count).map(|at| format!("{request}-{at}"));
        for name in names.filter(|name| asked.iter().all(|held| held.name != *name)) {
            File::create_new(self.folder.join("workers").join(&name))?;
            self.children.push(Command::new(&self.program).arg("worker").arg(&self.folder).arg(&name).spawn()?);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, request: RequestId, count: u32) -> Result<()> {
        let workers = self.workers()?;
        let asked = workers.iter().filter(|held| held.release == request.to_string()).count();
        for held in workers.iter().filter(|held| held.serves()).take((count as usize).saturating_sub(asked)) {
            fs::rename(&held.leave, held.leave.with_extension(request.to_string()))?;
        }
        Ok(())
    }

    /// Removes the files of those that are gone, once no kept snapshot asks about them.
    fn forget(&mut self, kept: &Snapshot) -> Result<()> {
        let open: Vec<String> = kept.requests().map(|(id, _)| id.to_string()).collect();
        let is_asked =
            |held: &Worker| held.name.split('-').chain([&*held.release]).any(|id| open.iter().any(|o| o == id));
        for held in self.workers()?.iter().filter(|held| !held.alive && !is_asked(held)) {
            fs::remove_file(&held.leave)?;
        }
        Ok(())
    }
}

/// A worker: takes one job after another, as long as it has leave to stay.
pub(crate) fn work(folder: &Path, name: &str) -> Result<()> {
    let leave = folder.join("workers").join(name);
    let mut file = File::options().append(true).open(&leave)?;
    file.lock()?;
    file.write_all(b"serves\n")?;
    while leave.exists() {
        let Some(job) = files(folder.join("new"))?.into_iter().next() else {
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        let title = text(job.file_name());
        let mine = folder.join("running").join(format!("{title}.{name}"));
        // Another worker may have been quicker.
        if fs::rename(job, &mine).is_ok() {
            Command::new("sh").arg(&mine).status()?;
            fs::rename(&mine, folder.join("done").join(title))?;
        }
    }
    Ok(())
}

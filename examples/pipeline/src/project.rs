//! The project's files as the reader of CI files asks for them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

use gitlab_ci::{Changed, Files};

use crate::git::Repository;

/// The files of a project, and where the files of others are.
#[derive(Debug)]
pub(crate) struct Project<'r> {
    pub(crate) repository: &'r Repository,
    /// Only what is committed counts.
    pub(crate) committed: bool,
    /// What changes are counted from, if somebody said.
    pub(crate) changes_base: Option<&'r str>,
    /// The branch that a merge request is to go into.
    pub(crate) target: Option<&'r str>,
    /// `HOST/PATH` and the folder that stands for it.
    pub(crate) include_roots: &'r [(String, PathBuf)],
    /// What was found out about changes.
    pub(crate) said: Mutex<Vec<String>>,
}

impl Project<'_> {
    fn say(&self, what: String) {
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !said.contains(&what) {
            said.push(what);
        }
    }
}

fn other(why: &anyhow::Error) -> io::Error {
    io::Error::other(format!("{why:#}"))
}

impl Files for Project<'_> {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        if self.committed {
            return self.repository.committed(path).map_err(|why| other(&why));
        }
        read_inside(&self.repository.root, path)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.repository.tracked(self.committed).map_err(|why| other(&why))
    }

    fn changed(&self, compare_to: Option<&str>) -> io::Result<Changed> {
        let wanted = self.changes_base.or(compare_to);
        let base = self.repository.base(wanted, self.target).map_err(|why| other(&why))?;
        let Some((base, name)) = base else {
            self.say("there is no earlier commit: everything counts as changed".to_owned());
            return Ok(Changed::All);
        };
        let short: String = base.chars().take(8).collect();
        let and = if self.committed { "" } else { ", and changes that are not committed count" };
        self.say(format!("changes are counted from {short}, {name}{and}"));
        self.repository.changed_since(&base, self.committed).map(Changed::Files).map_err(|why| other(&why))
    }

    fn elsewhere(&self, place: &str) -> io::Result<Option<(Box<dyn Files + '_>, String)>> {
        let found = self.include_roots.iter().filter_map(|(root, folder)| {
            let left = place.strip_prefix(root.as_str())?;
            (left.is_empty() || left.starts_with('/')).then(|| (folder, left.trim_start_matches('/').to_owned()))
        });
        // The longest name is the nearest.
        let Some((folder, left)) = found.min_by_key(|(_, left)| left.len()) else { return Ok(None) };
        Ok(Some((Box::new(Folder { root: folder.clone(), roots: self.include_roots }), left)))
    }
}

/// A folder that stands for another project.
#[derive(Debug)]
struct Folder<'r> {
    root: PathBuf,
    roots: &'r [(String, PathBuf)],
}

impl Files for Folder<'_> {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        read_inside(&self.root, path)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut left = vec![PathBuf::new()];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(self.root.join(&folder))? {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    if entry.file_name() != ".git" {
                        left.push(path);
                    }
                } else if let Some(path) = path.to_str() {
                    found.push(path.to_owned());
                }
                if found.len() > 100_000 {
                    return Err(io::Error::other("the folder has more than 100,000 files"));
                }
            }
        }
        Ok(found)
    }

    fn changed(&self, _: Option<&str>) -> io::Result<Changed> {
        Ok(Changed::All)
    }

    fn elsewhere(&self, place: &str) -> io::Result<Option<(Box<dyn Files + '_>, String)>> {
        let found = self.roots.iter().filter_map(|(root, folder)| {
            let left = place.strip_prefix(root.as_str())?;
            (left.is_empty() || left.starts_with('/')).then(|| (folder, left.trim_start_matches('/').to_owned()))
        });
        let Some((folder, left)) = found.min_by_key(|(_, left)| left.len()) else { return Ok(None) };
        Ok(Some((Box::new(Folder { root: folder.clone(), roots: self.roots }), left)))
    }
}

/// A file of a folder; one that a link leads out of it is none.
fn read_inside(root: &Path, path: &str) -> io::Result<Option<Vec<u8>>> {
    let found = match fs::canonicalize(root.join(path)) {
        Ok(found) => found,
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(why) => return Err(why),
    };
    if !found.starts_with(fs::canonicalize(root)?) {
        return Err(io::Error::other("it leads out of the project"));
    }
    if found.is_dir() { Ok(None) } else { fs::read(found).map(Some) }
}

//! Files in memory, for tests and for programs that have them there.

use std::collections::BTreeMap;
use std::io;

use crate::source::{Changed, Files};

/// The files of a repository, in memory; all of them count as changed.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    /// What `rules:changes` sees; without, everything counts as changed.
    pub changed: Option<Vec<String>>,
    /// Other projects, by `HOST/PATH`.
    pub elsewhere: BTreeMap<String, Memory>,
}

impl Memory {
    /// Files by name.
    pub fn new<N: Into<String>, T: Into<Vec<u8>>>(files: impl IntoIterator<Item = (N, T)>) -> Self {
        let files = files.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        Self { files, ..Self::default() }
    }
}

impl Files for Memory {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.get(path).cloned())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn changed(&self, _: Option<&str>) -> io::Result<Changed> {
        Ok(self.changed.clone().map_or(Changed::All, Changed::Files))
    }

    fn elsewhere(&self, place: &str) -> io::Result<Option<(Box<dyn Files + '_>, String)>> {
        let found = self.elsewhere.iter().find_map(|(root, files)| {
            let left = place.strip_prefix(root.as_str())?;
            (left.is_empty() || left.starts_with('/')).then(|| (files, left.trim_start_matches('/').to_owned()))
        });
        Ok(found.map(|(files, left)| (Box::new(files.clone()) as Box<dyn Files>, left)))
    }
}

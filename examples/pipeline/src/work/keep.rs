//! What is handed from job to job and from run to run: artifacts, reports and caches.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gitlab_ci::{Artifacts, Cache, CacheKey, dotenv, expand};

use super::{Attempt, Failure, Record, expanded};
use crate::home::digest;
use crate::report::counted;
use crate::tree::{choose, copy, copy_all, remove};

/// The largest report that is read, in bytes.
const MAX_REPORT_BYTES: u64 = 5 << 20;

type Values = BTreeMap<String, String>;

impl Attempt<'_> {
    /// Puts the artifacts of the jobs that it takes them from into the checkout; a later one overwrites.
    pub(super) fn take_artifacts(&mut self) -> Result<(), Failure> {
        for from in self.job.takes_from.clone() {
            let kept = self.runner.folders.artifacts(from).join("files");
            if !kept.is_dir() {
                continue;
            }
            let names = self.put(&kept)?;
            if let Some(other) = self.runner.plan.jobs.get(from) {
                self.note(&format!("artifacts of {}: {}", other.name, counted(names, "file")));
            }
        }
        Ok(())
    }

    /// Copies a kept tree into the checkout, and gives it to the job's user.
    fn put(&self, kept: &Path) -> io::Result<usize> {
        let checkout = self.checkout();
        let names = copy_all(kept, &checkout)?;
        for name in &names {
            let path = checkout.join(name);
            self.give(&path)?;
            for folder in path.ancestors().skip(1).take_while(|folder| *folder != checkout) {
                self.give_alone(folder)?;
            }
        }
        Ok(names.len())
    }

    /// Gives a folder, without what is in it.
    fn give_alone(&self, folder: &Path) -> io::Result<()> {
        if let super::Apart::Sandbox(_) = self.runner.apart
            && nix::unistd::geteuid().is_root()
        {
            std::os::unix::fs::lchown(folder, Some(sandbox::JOB_ID), Some(sandbox::JOB_ID))?;
        }
        Ok(())
    }

    /// Keeps the job's artifacts and reports.
    pub(super) fn keep_artifacts(&mut self, values: &Values, succeeded: bool, record: &mut Record) {
        let Some(artifacts) = self.job.artifacts.clone() else { return };
        let folder = self.runner.folders.artifacts(self.at);
        let told = remove(&folder).map_err(|why| why.to_string()).and_then(|()| {
            if artifacts.when.holds(succeeded) {
                self.keep_files(&artifacts, values, &folder.join("files"))
            } else {
                Ok(())
            }
        });
        if let Err(why) = told {
            self.note(&format!("artifacts cannot be kept: {why}"));
        }
        self.read_dotenv(&artifacts, values, record);
        self.keep_junit(&artifacts, values, &folder.join("junit"));
    }

    fn keep_files(&mut self, artifacts: &Artifacts, values: &Values, to: &Path) -> Result<(), String> {
        if artifacts.paths.is_empty() && !artifacts.untracked {
            return Ok(());
        }
        let checkout = self.checkout();
        let paths = expanded(&artifacts.paths, values);
        let exclude = expanded(&artifacts.exclude, values);
        let tracked = artifacts.untracked.then_some(&self.runner.tracked);
        let chosen = choose(&checkout, &paths, &exclude, tracked)?;
        for pattern in &chosen.unmatched {
            self.note(&format!("warning: no file matches `{pattern}` of its artifacts"));
        }
        for name in &chosen.files {
            copy(&checkout.join(name), &to.join(name)).map_err(|why| format!("`{name}`: {why}"))?;
        }
        if !chosen.files.is_empty() {
            self.note(&format!("artifacts: {}", counted(chosen.files.len(), "file")));
        }
        Ok(())
    }

    /// Reads reports of variables, whatever the result of the job.
    fn read_dotenv(&mut self, artifacts: &Artifacts, values: &Values, record: &mut Record) {
        for path in self.report_files(&artifacts.dotenv, values) {
            let told = fs::read_to_string(&path)
                .map_err(|why| why.to_string())
                .and_then(|text| dotenv(&text).map_err(|(line, why)| format!("line {line}: {why}")));
            match told {
                Ok(variables) => record.dotenv.extend(variables),
                Err(why) => self.note(&format!("warning: the dotenv report {} is not taken: {why}", path.display())),
            }
        }
    }

    fn keep_junit(&mut self, artifacts: &Artifacts, values: &Values, to: &Path) {
        for (at, path) in self.report_files(&artifacts.junit, values).iter().enumerate() {
            // Names may be the same in several folders.
            let name = path.file_name().map_or_else(|| "report.xml".into(), |name| name.to_string_lossy().into_owned());
            let told = fs::read(path).and_then(|bytes| {
                let text = self.masks().text(&String::from_utf8_lossy(&bytes));
                super::write_new(&to.join(format!("{at}-{name}")), text.as_bytes())
            });
            if let Err(why) = told {
                self.note(&format!("warning: the report {name} cannot be kept: {why}"));
            }
        }
    }

    /// The plain files that patterns of a report choose.
    fn report_files(&mut self, patterns: &[String], values: &Values) -> Vec<PathBuf> {
        if patterns.is_empty() {
            return Vec::new();
        }
        let checkout = self.checkout();
        match choose(&checkout, &expanded(patterns, values), &[], None) {
            Ok(chosen) => {
                for pattern in &chosen.unmatched {
                    self.note(&format!("warning: no file matches the report `{pattern}`"));
                }
                let files = chosen.files.iter().map(|name| checkout.join(name));
                let is_plain = |path: &PathBuf| {
                    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_REPORT_BYTES)
                };
                files.filter(is_plain).collect()
            }
            Err(why) => {
                self.note(&format!("warning: reports are not taken: {why}"));
                Vec::new()
            }
        }
    }

    /// Puts what is kept under its keys into the checkout, before artifacts.
    pub(super) fn pull_caches(&mut self, values: &Values) -> Result<(), Failure> {
        for cache in self.job.cache.clone() {
            if !expand(&cache.policy, values).contains("pull") {
                continue;
            }
            let own = self.key(&cache, values);
            let fallbacks = expanded(&cache.fallback_keys, values);
            let mut keys = [own.clone()].into_iter().chain(fallbacks).chain(values.get("CACHE_FALLBACK_KEY").cloned());
            let found = keys.find_map(|key| Some((self.cache_folder(&key), key)).filter(|(folder, _)| folder.is_dir()));
            match found {
                Some((folder, key)) => {
                    let count = self.put(&folder)?;
                    self.note(&format!("cache `{key}`: {count} files"));
                }
                None => self.note(&format!("cache `{own}`: nothing is kept yet")),
            }
        }
        Ok(())
    }

    /// Keeps what the job's caches name.
    pub(super) fn push_caches(&mut self, values: &Values, succeeded: bool) {
        for cache in self.job.cache.clone() {
            if !expand(&cache.policy, values).contains("push") || !cache.when.holds(succeeded) {
                continue;
            }
            let key = self.key(&cache, values);
            if let Err(why) = self.push(&cache, &key, values) {
                self.note(&format!("cache `{key}` cannot be kept: {why}"));
            }
        }
    }

    fn push(&mut self, cache: &Cache, key: &str, values: &Values) -> Result<(), String> {
        let checkout = self.checkout();
        let tracked = cache.untracked.then_some(&self.runner.tracked);
        let chosen = choose(&checkout, &expanded(&cache.paths, values), &[], tracked)?;
        if chosen.files.is_empty() {
            self.note(&format!("cache `{key}`: no file matches"));
            return Ok(());
        }
        let folder = self.cache_folder(key);
        let new = folder.with_extension(format!("new-{}-{}", std::process::id(), self.at));
        let failed = |why: io::Error| why.to_string();
        remove(&new).map_err(failed)?;
        for name in &chosen.files {
            copy(&checkout.join(name), &new.join(name)).map_err(|why| format!("`{name}`: {why}"))?;
        }
        // Whoever reads it meanwhile has the old one or the new one.
        let old = folder.with_extension(format!("old-{}-{}", std::process::id(), self.at));
        let had_one = fs::rename(&folder, &old).is_ok();
        fs::rename(&new, &folder).map_err(failed)?;
        if had_one {
            remove(&old).map_err(failed)?;
        }
        self.note(&format!("cache `{key}`: {} kept", counted(chosen.files.len(), "file")));
        Ok(())
    }

    fn key(&self, cache: &Cache, values: &Values) -> String {
        match &cache.key {
            CacheKey::Text(text) => {
                let key = expand(text, values);
                if key.is_empty() { "default".to_owned() } else { key }
            }
            CacheKey::Files { files, prefix } => {
                let checkout = self.checkout();
                let chosen = choose(&checkout, files, &[], None).unwrap_or_default().files;
                let mut bytes = Vec::new();
                for name in &chosen {
                    let path = checkout.join(name);
                    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
                        bytes.extend_from_slice(name.as_bytes());
                        bytes.push(0);
                        bytes.extend(digest(&fs::read(&path).unwrap_or_default()).into_bytes());
                    }
                }
                let own = if bytes.is_empty() { "default".to_owned() } else { digest(&bytes)[..40].to_owned() };
                let prefix = prefix.as_ref().map(|prefix| expand(prefix, values)).filter(|prefix| !prefix.is_empty());
                prefix.map_or(own.clone(), |prefix| format!("{prefix}-{own}"))
            }
        }
    }

    fn cache_folder(&self, key: &str) -> PathBuf {
        self.runner.folders.caches.join(&digest(key.as_bytes())[..32])
    }
}

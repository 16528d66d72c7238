//! Where refs can be taken from: a log, a log at a version, a repository.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use tenon_refslog::{ChecksumKey, Config, LineageId, LogConfig, Refs, Version};

use crate::repository;
use crate::store::{Access, Store};

/// A place as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    version: Option<Version>,
}

impl FromStr for Place {
    type Err = Infallible;

    /// The part after the last `@` is a version if it is a number and no such path is there.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let whole = Self { path: PathBuf::from(text), version: None };
        let Some((path, number)) = text.rsplit_once('@') else { return Ok(whole) };
        Ok(match number.parse() {
            Ok(number) if !whole.path.exists() => Self { path: PathBuf::from(path), version: Some(Version(number)) },
            _ => whole,
        })
    }
}

impl Place {
    /// All refs there.
    pub(crate) fn refs(&self) -> Result<Refs> {
        if self.version.is_none() && repository::is_repository(&self.path) {
            let listing = repository::list(&self.path, std::iter::empty())?;
            // Nothing is compared by checksum with a repository, so any key will do.
            let config = Config::builder(listing.format, ChecksumKey::new([0; 32])).build()?;
            return Ok(Refs::from_entries(config, LineageId(0), Version::GENESIS, listing.entries)?);
        }
        let store = Store::open(&self.path, Access::Read)?;
        let log = store.log(LogConfig::builder().build()?)?;
        let version = self.version.unwrap_or(log.end().version);
        log.restore_at(store.config()?, version)
            .with_context(|| format!("version {version} of {}", self.path.display()))
    }
}

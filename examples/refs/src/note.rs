//! What is known of a record beside its changes: who made them, when, and by which push. It is kept as the record's payload.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenon_refslog::Record;

/// A record's note, as JSON in its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Milliseconds since 1970 at which the change was recorded.
    pub(crate) at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) push: Option<String>,
    /// The versions whose changes this record gives back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) undoes: Vec<u64>,
}

impl Note {
    /// A note of this moment.
    pub(crate) fn now() -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        Ok(Self { at: i64::try_from(since.as_millis())?, ..Self::default() })
    }

    /// The note of a record; `None` where its payload is none, as in a log that another program wrote.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        serde_json::from_slice(record.payload()).ok()
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.at) {
            Ok(at) => write!(out, "{at:.0}")?,
            Err(_) => write!(out, "{} ms", self.at)?,
        }
        // Others chose these: what steers a terminal is shown escaped.
        for (word, text) in [("by", &self.actor), ("push", &self.push)] {
            if let Some(text) = text {
                write!(out, " {word} {}", text.escape_debug())?;
            }
        }
        for (at, version) in self.undoes.iter().enumerate() {
            write!(out, "{}{version}", if at == 0 { " undoes " } else { ", " })?;
        }
        Ok(())
    }
}

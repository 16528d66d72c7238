//! What is worth knowing of a manifest or a trace, and stops nothing.

use std::fmt;

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// It will likely not do what was meant.
    Warning,
    /// It is good to know.
    Note,
}

/// A warning or a note, and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Finding {
    /// A warning without a place in a file.
    pub(crate) fn warning(text: impl Into<String>) -> Self {
        Self { level: Level::Warning, file: None, line: None, path: String::new(), text: text.into() }
    }

    /// A note without a place in a file.
    pub(crate) fn note(text: impl Into<String>) -> Self {
        Self { level: Level::Note, ..Self::warning(text) }
    }

    /// The same, of a file and a line of it.
    pub(crate) fn in_file(mut self, file: &str, line: Option<u32>) -> Self {
        self.file = Some(file.into());
        self.line = line;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Warning => "warning: ",
            Level::Note => "note: ",
        })?;
        if let Some(file) = &self.file {
            f.write_str(file)?;
            if let Some(line) = self.line {
                write!(f, ", line {line}")?;
            }
            f.write_str(": ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

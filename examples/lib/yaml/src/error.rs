//! What is wrong with a text, and where.

use crate::Mark;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {}{message}", PathAnd(path))]
pub struct Error {
    /// Where it stands.
    pub at: Mark,
    /// Which node it is, such as `spec.metrics[0].type`; empty for the document itself.
    pub path: String,
    /// What is wrong, without the place.
    pub message: String,
}

impl Error {
    /// An error at a place.
    #[must_use]
    pub fn new(at: Mark, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at, path: path.into(), message: message.into() }
    }
}

/// A path, if there is one, and what parts it from the message.
struct PathAnd<'a>(&'a str);

impl std::fmt::Display for PathAnd<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// What was read in spite of a doubt, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it stands.
    pub at: Mark,
    /// What is doubtful, without the place.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

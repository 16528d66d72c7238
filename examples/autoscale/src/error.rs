//! What is wrong with what the program was given, and where.

use std::fmt;

/// A fault of a manifest, a trace or an option: one sentence, its place, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Error {
    /// The file, and where in it; no file for an option.
    pub(crate) file: Option<String>,
    /// Line and column, from 1.
    pub(crate) at: Option<(u32, u32)>,
    /// Which field it is, such as `spec.metrics[0].resource`; empty where there is none.
    pub(crate) path: String,
    pub(crate) message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A fault that stands in no file.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// A fault in a file, at a line and a column.
    pub(crate) fn at(file: &str, line: usize, column: usize, message: impl Into<String>) -> Self {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            file: Some(file.into()),
            at: Some((small(line), small(column))),
            path: String::new(),
            message: message.into(),
        }
    }

    /// A fault of a file as a whole.
    pub(crate) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: Some(file.into()), message: message.into(), ..Self::default() }
    }

    /// A fault of a manifest that was read from `file`.
    pub(crate) fn of_yaml(file: &str, error: yaml::Error) -> Self {
        Self {
            file: Some(file.into()),
            at: Some((error.at.line, error.at.column)),
            path: error.path,
            message: error.message,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            f.write_str(file)?;
            if let Some((line, column)) = self.at {
                write!(f, ", line {line}, column {column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

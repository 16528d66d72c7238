//! What a node tells of a repository's content, for the page that shows it.

use serde::{Deserialize, Serialize};

/// The answer to `GET /repos/{id}/summary`, a routed read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// The default branch, by its short name.
    pub(crate) head: String,
    /// Newest first, and at most as many as are shown; how many there are in all.
    pub(crate) branches: Vec<RefLine>,
    pub(crate) branch_count: usize,
    pub(crate) tags: Vec<RefLine>,
    pub(crate) tag_count: usize,
    /// The latest commits of the default branch, newest first.
    pub(crate) commits: Vec<CommitLine>,
    pub(crate) readme: Option<Readme>,
}

/// A branch or a tag, by its short name, and the commit that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefLine {
    pub(crate) name: String,
    pub(crate) commit: Option<String>,
    pub(crate) subject: String,
    /// When it was made, in seconds since 1970.
    pub(crate) at: i64,
}

/// A commit in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitLine {
    pub(crate) id: String,
    pub(crate) author: String,
    /// When it was committed, in seconds since 1970.
    pub(crate) at: i64,
    pub(crate) subject: String,
}

/// A README as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Readme {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The answer to `POST /repos/{id}/look`, a routed read: what a commit has at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    pub(crate) commit: CommitLine,
    /// The commit's whole message, if the path is the root.
    pub(crate) message: String,
    pub(crate) parents: Vec<String>,
    pub(crate) content: Content,
}

/// What is asked for: bytes, since a path need not be text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LookAt {
    /// The whole id of a commit that a ref reaches.
    pub(crate) commit: String,
    pub(crate) path: Vec<u8>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// Folders first.
    Folder {
        entries: Vec<Entry>,
        readme: Option<Readme>,
    },
    Text {
        text: String,
        bytes: u64,
    },
    /// No text, or too much of it to show.
    Other {
        bytes: u64,
    },
}

/// One line of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Of a file, in bytes.
    pub(crate) bytes: Option<u64>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EntryKind {
    Folder,
    File,
    Link,
    /// A commit of another repository.
    Submodule,
}

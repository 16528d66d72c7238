//! Repository names, as people type them. On disk a repository is a number, so a name cannot lead
//! anywhere; the pattern keeps URLs, logs and messages plain.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One to three parts of letters, digits, `.`, `_` and `-`, joined by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct RepoName(String);

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a repository name: use one to three parts joined by '/', each of letters, digits, '.', '_', '-', \
     beginning with a letter or digit, at most 64 long, not ending in '.git' or '.lock'; 'api' and 'internal' are taken"
)]
pub(crate) struct BadName;

const LONGEST_PART: usize = 64;
const MOST_PARTS: usize = 3;
/// First parts that belong to the program.
const TAKEN: [&str; 2] = ["api", "internal"];

impl RepoName {
    pub(crate) fn parse(text: &str) -> Result<Self, BadName> {
        let parts: Vec<&str> = text.split('/').collect();
        let fits = parts.len() <= MOST_PARTS
            && parts.iter().all(|p| is_part(p))
            && !parts.first().is_some_and(|p| TAKEN.contains(p));
        if fits { Ok(Self(text.to_owned())) } else { Err(BadName) }
    }
}

impl TryFrom<String> for RepoName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_part(part: &str) -> bool {
    let first = part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let lower = part.to_ascii_lowercase();
    first
        && rest
        && part.len() <= LONGEST_PART
        && !part.contains("..")
        && ![".git", ".lock", "."].iter().any(|end| lower.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "demo", "team/app", "a/b/c", "x.y-z_1", "0"] {
            assert!(RepoName::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            "a..b",
            ".hidden",
            "-x",
            "a.git",
            "a.GIT",
            "a.lock",
            "a.",
            "a b",
            "a/b/c/d",
            "api",
            "api/x",
            "internal/y",
            "ä",
            "a%2fb",
            "a\0",
            "a\n",
            &long,
        ] {
            assert_eq!(RepoName::parse(bad), Err(BadName), "{bad:?}");
        }
    }
}

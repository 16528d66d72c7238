//! A crate's `tests/breaks.txt`, parsed.
//!
//! ```text
//! # a comment
//! tests gate laws model          the test targets that must notice, unless a break names others; `lib`: unit tests
//!
//! == 3: a conflict is not an acknowledgement
//! by exhaustive                  (optional) the targets that must notice this one
//! - what stands exactly once in the crate's sources
//! + what is put in its place
//! ```
//!
//! An entry names no file, so that files can move: its text is looked for in the whole of `src`, and an entry whose text is
//! missing or ambiguous is an error.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// One deliberate break of a safety rule.
pub(crate) struct Break {
    /// The rule's number or name, and what is broken: `3: a conflict is not an acknowledgement`.
    pub(crate) rule: String,
    /// The test targets that must notice.
    pub(crate) tests: Vec<String>,
    old: String,
    new: String,
}

impl Break {
    /// The file that holds the text to be replaced, and its contents with the break in them.
    ///
    /// # Errors
    /// The text stands in no source file, or in more than one place.
    pub(crate) fn applied<'a>(&self, sources: &'a [Source]) -> Result<(&'a Source, String)> {
        let places: Vec<_> = sources.iter().filter(|source| source.text.contains(&self.old)).collect();
        let found: usize = places.iter().map(|source| source.text.matches(&self.old).count()).sum();
        let names: Vec<_> = places.iter().map(|source| source.path.display().to_string()).collect();
        let [source] = places[..] else {
            bail!(
                "`{}`: its text stands in {} files, not one ({}):\n{}",
                self.rule,
                places.len(),
                names.join(", "),
                self.old
            )
        };
        ensure!(found == 1, "`{}`: its text stands {found} times in {}, not once:\n{}", self.rule, names[0], self.old);
        Ok((source, source.text.replacen(&self.old, &self.new, 1)))
    }

    fn parse(entry: &str, tests: &[String]) -> Result<Self> {
        let mut lines = entry.lines();
        let rule = lines.next().context("a break without a name")?.trim().to_owned();
        let mut parsed = Self { rule, tests: tests.to_vec(), old: String::new(), new: String::new() };
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for line in lines.map(str::trim_end).filter(|line| !line.is_empty()) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("by", targets) => parsed.tests = words(targets),
                ("-", text) => old.push(text),
                ("+", text) => new.push(text),
                _ => bail!("`{}`: not understood: {line}", parsed.rule),
            }
        }
        ensure!(!old.is_empty() && old != new, "`{}` changes nothing", parsed.rule);
        ensure!(!parsed.tests.is_empty(), "`{}` names no test target", parsed.rule);
        (parsed.old, parsed.new) = (old.join("\n"), new.join("\n"));
        Ok(parsed)
    }
}

/// One source file of a crate.
pub(crate) struct Source {
    /// The file's path.
    pub(crate) path: PathBuf,
    /// The file's contents.
    pub(crate) text: String,
}

/// The source files below this folder, in the order of their paths.
///
/// # Errors
/// A folder or a file cannot be read.
pub(crate) fn sources(folder: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort_unstable();
    for path in paths {
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
            found.push(Source { path, text });
        }
    }
    Ok(found)
}

/// The breaks that the crate in this folder lists.
///
/// # Errors
/// No list, or one that cannot be read.
pub(crate) fn read(crate_dir: &Path) -> Result<Vec<Break>> {
    let path = crate_dir.join("tests/breaks.txt");
    let text = fs::read_to_string(&path).with_context(|| format!("no list of breaks at {}", path.display()))?;
    let mut parts = text.split("\n== ");
    let head = parts.next().unwrap_or_default();
    let tests = words(head.lines().find_map(|line| line.strip_prefix("tests ")).unwrap_or_default());
    parts.map(|entry| Break::parse(entry, &tests)).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_fits_its_source() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let lists = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let crates: Vec<_> = lists.filter(|dir| dir.join("tests/breaks.txt").exists()).collect();
        assert!(!crates.is_empty());
        for dir in crates {
            let (breaks, sources) = (read(&dir).unwrap(), sources(&dir.join("src")).unwrap());
            assert!(!breaks.is_empty(), "{} lists none", dir.display());
            for broken in breaks {
                broken.applied(&sources).unwrap();
            }
        }
    }

    #[test]
    fn a_break_that_does_not_fit_is_refused() {
        let crate_of = |texts: &[&str]| -> Vec<Source> {
            texts.iter().map(|text| Source { path: "src/a.rs".into(), text: (*text).to_owned() }).collect()
        };
        let entry = "1: a rule\n- old\n+ new";
        let broken = Break::parse(entry, &words("laws")).unwrap();
        assert_eq!(broken.applied(&crate_of(&["nothing", "an old thing"])).unwrap().1, "an new thing");
        assert!(broken.applied(&crate_of(&["nothing"])).is_err(), "missing");
        assert!(broken.applied(&crate_of(&["old, old"])).is_err(), "twice in one file");
        assert!(broken.applied(&crate_of(&["old", "old"])).is_err(), "once in each of two files");
        assert!(Break::parse("1: no change\n- old\n+ old", &words("laws")).is_err());
        assert!(Break::parse(entry, &[]).is_err());
    }
}

//! A crate's `tests/breaks.txt`, parsed.
//!
//! ```text
//! # a comment
//! tests gate laws model          the test targets that must notice, unless a break names others; `lib`: unit tests
//!
//! == 3: a conflict is not an acknowledgement
//! in src/commit.rs
//! by exhaustive                  (optional) the targets that must notice this one
//! - what stands there, exactly once
//! + what is put in its place
//! ```

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// One deliberate break of a safety rule.
pub(crate) struct Break {
    /// The rule's number or name, and what is broken: `3: a conflict is not an acknowledgement`.
    pub(crate) rule: String,
    /// The file to change, from the crate's root.
    pub(crate) file: String,
    /// The test targets that must notice.
    pub(crate) tests: Vec<String>,
    old: String,
    new: String,
}

impl Break {
    /// The source with the break in it.
    ///
    /// # Errors
    /// What is to be replaced does not stand there exactly once.
    pub(crate) fn applied(&self, source: &str) -> Result<String> {
        let found = source.matches(&self.old).count();
        ensure!(found == 1, "`{}`: {} holds this {found} times, not once:\n{}", self.rule, self.file, self.old);
        Ok(source.replacen(&self.old, &self.new, 1))
    }

    fn parse(entry: &str, tests: &[String]) -> Result<Self> {
        let mut lines = entry.lines();
        let rule = lines.next().context("a break without a name")?.trim().to_owned();
        let mut parsed =
            Self { rule, file: String::new(), tests: tests.to_vec(), old: String::new(), new: String::new() };
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for line in lines.map(str::trim_end).filter(|line| !line.is_empty()) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("in", file) => file.clone_into(&mut parsed.file),
                ("by", targets) => parsed.tests = words(targets),
                ("-", text) => old.push(text),
                ("+", text) => new.push(text),
                _ => bail!("`{}`: not understood: {line}", parsed.rule),
            }
        }
        ensure!(!parsed.file.is_empty(), "`{}` names no file (in src/…)", parsed.rule);
        ensure!(!old.is_empty() && old != new, "`{}` changes nothing", parsed.rule);
        ensure!(!parsed.tests.is_empty(), "`{}` names no test target", parsed.rule);
        (parsed.old, parsed.new) = (old.join("\n"), new.join("\n"));
        Ok(parsed)
    }
}

/// The breaks that the crate in this folder lists.
///
/// # Errors
/// No list, or one that cannot be read.
pub(crate) fn read(crate_dir: &Path) -> Result<Vec<Break>> {
    let path = crate_dir.join("tests/breaks.txt");
    let text = std::fs::read_to_string(&path).with_context(|| format!("no list of breaks at {}", path.display()))?;
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
    use std::fs;

    use super::*;

    #[test]
    fn every_list_fits_its_source() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let lists = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let crates: Vec<_> = lists.filter(|dir| dir.join("tests/breaks.txt").exists()).collect();
        assert!(!crates.is_empty());
        for dir in crates {
            let breaks = read(&dir).unwrap();
            assert!(!breaks.is_empty(), "{} lists none", dir.display());
            for broken in breaks {
                let source = fs::read_to_string(dir.join(&broken.file)).unwrap();
                broken.applied(&source).unwrap();
            }
        }
    }

    #[test]
    fn a_break_that_does_not_fit_is_refused() {
        let entry = "1: a rule\nin src/a.rs\n- old\n+ new";
        let broken = Break::parse(entry, &words("laws")).unwrap();
        assert_eq!(broken.applied("an old thing").unwrap(), "an new thing");
        assert!(broken.applied("nothing").is_err() && broken.applied("old, old").is_err());
        assert!(Break::parse("1: no file\n- old\n+ new", &words("laws")).is_err());
        assert!(Break::parse("1: no change\nin src/a.rs\n- old\n+ old", &words("laws")).is_err());
        assert!(Break::parse(entry, &[]).is_err());
    }
}

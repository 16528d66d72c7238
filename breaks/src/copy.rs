//! A copy of the workspace with one crate in it, where breaks are made and tests are run.
//!
//! The copy stays in `target/breaks/<folder>`, with what was built there: the next run builds no dependency again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::list::{self, Break};

/// What became of one break.
pub(crate) enum Verdict {
    /// The first test that failed, as `target: test`.
    Noticed(String),
    /// Every test passed.
    Survived,
}

/// One crate, copied out of the working tree.
pub(crate) struct Copy {
    root: PathBuf,
    package: String,
    folder: String,
}

impl Copy {
    /// Copies the crate in `folder` of the workspace at `root`.
    ///
    /// # Errors
    /// A file cannot be read or written, or the manifest does not list its members as expected.
    pub(crate) fn of(root: &Path, folder: &str) -> Result<Self> {
        let own = fs::read_to_string(root.join(folder).join("Cargo.toml"))?;
        let package = own.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let package = package.with_context(|| format!("no package in {folder}"))?.to_owned();
        let copy = Self { root: root.join("target/breaks").join(folder), package, folder: folder.to_owned() };
        if copy.crate_dir().exists() {
            fs::remove_dir_all(copy.crate_dir())?;
        }
        copy_folder(&root.join(folder), &copy.crate_dir())?;
        fs::copy(root.join("Cargo.lock"), copy.root.join("Cargo.lock"))?;
        let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
        for beside in libraries(&manifest, &own).filter(|beside| beside != folder) {
            let target = copy.root.join(&beside);
            if target.exists() {
                fs::remove_dir_all(&target)?;
            }
            copy_folder(&root.join(&beside), &target)?;
        }
        let (start, rest) = manifest.split_once("members = [").context("no members in Cargo.toml")?;
        let (_, end) = rest.split_once(']').context("the members in Cargo.toml have no end")?;
        let manifest = format!("{start}members = [\"{folder}\"]{end}");
        let others = |line: &&str| !line.starts_with("tenon-") || line.starts_with(&format!("{} ", copy.package));
        let own: Vec<&str> = manifest.lines().filter(others).collect();
        let own = own.join("\n");
        fs::write(copy.root.join("Cargo.toml"), own + "\n")?;
        Ok(copy)
    }

    /// Builds the tests of these targets and runs them unbroken.
    ///
    /// # Errors
    /// A test fails although nothing is broken.
    pub(crate) fn passes(&self, tests: &[String]) -> Result<()> {
        let (ok, output) = self.test(tests, &[])?;
        ensure!(ok, "the tests must pass before anything is broken:\n{output}");
        Ok(())
    }

    /// Makes the break, runs the tests that must notice, and mends it.
    ///
    /// # Errors
    /// The break does not fit, or does not compile: it proves nothing.
    pub(crate) fn try_break(&self, broken: &Break) -> Result<Verdict> {
        let sources = list::sources(&self.crate_dir().join("src"))?;
        let (source, changed) = broken.applied(&sources)?;
        fs::write(&source.path, changed)?;
        let (builds, errors) = self.test(&broken.tests, &["--no-run"])?;
        let outcome = self.test(&broken.tests, &[]);
        fs::write(&source.path, &source.text)?;
        ensure!(builds, "`{}` does not compile:\n{errors}", broken.rule);
        let (ok, output) = outcome?;
        Ok(if ok { Verdict::Survived } else { Verdict::Noticed(first_failure(&output)) })
    }

    fn crate_dir(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    fn test(&self, targets: &[String], more: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", self.root.join("target"));
        command.args(["test", "--offline", "--all-features", "--color=never", "-p", &self.package]).args(more);
        for target in targets {
            match target.as_str() {
                "lib" => command.arg("--lib"),
                name => command.args(["--test", name]),
            };
        }
        let output = command.output().context("cargo cannot be started")?;
        // Cargo names the running target on one stream, the harness its tests on the other: the order is lost, not needed.
        let text = [output.stderr, output.stdout].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }
}

/// The folders of the examples' libraries that a crate with this manifest depends on.
fn libraries(workspace: &str, own: &str) -> impl Iterator<Item = String> {
    let depends = |name: &str| own.lines().any(|line| line.starts_with(&format!("{name} = ")));
    let found = workspace.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" = { path = \"")?;
        let folder = rest.split('"').next().filter(|folder| folder.starts_with("examples/lib/"))?;
        depends(name).then(|| folder.to_owned())
    });
    found.collect::<Vec<_>>().into_iter()
}

/// `target: test`, of the first test that failed; the target alone when it died without naming one.
fn first_failure(output: &str) -> String {
    let after = |prefix: &'static str| output.lines().find_map(move |line| line.trim().strip_prefix(prefix));
    // "error: test failed, to rerun pass `-p tenon-quorum --test laws`"
    let rerun = after("error: test failed, to rerun pass ").unwrap_or("a test");
    let target = rerun.trim_matches('`').rsplit("--").next().unwrap_or(rerun).trim_start_matches("test ");
    let named = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let inner = output.lines().find_map(named);
    inner.map_or_else(|| target.to_owned(), |test| format!("{target}: {test}"))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("no folder {}", from.display()))? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_is_named() {
        let output = "error: test failed, to rerun pass `-p tenon-quorum --test laws`\ntest twin ... ok\ntest bounded ... FAILED\n";
        assert_eq!(first_failure(output), "laws: bounded");
        let unit = "error: test failed, to rerun pass `-p tenon-quorum --lib`\ntest row::tests::x ... FAILED\n";
        assert_eq!(first_failure(unit), "lib: row::tests::x");
        let aborted = "error: test failed, to rerun pass `-p tenon-quorum --test model`\n";
        assert_eq!(first_failure(aborted), "model");
    }
}

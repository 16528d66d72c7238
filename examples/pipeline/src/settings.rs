//! The variables file: values of the project that are not in the repository, such as tokens.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use gitlab_ci::{Value, Variables, is_name};
use yaml::{Node, Options, Schema, View, parse};

/// The name of the file at the root of the project, if no other is given.
pub(crate) const FILE: &str = ".pipeline-variables.yml";

/// Values of the project.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) variables: Variables,
    /// Values that must appear nowhere.
    pub(crate) masked: Vec<String>,
    /// Values that are handed over as the path of a file with them.
    pub(crate) files: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the file; without one of that name there are no values, unless somebody asked for it.
    pub(crate) fn read(given: Option<&Path>, root: &Path) -> Result<Self> {
        let default = root.join(FILE);
        let path = match given {
            Some(path) => path,
            None if default.is_file() => &default,
            None => return Ok(Self::default()),
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the variables file {} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("the variables file {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let documents = parse(text, &Options { schema: Schema::Yaml11, ..Options::default() })?;
        let Some(document) = documents.first() else { return Ok(Self::default()) };
        let mut settings = Self::default();
        for (key, view) in View::of(document).entries()? {
            if !is_name(&key.name) {
                bail!("{}: `{}` is no name of a variable", key.at, key.name);
            }
            settings.take(&key.name, &view)?;
        }
        Ok(settings)
    }

    fn take(&mut self, name: &str, view: &View<'_>) -> Result<()> {
        if view.node().as_map().is_none() {
            self.variables.insert(name.to_owned(), Value::new(text(view)?));
            return Ok(());
        }
        view.only(&["value", "masked", "type", "raw"])?;
        let value = text(&view.require("value")?)?;
        let flag = |name: &str| view.get(name)?.map_or(Ok(false), |flag| flag.boolean());
        if flag("masked")? {
            if value.trim().len() < 4 {
                return Err(view
                    .error("a masked value has at least 4 characters: a shorter one would hide half of every log")
                    .into());
            }
            self.masked.push(value.clone());
        }
        match view.get("type")?.map(|kind| kind.text()).transpose()? {
            Some("file") => drop(self.files.insert(name.to_owned(), value.clone())),
            None | Some("variable") => {}
            Some(other) => {
                return Err(view.error(format!("`type` must be `variable` or `file`; found `{other}`")).into());
            }
        }
        self.variables.insert(name.to_owned(), if flag("raw")? { Value::raw(value) } else { Value::new(value) });
        Ok(())
    }
}

fn text(view: &View<'_>) -> Result<String> {
    let source = Node::source(view.node()).ok_or_else(|| view.wrong("text"))?;
    Ok(source.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_masked_and_files() {
        let read =
            Settings::parse("A: 010\nT: {value: secret, masked: true}\nF: {value: \"k\\nl\", type: file, raw: true}\n")
                .unwrap();
        assert_eq!(read.variables["A"].text, "010");
        assert_eq!(read.masked, ["secret"]);
        assert_eq!(read.files["F"], "k\nl");
        assert!(read.variables["F"].raw);
        for wrong in ["1A: x", "A: {value: x, masked: true}", "A: {valu: x}", "A: {value: x, type: y}", "- x"] {
            assert!(Settings::parse(wrong).is_err(), "{wrong}");
        }
    }
}

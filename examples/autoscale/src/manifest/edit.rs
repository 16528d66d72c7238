//! `--set PATH=VALUE`: a change of a manifest, made before it is read.

use yaml::{Document, Key, Map, Mark, Node, Options, Schema, Value};

use crate::error::{Error, Result};

/// A change of one field.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    text: String,
    steps: Vec<Step>,
    value: Node,
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Edit {
    /// Reads `spec.metrics[0].resource.target.averageUtilization=60`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::new(format!("--set {text}: {what}"));
        let (path, value) = text.split_once('=').ok_or_else(|| wrong("write PATH=VALUE"))?;
        let mut steps = Vec::new();
        for part in path.split('.') {
            let (name, indices) = part.split_once('[').map_or((part, None), |(name, rest)| (name, Some(rest)));
            if name.is_empty() {
                return Err(wrong("a name in the path is empty"));
            }
            steps.push(Step::Key(name.to_owned()));
            for index in indices.into_iter().flat_map(|rest| rest.split('[')) {
                let index = index.strip_suffix(']').and_then(|index| index.parse().ok());
                steps.push(Step::Index(index.ok_or_else(|| wrong("an index is no number in square brackets"))?));
            }
        }
        let options = Options { schema: Schema::CoreYaml11Booleans, ..Options::default() };
        let documents = yaml::parse(value, &options).map_err(|error| wrong(&error.message))?;
        let value = documents.into_iter().next().map_or(Node::new(Value::Null, Mark::default()), |held| held.root);
        Ok(Self { text: text.to_owned(), steps, value })
    }

    /// Makes the change in every autoscaler of the documents.
    pub(super) fn make(&self, documents: &mut [Document]) -> std::result::Result<(), yaml::Error> {
        let mut made = false;
        for document in documents {
            made |= self.change(&mut document.root)?;
        }
        if made {
            return Ok(());
        }
        Err(yaml::Error::new(
            Mark::default(),
            "",
            format!("--set {}: no autoscaler stands here to be changed", self.text),
        ))
    }

    fn change(&self, root: &mut Node) -> std::result::Result<bool, yaml::Error> {
        let kind = root.as_map().and_then(|map| map.get("kind")).and_then(Node::as_text).unwrap_or_default().to_owned();
        match kind.as_str() {
            "List" => {
                let Value::Map(map) = &mut root.value else { return Ok(false) };
                let Some(Value::List(items)) = map.get_mut("items").map(|items| &mut items.value) else {
                    return Ok(false);
                };
                let mut made = false;
                for item in items {
                    made |= self.change(item)?;
                }
                Ok(made)
            }
            "HorizontalPodAutoscaler" | "ScaledObject" | "Fleet" => {
                let at = root.at;
                self.put(root, at, &self.steps)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn put(&self, node: &mut Node, at: Mark, steps: &[Step]) -> std::result::Result<(), yaml::Error> {
        let Some((first, rest)) = steps.split_first() else {
            *node = self.value.clone();
            node.at = at;
            return Ok(());
        };
        let wrong = |what: &str| yaml::Error::new(at, "", format!("--set {}: {what}", self.text));
        match first {
            Step::Key(name) => {
                if node.is_null() {
                    node.value = Value::Map(Map::default());
                }
                let Value::Map(map) = &mut node.value else {
                    return Err(wrong(&format!("`{name}` is asked of what is no mapping")));
                };
                if map.get(name).is_none() {
                    map.set(Key { name: name.clone(), at }, Node::new(Value::Null, at));
                }
                match map.get_mut(name) {
                    Some(inner) => {
                        let at = inner.at;
                        self.put(inner, at, rest)
                    }
                    None => Err(wrong("the field cannot be made")),
                }
            }
            Step::Index(index) => {
                let Value::List(items) = &mut node.value else {
                    return Err(wrong("an index is asked of what is no list"));
                };
                let length = items.len();
                let Some(inner) = items.get_mut(*index) else {
                    return Err(wrong(&format!("the list has {length} items, and [{index}] is asked for")));
                };
                let at = inner.at;
                self.put(inner, at, rest)
            }
        }
    }
}

//! How mappings become one: deep merges, `!reference` and `extends`.

use std::collections::BTreeMap;

use yaml::{Error, Key, Map, Node, Value};

/// How deep `!reference` may lead to another.
const MAX_REFERENCES: usize = 10;
/// How deep `extends` may lead to another.
const MAX_EXTENDS: usize = 11;
/// How many nodes all of this may come to.
const MAX_NODES: usize = 1_000_000;

/// Lays one mapping over another: mappings are merged key by key, all else is replaced whole.
pub(crate) fn lay_over(base: &mut Map, over: Map) {
    for (key, node) in over {
        match (base.get_mut(&key.name), node) {
            (Some(Node { value: Value::Map(below), .. }), Node { value: Value::Map(above), tag: None, .. }) => {
                lay_over(below, above);
            }
            (_, node) => base.set(key, node),
        }
    }
}

/// A mapping in which every `!reference` is what it refers to.
pub(crate) fn resolve_references(root: &Map) -> Result<Map, Error> {
    let mut resolver = Resolver { root, left: MAX_NODES };
    resolver.map(root, 0)
}

struct Resolver<'r> {
    root: &'r Map,
    left: usize,
}

impl Resolver<'_> {
    fn map(&mut self, map: &Map, depth: usize) -> Result<Map, Error> {
        let mut out = Map::default();
        for (key, node) in map {
            out.push_new(key.clone(), self.node(node, depth)?);
        }
        Ok(out)
    }

    fn node(&mut self, node: &Node, depth: usize) -> Result<Node, Error> {
        let wrong = |message: String| Error::new(node.at, "!reference", message);
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            Error::new(node.at, "", format!("references make more than {MAX_NODES} nodes of the file"))
        })?;
        if node.is_tagged("!reference") {
            if depth == MAX_REFERENCES {
                return Err(wrong(format!("references lead to each other more than {MAX_REFERENCES} deep")));
            }
            let path = node.as_list().filter(|path| !path.is_empty());
            let path: Option<Vec<&str>> = path.and_then(|path| path.iter().map(Node::source).collect());
            let path = path.ok_or_else(|| wrong("must be a list of keys, such as `[.setup, script]`".to_owned()))?;
            let missing = || wrong(format!("`{}` is not in the file", path.join(".")));
            let mut found = self.root.get(path[0]).ok_or_else(missing)?;
            for name in &path[1..] {
                found = found.as_map().and_then(|map| map.get(name)).ok_or_else(missing)?;
            }
            return self.node(found, depth + 1);
        }
        let value = match &node.value {
            Value::Map(map) => Value::Map(self.map(map, depth)?),
            Value::List(items) => {
                Value::List(items.iter().map(|item| self.node(item, depth)).collect::<Result<_, _>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => return Ok(node.clone()),
        };
        if let Some(tag) = &node.tag {
            return Err(Error::new(node.at, "", format!("the tag `{tag}` is not known; GitLab knows `!reference`")));
        }
        Ok(Node::new(value, node.at))
    }
}

/// Jobs with what they extend.
pub(crate) struct Extender<'r> {
    root: &'r Map,
    done: BTreeMap<String, Map>,
    left: usize,
}

impl<'r> Extender<'r> {
    pub(crate) const fn new(root: &'r Map) -> Self {
        Self { root, done: BTreeMap::new(), left: MAX_NODES }
    }

    /// The mapping of this name, laid over all that it extends.
    pub(crate) fn job(&mut self, key: &Key, node: &Node) -> Result<Map, Error> {
        self.extended(&key.name, key, node, &mut Vec::new())
    }

    fn extended(&mut self, name: &str, from: &Key, node: &Node, path: &mut Vec<String>) -> Result<Map, Error> {
        if let Some(done) = self.done.get(name) {
            return Ok(done.clone());
        }
        let own = node.as_map().ok_or_else(|| {
            Error::new(
                from.at,
                name,
                format!("must be a mapping to be a job or to be extended, found {}", node.value.kind()),
            )
        })?;
        let mut whole = Map::default();
        if let Some((key, parents)) = own.entry("extends").filter(|(_, parents)| !parents.is_null()) {
            let wrong = |message: String| Error::new(key.at, format!("{name}.extends"), message);
            let parents: Vec<&Node> = flat(parents);
            path.push(name.to_owned());
            if path.len() > MAX_EXTENDS {
                return Err(wrong(format!("`extends` leads to others more than {MAX_EXTENDS} deep")));
            }
            for parent in parents {
                let parent =
                    parent.as_text().ok_or_else(|| wrong("must be the name of a job, or a list of them".to_owned()))?;
                if let Some(start) = path.iter().position(|on_path| on_path == parent) {
                    let circle = path[start..].join(" → ");
                    return Err(wrong(format!("jobs extend each other in a circle: {circle} → {parent}")));
                }
                let (parent_key, parent_node) = self
                    .root
                    .entry(parent)
                    .ok_or_else(|| wrong(format!("`{name}` extends `{parent}`, which is not in the file")))?;
                let parent = self.extended(parent, parent_key, parent_node, path)?;
                lay_over(&mut whole, parent);
            }
            path.pop();
        }
        lay_over(&mut whole, own.clone());
        whole.remove("extends");
        self.left = self.left.checked_sub(size(&whole)).ok_or_else(|| {
            Error::new(from.at, name, format!("`extends` makes more than {MAX_NODES} nodes of the file"))
        })?;
        self.done.insert(name.to_owned(), whole.clone());
        Ok(whole)
    }
}

fn size(map: &Map) -> usize {
    map.iter()
        .map(|(_, node)| match &node.value {
            Value::Map(map) => 1 + size(map),
            Value::List(items) => 1 + items.len(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => 1,
        })
        .sum()
}

/// The items of a list and of the lists in it; a node that is no list is one item, and null is none.
pub(crate) fn flat(node: &Node) -> Vec<&Node> {
    match &node.value {
        Value::Null => Vec::new(),
        Value::List(items) => items.iter().flat_map(flat).collect(),
        Value::Map(_) | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => vec![node],
    }
}

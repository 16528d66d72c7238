//! From the parser's events to documents.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use crate::scalar::{resolve, tagged};
use crate::{Document, Error, Key, Map, Mark, Node, Options, Value, Warning};

/// Reads all documents of a text.
///
/// # Errors
/// The first thing that is wrong: no YAML, or more of something than the options allow.
pub fn parse(text: &str, options: &Options) -> Result<Vec<Document>, Error> {
    let start = Mark { file: options.file, line: 1, column: 1 };
    if text.len() > options.max_bytes {
        let message = format!("the text has {} bytes, and {} are read", text.len(), options.max_bytes);
        return Err(Error::new(start, "", message));
    }
    let depth = options.max_depth.saturating_add(1);
    let settings = granit_parser::options! {
        block_scalar_eof_without_line_feed: true,
        flow_nesting_limit: depth,
        block_nesting_limit: depth,
    };
    let mut composer = Composer { options, nodes: 0, anchors: BTreeMap::new(), open: Vec::new(), warnings: Vec::new() };
    let mut documents = Vec::new();
    for event in Parser::new_from_str_with_options(text, settings) {
        let (event, span) = event.map_err(|error| Error::new(composer.mark(error.marker()), "", error.info()))?;
        if let Some(root) = composer.take(event, span)? {
            if documents.len() == options.max_documents {
                let message = format!("the text has more than {} documents", options.max_documents);
                return Err(Error::new(root.at, "", message));
            }
            documents.push(Document { root, warnings: std::mem::take(&mut composer.warnings) });
        }
    }
    Ok(documents)
}

/// A node that an alias can name.
struct Anchored {
    node: Node,
    size: usize,
    height: usize,
}

/// A list or mapping whose end has not come.
struct Open {
    at: Mark,
    tag: Option<Box<str>>,
    anchor: usize,
    holds: Holds,
}

enum Holds {
    Items(Vec<Node>),
    Entries { entries: Vec<(Key, Node)>, places: BTreeMap<String, usize>, merges: Vec<Node>, key: Option<NextKey> },
}

/// The key whose value comes next.
enum NextKey {
    Named(Key),
    Merge,
}

struct Composer<'o> {
    options: &'o Options,
    nodes: usize,
    anchors: BTreeMap<usize, Anchored>,
    open: Vec<Open>,
    warnings: Vec<Warning>,
}

impl Composer<'_> {
    fn mark(&self, marker: &Marker) -> Mark {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Mark {
            file: self.options.file,
            line: number(marker.line()).max(1),
            column: number(marker.col()).saturating_add(1),
        }
    }

    /// Takes an event; the root of a document if that was its last.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Error> {
        let at = self.mark(&span.start);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), at)?;
                let is_merge = style == ScalarStyle::Plain && text == "<<" && tag.is_none();
                return self.put(node, anchor, is_merge);
            }
            Event::SequenceStart(_, anchor, tag) => self.begin(at, tag.as_deref(), anchor, Holds::Items(Vec::new()))?,
            Event::MappingStart(_, anchor, tag) => {
                let holds =
                    Holds::Entries { entries: Vec::new(), places: BTreeMap::new(), merges: Vec::new(), key: None };
                self.begin(at, tag.as_deref(), anchor, holds)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let value = match open.holds {
                        Holds::Items(items) => Value::List(items),
                        Holds::Entries { entries, places, merges, .. } => Value::Map(merged(entries, places, merges)),
                    };
                    let node = Node { value, at: open.at, tag: open.tag, source: None };
                    return self.put(node, open.anchor, false);
                }
            }
            Event::Alias(id) => {
                let Some(anchored) = self.anchors.get(&id) else {
                    return Err(Error::new(at, "", "the alias names a node that it stands in"));
                };
                let (node, size, height) = (anchored.node.clone(), anchored.size, anchored.height);
                self.count(size, at)?;
                self.check_depth(height, at)?;
                return self.put(node, 0, false);
            }
            // The stream's and a document's ends say nothing more, and this reader asks for none of the others.
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::UnresolvedAlias(_)
            | _ => {}
        }
        Ok(None)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Mark) -> Result<Node, Error> {
        self.count(1, at)?;
        let schema = self.options.schema;
        let value = match tag {
            None if style == ScalarStyle::Plain => {
                resolve(text, schema).map_err(|why| Error::new(at, "", format!("{why}: `{text}`")))?
            }
            Some(tag) if tag.core_suffix().is_some() => {
                tag.core_suffix().and_then(|kind| tagged(kind, text, schema)).ok_or_else(|| {
                    Error::new(at, "", format!("`{text}` is not what its tag {} says", tag.original()))
                })?
            }
            Some(_) if style == ScalarStyle::Plain && text.is_empty() => Value::Null,
            None | Some(_) => Value::Text(text.to_owned()),
        };
        let source = if matches!(value, Value::Text(_)) { None } else { Some(text.into()) };
        Ok(Node { value, at, tag: own_tag(tag), source })
    }

    fn begin(&mut self, at: Mark, tag: Option<&Tag>, anchor: usize, holds: Holds) -> Result<(), Error> {
        self.count(1, at)?;
        self.check_depth(1, at)?;
        if let Holds::Items(_) = holds
            && let Some(Open { holds: Holds::Entries { key: None, .. }, .. }) = self.open.last()
        {
            return Err(Error::new(at, "", "a key must be text, found a list"));
        }
        if let Holds::Entries { .. } = holds
            && let Some(Open { holds: Holds::Entries { key: None, .. }, .. }) = self.open.last()
        {
            return Err(Error::new(at, "", "a key must be text, found a mapping"));
        }
        self.open.push(Open { at, tag: own_tag(tag), anchor, holds });
        Ok(())
    }

    /// Puts a whole node where it belongs: into what is open, or out as a document's root.
    fn put(&mut self, node: Node, anchor: usize, is_merge: bool) -> Result<Option<Node>, Error> {
        if anchor != 0 {
            let (size, height) = measure(&node);
            self.count(size, node.at)?; // it is kept a second time
            self.anchors.insert(anchor, Anchored { node: node.clone(), size, height });
        }
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        let (entries, places, merges, key) = match &mut open.holds {
            Holds::Items(items) => {
                items.push(node);
                return Ok(None);
            }
            Holds::Entries { entries, places, merges, key } => (entries, places, merges, key),
        };
        match key.take() {
            None if is_merge => *key = Some(NextKey::Merge),
            None => *key = Some(NextKey::Named(named(&node)?)),
            Some(NextKey::Merge) => {
                check_merge(&node)?;
                merges.push(node);
            }
            Some(NextKey::Named(name)) => {
                if let Some(place) = places.get(&name.name) {
                    let first = entries[*place].0.at;
                    let message = format!("the key `{}` is there twice: this one replaces that of {first}", name.name);
                    self.warnings.push(Warning { at: name.at, message });
                    entries[*place] = (name, node);
                } else {
                    places.insert(name.name.clone(), entries.len());
                    entries.push((name, node));
                }
            }
        }
        Ok(None)
    }

    fn count(&mut self, more: usize, at: Mark) -> Result<(), Error> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= self.options.max_nodes {
            return Ok(());
        }
        Err(Error::new(at, "", format!("the text has more than {} nodes, aliases included", self.options.max_nodes)))
    }

    fn check_depth(&self, height: usize, at: Mark) -> Result<(), Error> {
        if self.open.len().saturating_add(height) <= self.options.max_depth {
            return Ok(());
        }
        Err(Error::new(at, "", format!("nodes lie more than {} deep in each other", self.options.max_depth)))
    }
}

/// The tag as it is written, unless it only says what kind of node this is.
fn own_tag(tag: Option<&Tag>) -> Option<Box<str>> {
    tag.filter(|tag| !tag.is_yaml_core_schema() && tag.original() != "!").map(|tag| tag.original().into_boxed_str())
}

fn named(node: &Node) -> Result<Key, Error> {
    match (&node.value, node.source()) {
        (Value::Null, _) => Err(Error::new(node.at, "", "a key must be text, found nothing")),
        (_, Some(name)) => Ok(Key { name: name.to_owned(), at: node.at }),
        (value, None) => Err(Error::new(node.at, "", format!("a key must be text, found {}", value.kind()))),
    }
}

fn check_merge(node: &Node) -> Result<(), Error> {
    let is_map = |node: &Node| node.as_map().is_some();
    if is_map(node) || node.as_list().is_some_and(|items| items.iter().all(is_map)) {
        return Ok(());
    }
    let message = format!("`<<` must be a mapping or a list of mappings, found {}", node.value.kind());
    Err(Error::new(node.at, "", message))
}

/// A mapping's own entries, then what `<<` brings and is not there yet, the first of a list first.
fn merged(mut entries: Vec<(Key, Node)>, mut places: BTreeMap<String, usize>, merges: Vec<Node>) -> Map {
    let maps = merges.into_iter().flat_map(|node| match node.value {
        Value::List(items) => items,
        Value::Map(_) | Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => vec![node],
    });
    for map in maps {
        let Value::Map(map) = map.value else { continue };
        for (key, node) in map {
            if !places.contains_key(&key.name) {
                places.insert(key.name.clone(), entries.len());
                entries.push((key, node));
            }
        }
    }
    Map::of(entries)
}

/// How many nodes it is made of, and how deep they lie in each other: 0 for a scalar.
fn measure(node: &Node) -> (usize, usize) {
    let inner: &mut dyn Iterator<Item = &Node> = match &node.value {
        Value::List(items) => &mut items.iter(),
        Value::Map(map) => &mut map.iter().map(|(_, node)| node),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => return (1, 0),
    };
    let (size, height) = inner.map(measure).fold((1, 0), |(size, height), (s, h)| (size + s, height.max(h)));
    (size, height + 1)
}

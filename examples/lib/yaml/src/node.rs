//! What a document is made of.

use std::fmt;

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The number of the file, as the caller gave it in [`Options::file`](crate::Options::file).
    pub file: u32,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing at all.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of 64 bits. A larger one is a [`Value::Float`]; [`Node::source`] has its digits.
    Int(i64),
    /// Any other number, infinities and not-a-number included.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

impl Value {
    /// What it is, in words for an error.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it begins.
    pub at: Mark,
    /// Its tag as it is written, such as `!reference`, if it has one.
    pub tag: Option<Box<str>>,
    /// How a scalar is written that is not text.
    pub(crate) source: Option<Box<str>>,
}

impl Node {
    /// A node that stands nowhere in a text, but is told of as if it stood there.
    #[must_use]
    pub const fn new(value: Value, at: Mark) -> Self {
        Self { value, at, tag: None, source: None }
    }

    /// How a scalar is written: the text, or the digits of a number. `None` for lists and mappings.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                Some(self.source.as_deref().unwrap_or_default())
            }
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether it is null.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Its text, if it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// Its items, if it is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Value::List(items) = &self.value { Some(items) } else { None }
    }

    /// Its entries, if it is a mapping.
    #[must_use]
    pub const fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    /// Whether it carries this tag, as it is written.
    #[must_use]
    pub fn is_tagged(&self, tag: &str) -> bool {
        self.tag.as_deref() == Some(tag)
    }
}

/// The name of an entry of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name, as it is written.
    pub name: String,
    /// Where it stands.
    pub at: Mark,
}

/// A mapping, in the order of the text. No name is there twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<(Key, Node)>,
}

impl Map {
    /// How many entries it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// The value of this name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The entry of this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }

    /// All entries, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, (Key, Node)> {
        self.entries.iter()
    }

    /// All entries, in order, to be changed. The names must stay different.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&Key, &mut Node)> {
        self.entries.iter_mut().map(|(key, node)| (&*key, node))
    }

    /// Puts a value in the place of the one of that name, or behind all others.
    pub fn set(&mut self, key: Key, node: Node) {
        match self.entries.iter_mut().find(|(there, _)| there.name == key.name) {
            Some(entry) => *entry = (key, node),
            None => self.entries.push((key, node)),
        }
    }

    /// Puts an entry behind all others, in a mapping that is known to have none of that name.
    pub fn push_new(&mut self, key: Key, node: Node) {
        debug_assert!(self.get(&key.name).is_none(), "no name is there twice");
        self.entries.push((key, node));
    }

    /// Takes the entry of this name out.
    pub fn remove(&mut self, name: &str) -> Option<(Key, Node)> {
        let at = self.entries.iter().position(|(key, _)| key.name == name)?;
        Some(self.entries.remove(at))
    }

    /// Entries that the caller knows to be different.
    pub(crate) const fn of(entries: Vec<(Key, Node)>) -> Self {
        Self { entries }
    }
}

impl IntoIterator for Map {
    type Item = (Key, Node);
    type IntoIter = std::vec::IntoIter<(Key, Node)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a (Key, Node);
    type IntoIter = std::slice::Iter<'a, (Key, Node)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

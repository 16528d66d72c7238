//! Walking a document: typed values, and errors that name the path.

use crate::{Document, Error, Key, Map, Mark, Node, Value};

/// A node, and the path that leads to it.
#[derive(Clone, Debug)]
pub struct View<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> View<'a> {
    /// The root of a document.
    #[must_use]
    pub const fn of(document: &'a Document) -> Self {
        Self::new(&document.root, String::new())
    }

    /// A node, with the path that its errors name.
    #[must_use]
    pub const fn new(node: &'a Node, path: String) -> Self {
        Self { node, path }
    }

    /// The node itself.
    #[must_use]
    pub const fn node(&self) -> &'a Node {
        self.node
    }

    /// The path, such as `spec.metrics[0].type`; empty for the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it stands.
    #[must_use]
    pub const fn at(&self) -> Mark {
        self.node.at
    }

    /// Whether it is null.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        self.node.is_null()
    }

    /// An error about this node.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::new(self.node.at, self.path.clone(), message)
    }

    /// An error about the key of one of its entries.
    #[must_use]
    pub fn key_error(&self, key: &Key, message: impl Into<String>) -> Error {
        Error::new(key.at, self.inside(&key.name), message)
    }

    /// The entries of a mapping.
    ///
    /// # Errors
    /// It is no mapping.
    pub fn map(&self) -> Result<&'a Map, Error> {
        self.node.as_map().ok_or_else(|| self.wrong("a mapping"))
    }

    /// The entry of this name. One that is null counts as one that is not there.
    ///
    /// # Errors
    /// It is no mapping.
    pub fn get(&self, name: &str) -> Result<Option<Self>, Error> {
        let found = self.map()?.get(name).filter(|node| !node.is_null());
        Ok(found.map(|node| Self::new(node, self.inside(name))))
    }

    /// The entry of this name, which must be there.
    ///
    /// # Errors
    /// It is no mapping, or has no such entry.
    pub fn require(&self, name: &str) -> Result<Self, Error> {
        self.get(name)?.ok_or_else(|| Error::new(self.node.at, self.inside(name), "is missing"))
    }

    /// The entries of a mapping, in order.
    ///
    /// # Errors
    /// It is no mapping.
    pub fn entries(&self) -> Result<impl Iterator<Item = (&'a Key, Self)>, Error> {
        let map = self.map()?;
        Ok(map.iter().map(|(key, node)| (key, Self::new(node, self.inside(&key.name)))))
    }

    /// The items of a list.
    ///
    /// # Errors
    /// It is no list.
    pub fn items(&self) -> Result<impl Iterator<Item = Self>, Error> {
        let items = self.node.as_list().ok_or_else(|| self.wrong("a list"))?;
        Ok(items.iter().enumerate().map(|(at, node)| Self::new(node, format!("{}[{at}]", self.path))))
    }

    /// The text.
    ///
    /// # Errors
    /// It is no text; a number is none.
    pub fn text(&self) -> Result<&'a str, Error> {
        self.node.as_text().ok_or_else(|| self.wrong("text"))
    }

    /// A boolean.
    ///
    /// # Errors
    /// It is none.
    pub fn boolean(&self) -> Result<bool, Error> {
        if let Value::Bool(value) = self.node.value { Ok(value) } else { Err(self.wrong("a boolean")) }
    }

    /// An integer of 64 bits.
    ///
    /// # Errors
    /// It is none.
    pub fn integer(&self) -> Result<i64, Error> {
        if let Value::Int(value) = self.node.value { Ok(value) } else { Err(self.wrong("an integer")) }
    }

    /// A number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self) -> Result<f64, Error> {
        match self.node.value {
            #[allow(clippy::cast_precision_loss, reason = "whoever asks for a float takes its precision")]
            Value::Int(value) => Ok(value as f64),
            Value::Float(value) => Ok(value),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                Err(self.wrong("a number"))
            }
        }
    }

    /// Refuses entries that nobody reads.
    ///
    /// # Errors
    /// It is no mapping, or has an entry with another name.
    pub fn only(&self, names: &[&str]) -> Result<(), Error> {
        match self.map()?.iter().find(|(key, _)| !names.contains(&key.name.as_str())) {
            Some((key, _)) => Err(self.key_error(key, format!("is not a known key; known are {}", names.join(", ")))),
            None => Ok(()),
        }
    }

    /// The error of a node that is of another kind.
    #[must_use]
    pub fn wrong(&self, wanted: &str) -> Error {
        self.error(format!("must be {wanted}, found {}", self.node.value.kind()))
    }

    /// The path of an entry.
    fn inside(&self, name: &str) -> String {
        let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        match (self.path.is_empty(), is_plain) {
            (true, true) => name.to_owned(),
            (false, true) => format!("{}.{name}", self.path),
            (_, false) => format!("{}[{name:?}]", self.path),
        }
    }
}

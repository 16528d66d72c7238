//! YAML with line numbers: the few shapes that a CI file is made of, and no surprises beyond them.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::FileError;

/// Deeper nesting than any key here needs.
const DEEPEST: usize = 8;
/// Most values after aliases are written out: a small file cannot grow large through them.
const MOST_NODES: usize = 20_000;

/// A value and the line that it begins on, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
    size: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing, or `null`.
    Null,
    /// A scalar without quotes: a number, a flag or text, as its reader takes it.
    Plain(String),
    /// A scalar in quotes, or a block: text.
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; no key is there twice.
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) name: String,
}

impl Node {
    fn new(line: usize, value: Value, size: usize) -> Self {
        Self { line, value, size }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> FileError {
        FileError::at(self.line, message)
    }
}

/// Reads the one document of a file.
pub(super) fn read(text: &str) -> Result<Node, FileError> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    loop {
        let (event, span) = reader.next()?;
        if event == Event::StreamEnd {
            return Err(FileError::at(1, "the file is empty"));
        }
        if !matches!(event, Event::StreamStart | Event::DocumentStart(_) | Event::Nothing) {
            let root = reader.node(event, span, 0)?;
            reader.end()?;
            return Ok(root);
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), FileError> {
        match self.events.next() {
            Some(Ok(found)) => Ok(found),
            Some(Err(e)) => Err(FileError::at(e.marker().line(), format!("not YAML: {}", e.info()))),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Nothing may follow the first document.
    fn end(&mut self) -> Result<(), FileError> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(_), span) => {
                    return Err(FileError::at(span.start.line(), "a second YAML document is not supported"));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, FileError> {
        let line = span.start.line();
        if depth > DEEPEST {
            return Err(FileError::at(line, "nested too deeply"));
        }
        let (node, anchor) = match event {
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| FileError::at(line, "the alias names no anchor"))?;
                self.count(line, node.size)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(line, tag.as_deref())?;
                let value = match style {
                    ScalarStyle::Plain if matches!(&*text, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
                    ScalarStyle::Plain => Value::Plain(text.into_owned()),
                    ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Value::Text(text.into_owned()),
                };
                (Node::new(line, value, 1), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(line, tag.as_deref())?;
                (self.list(line, depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(line, tag.as_deref())?;
                (self.map(line, depth)?, anchor)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(FileError::at(line, "not YAML: a value is missing")),
        };
        self.count(line, 1)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, line: usize, depth: usize) -> Result<Node, FileError> {
        let mut items = Vec::new();
        let mut size = 1;
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Node::new(line, Value::List(items), size)),
                (event, span) => {
                    let item = self.node(event, span, depth + 1)?;
                    size += item.size;
                    items.push(item);
                }
            }
        }
    }

    fn map(&mut self, line: usize, depth: usize) -> Result<Node, FileError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut size = 1;
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Node::new(line, Value::Map(entries), size));
            }
            let key = self.node(event, span, depth + 1)?;
            let (Value::Plain(name) | Value::Text(name)) = key.value else {
                return Err(key.error("a key must be text"));
            };
            if let Some((first, _)) = entries.iter().find(|(k, _)| k.name == name) {
                let message = format!("`{name}` is there twice: first on line {}", first.line);
                return Err(FileError::at(key.line, message));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            size += value.size + 1;
            entries.push((Key { line: key.line, name }, value));
        }
    }

    fn count(&mut self, line: usize, nodes: usize) -> Result<(), FileError> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES {
            return Err(FileError::at(line, format!("more than {MOST_NODES} values")));
        }
        Ok(())
    }
}

fn refuse_tag(line: usize, tag: Option<&saphyr_parser::Tag>) -> Result<(), FileError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            Err(FileError::at(line, format!("the YAML tag `{}{}` is not supported", tag.handle, tag.suffix)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn values_know_their_lines() {
        let root = read("# a\na: 1\nb:\n  - 'x'\n  - |\n    y\n    z\nc: ~\n").unwrap();
        let Value::Map(entries) = root.value else { panic!("a map") };
        let lines: Vec<_> = entries.iter().map(|(k, v)| (k.name.as_str(), k.line, v.line)).collect();
        assert_eq!(lines, [("a", 2, 2), ("b", 3, 4), ("c", 8, 8)]);
        assert_eq!(entries[0].1.value, Value::Plain("1".into()));
        let Value::List(items) = &entries[1].1.value else { panic!("a list") };
        assert_eq!(items[1].value, Value::Text("y\nz\n".into()));
        assert_eq!(entries[2].1.value, Value::Null);
    }

    #[test]
    fn what_is_no_plain_yaml_is_refused_with_its_line() {
        assert_eq!(fails(""), "line 1: the file is empty");
        assert_eq!(fails("a: 1\nb: 2\na: 3\n"), "line 3: `a` is there twice: first on line 1");
        assert_eq!(fails("a:\n  - !reference [x, y]\n"), "line 2: the YAML tag `!reference` is not supported");
        assert_eq!(fails("a: 1\n---\nb: 2\n"), "line 2: a second YAML document is not supported");
        assert!(fails("a: 1\n  b: [\n").starts_with("line 2: not YAML: "));
        assert_eq!(fails("[[[[[[[[[1]]]]]]]]]"), "line 1: nested too deeply");
        assert!(fails(&"[".repeat(50_000)).starts_with("line 1: not YAML: "));
    }

    #[test]
    fn aliases_are_written_out_within_bounds() {
        let root = read("a: &x [1, 2]\nb: *x\n").unwrap();
        let Value::Map(entries) = root.value else { panic!("a map") };
        assert_eq!(entries[0].1.value, entries[1].1.value);
        let mut bomb = vec![String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")];
        for i in 1..7 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push(format!("a{i}: &a{i} [{aliases}]\n"));
        }
        let bomb = bomb.concat();
        assert!(fails(&bomb).contains("more than 20000 values"), "{}", fails(&bomb));
    }
}

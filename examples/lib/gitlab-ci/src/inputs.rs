//! `spec:inputs`: what a file is told by whoever includes it.

use yaml::{Error, Map, Mark, Node, Value};

use crate::merge::flat;

/// The longest text that inputs may be put into, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A file's root with `$[[ inputs.NAME ]]` replaced.
pub(crate) fn applied((header, root): (Option<Node>, Node), given: &Map, start: Mark) -> Result<Node, Error> {
    let Some(header) = header else {
        return match given.iter().next() {
            Some((key, _)) => {
                Err(Error::new(key.at, "include.inputs", format!("the file has no input `{}`", key.name)))
            }
            None => Ok(root),
        };
    };
    let spec = header.as_map().and_then(|map| map.get("spec")).and_then(Node::as_map);
    let declared = spec.and_then(|spec| spec.get("inputs")).and_then(Node::as_map).cloned().unwrap_or_default();
    if let Some((key, _)) = given.iter().find(|(key, _)| declared.get(&key.name).is_none()) {
        return Err(Error::new(key.at, "include.inputs", format!("the file has no input `{}`", key.name)));
    }
    let mut values = Map::default();
    for (key, declared) in &declared {
        let path = format!("spec.inputs.{}", key.name);
        let option = |name: &str| declared.as_map().and_then(|map| map.get(name)).filter(|node| !node.is_null());
        let value = given.get(&key.name).or_else(|| option("default")).ok_or_else(|| {
            Error::new(
                start,
                path.clone(),
                "has no default and was not given\ngive it under `include:inputs`, or with `--input`",
            )
        })?;
        check(value, option, &path)?;
        values.set(key.clone(), value.clone());
    }
    replaced(&root, &values)
}

fn check<'n>(value: &Node, option: impl Fn(&str) -> Option<&'n Node>, path: &str) -> Result<(), Error> {
    let wrong = |message: String| Error::new(value.at, path, message);
    let wanted = option("type").and_then(Node::as_text).unwrap_or("string");
    let fits = match wanted {
        "string" => !matches!(value.value, Value::List(_) | Value::Map(_)),
        "number" => matches!(value.value, Value::Int(_) | Value::Float(_)),
        "boolean" => matches!(value.value, Value::Bool(_)),
        "array" => matches!(value.value, Value::List(_)),
        other => return Err(wrong(format!("`{other}` is no type of an input"))),
    };
    if !fits {
        return Err(wrong(format!("must be of the type {wanted}, found {}", value.value.kind())));
    }
    if let Some(options) = option("options") {
        let options: Vec<&str> = flat(options).into_iter().filter_map(Node::source).collect();
        if !value.source().is_some_and(|source| options.contains(&source)) {
            return Err(wrong(format!("must be one of {}", options.join(", "))));
        }
    }
    if let Some(pattern) = option("regex").and_then(Node::as_text) {
        let bare = pattern.strip_prefix('/').and_then(|p| p.strip_suffix('/')).unwrap_or(pattern);
        let regex = regex::RegexBuilder::new(bare).size_limit(1 << 20).build();
        let regex = regex.map_err(|_| wrong(format!("`{pattern}` is no regular expression")))?;
        if !value.source().is_some_and(|source| regex.is_match(source)) {
            return Err(wrong(format!("must match {pattern}")));
        }
    }
    Ok(())
}

fn replaced(node: &Node, values: &Map) -> Result<Node, Error> {
    let value = match &node.value {
        Value::Text(text) if text.contains("$[[") => return text_replaced(node, text, values),
        Value::List(items) => Value::List(items.iter().map(|item| replaced(item, values)).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let mut out = Map::default();
            for (key, node) in map {
                let name = text_of(&key.name, key.at, values)?;
                out.set(crate::source::key(&name, key.at), replaced(node, values)?);
            }
            Value::Map(out)
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => return Ok(node.clone()),
    };
    let mut out = Node::new(value, node.at);
    out.tag.clone_from(&node.tag);
    Ok(out)
}

/// A text that is one input is that input, of whatever type; in a longer text its own text is put in.
fn text_replaced(node: &Node, text: &str, values: &Map) -> Result<Node, Error> {
    let whole =
        text.trim().strip_prefix("$[[").and_then(|rest| rest.strip_suffix("]]")).filter(|rest| !rest.contains("$[["));
    if let Some(inner) = whole {
        let mut value = value_of(inner, node.at, values)?.clone();
        value.at = node.at;
        return Ok(value);
    }
    Ok(Node::new(Value::Text(text_of(text, node.at, values)?), node.at))
}

fn text_of(text: &str, at: Mark, values: &Map) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$[[") {
        let (inner, after) = after.split_once("]]").ok_or_else(|| Error::new(at, "", "`$[[` has no `]]`"))?;
        out.push_str(before);
        let value = value_of(inner, at, values)?;
        let shown = value.source().ok_or_else(|| {
            Error::new(at, "", format!("the input{inner}is a list, which cannot stand inside a text"))
        })?;
        out.push_str(shown);
        if out.len() > MAX_TEXT_BYTES {
            return Err(Error::new(at, "", format!("inputs make a text longer than {MAX_TEXT_BYTES} bytes")));
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value_of<'v>(inner: &str, at: Mark, values: &'v Map) -> Result<&'v Node, Error> {
    let wrong = |message: String| Error::new(at, "", message);
    let inner = inner.trim();
    if let Some((_, function)) = inner.split_once('|') {
        return Err(wrong(format!(
            "the function `{}` of an input is not supported: write its result",
            function.trim()
        )));
    }
    let name = inner
        .strip_prefix("inputs.")
        .ok_or_else(|| wrong(format!("`$[[ {inner} ]]` is no input: it is written `$[[ inputs.NAME ]]`")))?;
    values.get(name).ok_or_else(|| wrong(format!("the file has no input `{name}`")))
}

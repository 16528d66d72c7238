//! Reading files: includes, the inputs of those that have some, and the merge of all of them.

use std::io;

use yaml::{Document, Error, Key, Map, Mark, Node, Options, Schema, Value, parse};

use crate::expression::Expression;
use crate::glob::{Glob, Style, is_pattern};
use crate::inputs;
use crate::merge::{flat, lay_over};
use crate::variables::{Variables, expand, expand_all};

/// How many files a pipeline may include.
const MAX_INCLUDES: usize = 150;
/// How deep includes may lie in each other.
const MAX_DEPTH: usize = 30;
/// The largest file, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The files of one repository, and whatever else a CI file asks of the world.
pub trait Files {
    /// The bytes of a file, named from the root; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;

    /// The names of all files of the commit, from the root.
    ///
    /// # Errors
    /// They cannot be listed.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The files that have changed since what `rules:changes` compares with: `compare_to` if it is given.
    ///
    /// # Errors
    /// They cannot be listed.
    fn changed(&self, compare_to: Option<&str>) -> io::Result<Changed>;

    /// The files that stand for another project, a URL or a catalogue: `place` is `HOST/PATH`, and what of it is left
    /// inside. `None` if nobody said where they are.
    ///
    /// # Errors
    /// They cannot be read.
    fn elsewhere(&self, place: &str) -> io::Result<Option<(Box<dyn Files + '_>, String)>>;
}

/// What `rules:changes` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These files.
    Files(Vec<String>),
    /// Everything counts as changed.
    All,
}

/// The keys of an entry of `include`: what is included, and more about it.
const KINDS: [&str; 5] = ["local", "project", "remote", "template", "component"];
const MORE: [&str; 6] = ["file", "ref", "rules", "inputs", "integrity", "cache"];
/// What is to be done about a file that is not of the repository.
const HINT: &str = "say where its files are with `--include-root HOST/PATH=FOLDER`; nothing is fetched";

/// What a reader is told.
pub(crate) struct Given<'g> {
    /// What `include` sees: predefined, project and given variables.
    pub(crate) variables: &'g Variables,
    /// The host of the server, for `include:project`.
    pub(crate) host: &'g str,
    /// The inputs of the first file.
    pub(crate) inputs: &'g Map,
}

/// A remark: where, about what, and what.
pub(crate) type Remark = (Mark, String, String);

/// Reads a file with all that it includes.
pub(crate) struct Reader<'g> {
    given: Given<'g>,
    expanded: std::collections::BTreeMap<String, String>,
    pub(crate) sources: Vec<String>,
    pub(crate) remarks: Vec<Remark>,
}

/// A file on the way to those that it includes.
struct From<'f> {
    files: &'f dyn Files,
    /// What its own files are called in messages: empty for the repository itself.
    label: String,
    depth: usize,
}

impl<'g> Reader<'g> {
    pub(crate) fn new(given: Given<'g>) -> Self {
        let expanded = expand_all(given.variables).unwrap_or_default();
        Self { given, expanded, sources: Vec::new(), remarks: Vec::new() }
    }

    /// The merged mapping of a file and what it includes.
    pub(crate) fn read(&mut self, files: &dyn Files, paths: &[String]) -> Result<Map, Error> {
        let from = From { files, label: String::new(), depth: 0 };
        let mut whole = Map::default();
        let inputs = self.given.inputs.clone();
        for path in paths {
            lay_over(&mut whole, self.file(&from, path, &inputs, Mark { file: 0, line: 1, column: 1 })?);
        }
        Ok(whole)
    }

    fn file(&mut self, from: &From<'_>, path: &str, inputs: &Map, at: Mark) -> Result<Map, Error> {
        let name = format!("{}{path}", from.label);
        let wrong = |message: String| Error::new(at, "include", message);
        if self.sources.len() > MAX_INCLUDES {
            return Err(wrong(format!("more than {MAX_INCLUDES} files are included")));
        }
        if from.depth > MAX_DEPTH {
            return Err(wrong(format!(
                "includes lie more than {MAX_DEPTH} deep in each other, the last of them `{name}`"
            )));
        }
        let number = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        let bytes = from.files.read(path).map_err(|why| wrong(format!("`{name}` cannot be read: {why}")))?;
        if bytes.is_some() || self.sources.is_empty() {
            self.sources.push(name.clone());
        }
        let bytes = bytes.ok_or_else(|| {
            let key = if from.depth == 0 { "" } else { "include" };
            Error::new(at, key, format!("there is no file `{name}`"))
        })?;
        let text = String::from_utf8(bytes).map_err(|_| wrong(format!("`{name}` is not UTF-8")))?;
        let options = Options { schema: Schema::Yaml11, file: number, max_bytes: MAX_FILE_BYTES, ..Options::default() };
        let documents = parse(&text, &options)?;
        for warning in documents.iter().flat_map(|document| &document.warnings) {
            self.remarks.push((warning.at, String::new(), warning.message.clone()));
        }
        let start = Mark { file: number, line: 1, column: 1 };
        let root = inputs::applied(documents_of(documents, start)?, inputs, start)?;
        let Value::Map(mut own) = root.value else {
            return Err(Error::new(
                root.at,
                "",
                format!("the file must be a mapping of jobs and settings, found {}", root.value.kind()),
            ));
        };
        let mut whole = Map::default();
        if let Some((_, include)) = own.remove("include") {
            for entry in flat(&include) {
                for map in self.included(from, entry)? {
                    lay_over(&mut whole, map);
                }
            }
        }
        lay_over(&mut whole, own);
        Ok(whole)
    }

    fn included(&mut self, from: &From<'_>, entry: &Node) -> Result<Vec<Map>, Error> {
        let empty = Map::default();
        let none = Map::default();
        let wrong = |message: String| Error::new(entry.at, "include", message);
        let map = match &entry.value {
            Value::Text(text) => {
                let text = self.expanded(text);
                if text.starts_with("http://") || text.starts_with("https://") {
                    return self.remote(from, &text, &empty, entry.at).map(|map| vec![map]);
                }
                return self.local(from, &text, &empty, entry.at);
            }
            Value::Map(map) => map,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::List(_) => {
                return Err(wrong(format!("must be a path or a mapping, found {}", entry.value.kind())));
            }
        };
        if let Some((key, _)) =
            map.iter().find(|(key, _)| ![&KINDS[..], &MORE[..]].concat().contains(&key.name.as_str()))
        {
            return Err(Error::new(key.at, format!("include.{}", key.name), "is not a known key"));
        }
        if let Some(rules) = map.get("rules")
            && !self.rules_hold(from, rules)?
        {
            return Ok(Vec::new());
        }
        let inputs = map.get("inputs").and_then(Node::as_map).unwrap_or(&none);
        let texts = |name: &str| -> Result<Vec<String>, Error> {
            let items = map.get(name).map(flat).unwrap_or_default();
            items
                .into_iter()
                .map(|item| {
                    item.as_text()
                        .map(|text| self.expanded(text))
                        .ok_or_else(|| wrong(format!("`{name}` must be text")))
                })
                .collect()
        };
        let kind = KINDS.iter().find(|kind| map.get(kind).is_some());
        let kind = kind.ok_or_else(|| {
            wrong("must have one of `local`, `project`, `remote`, `template` and `component`".to_owned())
        })?;
        let values = texts(kind)?;
        let first = values.first().cloned().ok_or_else(|| wrong(format!("`{kind}` is empty")))?;
        match *kind {
            "local" => self.local(from, &first, inputs, entry.at),
            "remote" => Ok(vec![self.remote(from, &first, inputs, entry.at)?]),
            "template" => Ok(vec![self.other(from, &format!("templates/{first}"), None, inputs, entry.at)?]),
            "component" => Ok(vec![self.component(from, &first, inputs, entry.at)?]),
            _ => {
                let files = texts("file")?;
                if files.is_empty() {
                    return Err(wrong("`project` needs `file`".to_owned()));
                }
                let place = format!("{}/{}", self.given.host, first.trim_matches('/'));
                let all = files
                    .iter()
                    .map(|file| self.other(from, &place, Some(file.trim_start_matches('/')), inputs, entry.at));
                all.collect()
            }
        }
    }

    fn local(&mut self, from: &From<'_>, path: &str, inputs: &Map, at: Mark) -> Result<Vec<Map>, Error> {
        let path = path.trim_start_matches('/');
        let wrong = |message: String| Error::new(at, "include", message);
        if path.split('/').any(|part| part == "..") {
            return Err(wrong(format!("`{path}` leaves the repository")));
        }
        let inner = From { files: from.files, label: from.label.clone(), depth: from.depth + 1 };
        if !is_pattern(path) {
            return Ok(vec![self.file(&inner, path, inputs, at)?]);
        }
        let glob = Glob::new(path, Style::Fnmatch).map_err(wrong)?;
        let mut found = from.files.list().map_err(|why| wrong(format!("files cannot be listed: {why}")))?;
        found.retain(|file| glob.matches(file));
        found.sort();
        if found.is_empty() {
            return Err(wrong(format!("no file is called `{path}`")));
        }
        found.iter().map(|file| self.file(&inner, file, inputs, at)).collect()
    }

    fn remote(&mut self, from: &From<'_>, url: &str, inputs: &Map, at: Mark) -> Result<Map, Error> {
        let place = url.split_once("://").map_or(url, |(_, rest)| rest);
        let place = place.split(['?', '#']).next().unwrap_or(place);
        self.other(from, place, None, inputs, at)
    }

    fn component(&mut self, from: &From<'_>, name: &str, inputs: &Map, at: Mark) -> Result<Map, Error> {
        let (path, _version) = name.rsplit_once('@').unwrap_or((name, ""));
        let (place, component) = path.rsplit_once('/').unwrap_or(("", path));
        let file = format!("templates/{component}.yml");
        match self.other(from, place, Some(&file), inputs, at) {
            Err(why) if why.message.contains("there is no file") => {
                self.other(from, place, Some(&format!("templates/{component}/template.yml")), inputs, at)
            }
            told => told,
        }
    }

    /// A file of somewhere else. `file` is named from the root of that place; without one the place names it, too.
    fn other(
        &mut self,
        from: &From<'_>,
        place: &str,
        file: Option<&str>,
        inputs: &Map,
        at: Mark,
    ) -> Result<Map, Error> {
        let wrong = |message: String| Error::new(at, "include", message);
        let shown = file.map_or(place.to_owned(), |file| format!("{place}/{file}"));
        let found = from.files.elsewhere(place).map_err(|why| wrong(format!("`{shown}` cannot be read: {why}")))?;
        let Some((files, left)) = found else {
            return Err(wrong(format!("`{shown}` is not of this repository\n{HINT}")));
        };
        let path = match file {
            Some(file) if left.is_empty() => file.to_owned(),
            Some(file) => format!("{left}/{file}"),
            None => without_raw(&left).to_owned(),
        };
        let label = format!("{}:", shown.strip_suffix(&path).unwrap_or(place).trim_end_matches('/'));
        let inner = From { files: &*files, label, depth: from.depth + 1 };
        let read = self.file(&inner, &path, inputs, at)?;
        self.remarks.push((
            at,
            "include".to_owned(),
            format!("`{shown}` is taken from the folder that --include-root names"),
        ));
        Ok(read)
    }

    fn rules_hold(&self, from: &From<'_>, rules: &Node) -> Result<bool, Error> {
        for rule in flat(rules) {
            let map = rule.as_map().ok_or_else(|| Error::new(rule.at, "include.rules", "must be a list of rules"))?;
            let mut holds = true;
            for (key, node) in map {
                let wrong = |message: String| Error::new(node.at, format!("include.rules.{}", key.name), message);
                match key.name.as_str() {
                    "if" => {
                        let text = node.as_text().ok_or_else(|| wrong("must be an expression".to_owned()))?;
                        let expression = Expression::parse(text).map_err(|why| wrong(why.to_string()))?;
                        let value = |name: &str| self.given.variables.get(name).map(|value| value.text.as_str());
                        holds &= expression.evaluate(&value).holds;
                    }
                    "exists" => {
                        let list = from.files.list().map_err(|why| wrong(format!("files cannot be listed: {why}")))?;
                        let patterns = flat(node.as_map().and_then(|map| map.get("paths")).unwrap_or(node));
                        let mut any = false;
                        for pattern in patterns {
                            let text = self.expanded(pattern.source().unwrap_or_default());
                            let glob = Glob::new(text.trim_start_matches('/'), Style::Fnmatch).map_err(wrong)?;
                            any |= list.iter().any(|file| glob.matches(file));
                        }
                        holds &= any;
                    }
                    "changes" => {
                        let changed = from
                            .files
                            .changed(None)
                            .map_err(|why| wrong(format!("changes cannot be listed: {why}")))?;
                        let patterns = flat(node.as_map().and_then(|map| map.get("paths")).unwrap_or(node));
                        let Changed::Files(files) = changed else { continue };
                        let mut any = false;
                        for pattern in patterns {
                            let text = self.expanded(pattern.source().unwrap_or_default());
                            let glob = Glob::new(&text, Style::Fnmatch).map_err(wrong)?;
                            any |= files.iter().any(|file| glob.matches(file));
                        }
                        holds &= any;
                    }
                    "when" => {}
                    other => return Err(wrong(format!("`{other}` is not a clause of an include's rule"))),
                }
            }
            if holds {
                return Ok(map.get("when").and_then(Node::as_text) != Some("never"));
            }
        }
        Ok(false)
    }

    fn expanded(&self, text: &str) -> String {
        expand(text, &self.expanded)
    }
}

/// A path without what GitLab puts before the files of a project: `-/raw/main/`.
fn without_raw(path: &str) -> &str {
    let raw = path.strip_prefix("-/raw/").or_else(|| path.strip_prefix("-/blob/"));
    raw.and_then(|rest| rest.split_once('/')).map_or(path, |(_, file)| file)
}

/// A file's header, if it has one, and the rest.
fn documents_of(mut documents: Vec<Document>, start: Mark) -> Result<(Option<Node>, Node), Error> {
    documents.retain(|document| !document.root.is_null());
    let is_header = |document: &Document| document.root.as_map().is_some_and(|map| map.get("spec").is_some());
    let mut documents = documents.into_iter().peekable();
    let header = documents.next_if(is_header).map(|document| document.root);
    let root = documents.next().map_or_else(|| Node::new(Value::Map(Map::default()), start), |document| document.root);
    match documents.next() {
        Some(more) => Err(Error::new(
            more.root.at,
            "",
            "the file has a further document after `---`; only a header with `spec` may come before it",
        )),
        None => Ok((header, root)),
    }
}

/// A key that stands at a place.
pub(crate) fn key(name: &str, at: Mark) -> Key {
    Key { name: name.to_owned(), at }
}

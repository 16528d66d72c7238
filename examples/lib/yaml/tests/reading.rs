//! What is read, what is refused, and where it says that something stands.

use yaml::{Error, Map, Mark, Node, Options, Schema, Value, View, parse};

fn gitlab() -> Options {
    Options { schema: Schema::Yaml11, ..Options::default() }
}

fn one(text: &str) -> Node {
    let mut documents = parse(text, &gitlab()).expect(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).root
}

fn refused(text: &str) -> Error {
    parse(text, &gitlab()).expect_err(text)
}

/// A node as compact JSON-like text.
fn shown(node: &Node) -> String {
    let map = |map: &Map| map.iter().map(|(key, node)| format!("{}: {}", key.name, shown(node))).collect::<Vec<_>>();
    let shown = match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(value) => format!("{value:?}"),
        Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Map(value) => format!("{{{}}}", map(value).join(", ")),
    };
    node.tag.as_ref().map_or(shown.clone(), |tag| format!("{tag} {shown}"))
}

#[test]
fn what_libyaml_takes_is_taken() {
    for (text, wanted) in [
        ("a:\n  b: [\n    x,\n    y\n  ]\n  c: d\n", r#"{a: {b: ["x", "y"], c: "d"}}"#),
        ("a:\n  b: [\n x,\ny\n]\n", r#"{a: {b: ["x", "y"]}}"#),
        ("a: {\n  b: c\n}\n", r#"{a: {b: "c"}}"#),
        ("a:\n  b: \"one\ntwo\"\n", r#"{a: {b: "one two"}}"#),
        ("\u{feff}---\na: b\n", r#"{a: "b"}"#),
        ("a: b\t# c\n", r#"{a: "b"}"#),
        ("a:\n- b\n- - c\n", r#"{a: ["b", ["c"]]}"#),
        ("a: |\n  x\n\n   y\nb: >-\n  x\n  y\n", r#"{a: "x\n\n y\n", b: "x y"}"#),
        ("a: |\n  x", r#"{a: "x"}"#),
        ("{a, b: , 'c': 1}", "{a: null, b: null, c: 1}"),
        ("a: [b, !reference [c, d]]", r#"{a: ["b", !reference ["c", "d"]]}"#),
        ("a: !!str 5\nb: ! 6\nc: !!int \"7\"\nd: !x 8\ne: !x\n", r#"{a: "5", b: "6", c: 7, d: !x "8", e: !x null}"#),
        ("? a\n: b\n", r#"{a: "b"}"#),
        ("\"a\": 'it''s'", r#"{a: "it's"}"#),
        ("12: x\ntrue: y", r#"{12: "x", true: "y"}"#),
        ("a: \u{1f600}", "{a: \"\u{1f600}\"}"),
    ] {
        assert_eq!(shown(&one(text)), wanted, "{text}");
    }
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    for (text, place) in [
        ("a: b\n c: d\n", "line 2, column 3"),
        ("a: [b\n", "line 1, column 4"),
        ("a: *b\n", "line 1, column 4"),
        ("a: @b\n", "line 1, column 4"),
        ("a: 'b' c\n", "line 1, column 8"),
        ("x: 1\nday: 2026-11-30\n", "line 2, column 6"),
        ("[a, b]: c\n", "line 1, column 1"),
        ("{a: b}: c\n", "line 1, column 1"),
        ("a: &x [*x]\n", "line 1, column 8"),
        ("a:\n  <<: text\n", "line 2, column 7"),
        ("a: !!int x\n", "line 1, column 10"),
    ] {
        let error = refused(text);
        assert!(error.to_string().starts_with(&format!("{place}: ")), "{text}: {error}");
    }
}

#[test]
fn aliases_are_copies_and_merges_are_shallow() {
    let text = "
.a: &a {v: {x: a, y: a}, s: 1}
.b: &b {v: {z: b}, t: 2}
one: {<<: [*a, *b], s: own}
two:
  <<: *a
  <<: *b
  u: *b
three: {\"<<\": text}
";
    let root = one(text);
    let at = |name: &str| shown(root.as_map().unwrap().get(name).unwrap());
    assert_eq!(at("one"), r#"{s: "own", v: {x: "a", y: "a"}, t: 2}"#);
    assert_eq!(at("two"), r#"{u: {v: {z: "b"}, t: 2}, v: {x: "a", y: "a"}, s: 1, t: 2}"#);
    assert_eq!(at("three"), r#"{<<: "text"}"#);
}

#[test]
fn of_two_equal_keys_the_last_wins_with_a_warning() {
    let documents = parse("a: 1\nb: 2\na: 3\n---\nc: 4\n", &gitlab()).unwrap();
    assert_eq!(shown(&documents[0].root), "{a: 3, b: 2}");
    let warnings: Vec<String> = documents[0].warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["line 3, column 1: the key `a` is there twice: this one replaces that of line 1, column 1"]);
    assert!(documents[1].warnings.is_empty());
}

#[test]
fn everything_says_where_it_stands() {
    let options = Options { file: 7, ..gitlab() };
    let documents = parse("a:\n  - b\n  - {c: &x d}\ne: *x\n", &options).unwrap();
    let map = documents[0].root.as_map().unwrap();
    let mark = |line, column| Mark { file: 7, line, column };
    let (key, list) = map.entry("a").unwrap();
    assert_eq!((key.at, list.at), (mark(1, 1), mark(2, 3)));
    let items = list.as_list().unwrap();
    assert_eq!((items[0].at, items[1].at), (mark(2, 5), mark(3, 5)));
    assert_eq!(map.get("e").unwrap().at, mark(3, 12), "an alias stands where its anchor does");
}

#[test]
fn a_stream_has_any_number_of_documents() {
    assert_eq!(parse("", &gitlab()).unwrap().len(), 0);
    assert_eq!(parse("# nothing\n", &gitlab()).unwrap().len(), 0);
    let documents = parse("---\na: 1\n---\n---\n- x\n...\n", &gitlab()).unwrap();
    assert_eq!(
        documents.iter().map(|document| shown(&document.root)).collect::<Vec<_>>(),
        ["{a: 1}", "null", "[\"x\"]"]
    );
}

#[test]
fn everything_has_a_limit() {
    let tight = Options { max_bytes: 60, max_depth: 3, max_nodes: 12, max_documents: 2, ..gitlab() };
    let refuses = |text: &str, words: &str| {
        let error = parse(text, &tight).expect_err(text);
        assert!(error.message.contains(words), "{text}: {error}");
    };
    refuses(&"x".repeat(61), "60 are read");
    refuses("[[[[x]]]]", "3 deep");
    let deep = "a: &a [[x]]\nb: [[*a]]";
    assert!(parse(deep, &Options { max_nodes: 100, ..tight }).unwrap_err().message.contains("3 deep"));
    refuses("[1,2,3,4,5,6,7,8,9,0,1,2]", "12 nodes");
    refuses("a: &a [x, x]\nb: [*a, *a, *a]", "12 nodes");
    refuses("a\n---\nb\n---\nc\n", "2 documents");
    assert!(parse("a: &a [[x]]\nb: [*a]", &Options { max_depth: 4, max_nodes: 20, ..tight }).is_ok());

    // A billion laughs.
    let laughs: Vec<String> =
        (1..12).map(|at| format!("a{at}: &a{at} [{}x]\n", format!("*a{}, ", at - 1).repeat(10))).collect();
    assert!(parse(&format!("a0: &a0 lol\n{}", laughs.concat()), &gitlab()).unwrap_err().message.contains("nodes"));
    // A chain of aliases makes depth without any brackets in brackets.
    let chain: Vec<String> = (1..500).map(|at| format!("a{at}: &a{at} [*a{}]\n", at - 1)).collect();
    assert!(parse(&format!("a0: &a0 x\n{}", chain.concat()), &gitlab()).unwrap_err().message.contains("deep"));
}

#[test]
fn a_view_names_the_path() {
    let documents = parse("spec:\n  a.b/c: [1, {x: yes}]\n  d:\n", &Options::default()).unwrap();
    let root = View::of(&documents[0]);
    let spec = root.require("spec").unwrap();
    let list = spec.require("a.b/c").unwrap();
    let items: Vec<View<'_>> = list.items().unwrap().collect();
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        message(items[0].text().map(drop)),
        "line 2, column 11: spec[\"a.b/c\"][0]: must be text, found an integer"
    );
    let x = items[1].require("x").unwrap();
    assert_eq!(
        message(x.boolean().map(drop)),
        "line 2, column 18: spec[\"a.b/c\"][1].x: must be a boolean, found text"
    );
    assert_eq!(message(spec.require("d").map(drop)), "line 2, column 3: spec.d: is missing");
    assert_eq!(message(root.items().map(drop)), "line 1, column 1: must be a list, found a mapping");
    assert_eq!(
        message(spec.only(&["d", "e"])),
        "line 2, column 3: spec[\"a.b/c\"]: is not a known key; known are d, e"
    );
    assert!(spec.get("d").unwrap().is_none() && spec.get("zzz").unwrap().is_none());
}

#[test]
fn numbers_keep_how_they_were_written() {
    let root = one("a: 3.10\nb: 010\nc: 100000000000000000000000\nd: x\ne: [1]\n");
    let source = |name: &str| root.as_map().unwrap().get(name).unwrap().source();
    assert_eq!(
        ["a", "b", "c", "d", "e"].map(source),
        [Some("3.10"), Some("010"), Some("100000000000000000000000"), Some("x"), None]
    );
}

proptest::proptest! {
    /// Nothing that is read makes a panic, and what is wrong stands inside the text.
    #[test]
    fn any_text_is_read_or_refused(text in "([ \t\n\"'&*!|>%@`#,:?\\-\\[\\]{}<~a-c01.é\u{1f600}\u{1}]|- |: |\n  |<<: |&a |\\*a ){0,60}") {
        for schema in [Schema::Core, Schema::CoreYaml11Booleans, Schema::Yaml11] {
            let options = Options { schema, max_nodes: 500, ..Options::default() };
            if let Err(error) = parse(&text, &options) {
                let lines = u32::try_from(text.lines().count()).unwrap();
                proptest::prop_assert!(error.at.line <= lines + 1 && !error.message.is_empty());
            }
        }
    }
}

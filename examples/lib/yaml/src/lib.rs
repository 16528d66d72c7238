//! Reads YAML the way GitLab and Kubernetes read it, and says where each thing stands.
//!
//! [`parse`] turns a text into [`Document`]s of [`Node`]s. A [`View`] walks a node and gives typed values; its errors name
//! the path, the line and the column.
//!
//! ```
//! use yaml::{Options, Schema, View, parse};
//!
//! let text = "kind: HorizontalPodAutoscaler\nspec:\n  minReplicas: 2\n  metrics:\n    - type: Resource\n    - type: 7\n";
//! let documents = parse(text, &Options { schema: Schema::CoreYaml11Booleans, ..Options::default() })?;
//! let root = View::of(&documents[0]);
//! let spec = root.require("spec")?;
//! assert_eq!(spec.require("minReplicas")?.integer()?, 2);
//! let types: Vec<_> = spec.require("metrics")?.items()?.map(|metric| metric.require("type")?.text()).collect();
//! assert_eq!(types[0], Ok("Resource"));
//! assert_eq!(
//!     types[1].as_ref().unwrap_err().to_string(),
//!     "line 6, column 13: spec.metrics[1].type: must be text, found an integer"
//! );
//! # Ok::<(), yaml::Error>(())
//! ```
//!
//! What is accepted is what libyaml accepts: a closing bracket at the indentation of its key, quoted text that goes on at
//! column 1, a text after `---`. The parser underneath is [`granit_parser`], which does not panic.
//!
//! | | |
//! |---|---|
//! | anchors and aliases | an alias is a copy of its node, with the lines of the anchor |
//! | `<<` | merged where it stands, shallow: a mapping's own keys win, then the first of a list |
//! | a key that is there twice | the last wins, in the place of the first, with a [`Warning`] |
//! | tags | `!!str`, `!!int`, `!!float`, `!!bool` and `!!null` decide what a scalar is; others, such as `!reference`, are kept in [`Node::tag`] |
//! | scalars | as the [`Schema`] says; [`Node::source`] keeps how a number was written |
//! | limits | bytes, depth, documents, and nodes after aliases have been copied ([`Options`]) |

mod compose;
mod error;
mod node;
mod scalar;
mod view;

pub use compose::parse;
pub use error::{Error, Warning};
pub use node::{Key, Map, Mark, Node, Value};
pub use view::View;

/// Which plain scalars are not text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schema {
    /// YAML 1.2's core schema: `true`, `null`, `~`, `12`, `0o14`, `0xC`, `1e3`.
    #[default]
    Core,
    /// The core schema, and `yes`, `no`, `on`, `off`, `y` and `n` are booleans, as Kubernetes reads its manifests.
    CoreYaml11Booleans,
    /// YAML 1.1 as Ruby and so GitLab read it: `yes` is a boolean, `010` is 8, `1,000` is 1000, `1:30` is 5400, `1e3` is
    /// text, and a date without quotes is an error.
    Yaml11,
}

/// How a text is read, and how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which plain scalars are not text.
    pub schema: Schema,
    /// A number of the caller's that every [`Mark`] carries, to tell several files apart.
    pub file: u32,
    /// The largest text, in bytes.
    pub max_bytes: usize,
    /// How deep nodes may lie in each other, aliases included.
    pub max_depth: usize,
    /// How many nodes the documents may have together, each copy that an alias makes included.
    pub max_nodes: usize,
    /// How many documents a text may have.
    pub max_documents: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: Schema::Core,
            file: 0,
            max_bytes: 1 << 20,
            max_depth: 100,
            max_nodes: 200_000,
            max_documents: 1_000,
        }
    }
}

/// One document of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it holds; null if it is empty.
    pub root: Node,
    /// What was read in spite of a doubt.
    pub warnings: Vec<Warning>,
}

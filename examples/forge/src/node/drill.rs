//! Drills: a node that kills itself, or stands still, at a chosen point of its work.
//!
//! Only with `FORGE_DRILLS=1` in its environment does a node look. Then the file `drill` in the data folder, beside the nodes'
//! own folders, says what happens to the first node that gets there, once: `kill POINT` dies there as by SIGKILL; `stall POINT`
//! stands still there until the file `drill.go` appears. A third word is the only node that it may be. At the point, the node
//! renames the file to `drill.reached.N`, its own number.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tenon_quorum::NodeId;

/// Where a drill can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The objects of a push are about to come in.
    InParcel,
    /// Refs are locked and checked; nothing is proposed.
    AfterPrepare,
    /// The log has the record; the writer's refs have not moved.
    AfterAppend,
    /// The writer's refs have moved; its gate does not know.
    AfterCommit,
    /// A replica has persisted its vote and has not answered.
    AfterStage,
    /// A repair is about to begin.
    BeforeSync,
    /// A repair has fetched objects and moved no ref.
    InSync,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Point::InParcel => "in-parcel",
            Point::AfterPrepare => "after-prepare",
            Point::AfterAppend => "after-append",
            Point::AfterCommit => "after-commit",
            Point::AfterStage => "after-stage",
            Point::BeforeSync => "before-sync",
            Point::InSync => "in-sync",
        }
    }
}

/// The drills of one node.
#[derive(Debug, Clone)]
pub(crate) struct Drills {
    node: String,
    folder: Option<PathBuf>,
}

impl Drills {
    /// Drills for the node whose folder this is, if the environment allows them at all.
    pub(crate) fn from_environment(node: NodeId, folder: &Path) -> Drills {
        let on = std::env::var_os("FORGE_DRILLS").is_some_and(|value| value == "1");
        Drills { node: node.0.to_string(), folder: folder.parent().filter(|_| on).map(Path::to_owned) }
    }

    /// Strikes here, if that was asked for.
    pub(crate) async fn at(&self, point: Point) {
        let Some(folder) = &self.folder else { return };
        let order = folder.join("drill");
        let Ok(text) = std::fs::read_to_string(&order) else { return };
        let mut words = text.split_whitespace();
        let (verb, place, node) = (words.next(), words.next(), words.next());
        if place != Some(point.name()) || node.is_some_and(|node| node != self.node) {
            return;
        }
        // Of several nodes, one renames it.
        if std::fs::rename(&order, folder.join(format!("drill.reached.{}", self.node))).is_err() {
            return;
        }
        tracing::warn!(point = point.name(), verb, "a drill strikes");
        match verb {
            Some("kill") => {
                // Nothing is to be cleaned up: that is the drill.
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
            Some("stall") => {
                while !folder.join("drill.go").exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            _ => {}
        }
    }
}

//! What is under way, and values that are hashed once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tenon_quorum::*;

use crate::common::Fact;

/// A router's process: which one, and how often it was lost before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    pub router: usize,
    pub life: u8,
}

/// Something under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// An order of a router to the store or to a node.
    Do(Life, Effect),
    /// From a writer's node to another member.
    Stage(Life, NodeId, Member, StageOrder),
    /// An answer that came late.
    Tell(Life, Fact),
    /// A routed read.
    Serve(Life, Route),
}

impl Message {
    /// Whether it happens before anything else unless it is set aside: what only spreads news. What races by its nature
    /// (swaps, grants, votes, reads) never is.
    pub fn is_prompt(&self) -> bool {
        let Self::Do(_, effect) = self else { return false };
        matches!(
            effect,
            Effect::FetchRow { .. }
                | Effect::FetchFeed { .. }
                | Effect::FetchFamily { .. }
                | Effect::RaiseGate { .. }
                | Effect::Probe { .. }
                | Effect::Cure { .. }
                | Effect::LeaveNote { .. }
                | Effect::Promise { .. }
                | Effect::Initialise { .. }
                | Effect::Sync { .. }
        )
    }
}

/// A message, and whether it was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parcel {
    pub message: Message,
    pub aside: bool,
}

fn mark(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A value that is hashed once and shared between states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked<T> {
    pub mark: u64,
    value: Arc<T>,
}

impl<T: Hash + Clone> Marked<T> {
    pub fn new(value: T) -> Self {
        Self { mark: mark(&value), value: Arc::new(value) }
    }

    pub fn get(&self) -> &T {
        &self.value
    }

    pub fn change<R>(&mut self, act: impl FnOnce(&mut T) -> R) -> R {
        let result = act(Arc::make_mut(&mut self.value));
        self.mark = mark(&*self.value);
        result
    }
}

impl<T> Hash for Marked<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.mark.hash(hasher);
    }
}

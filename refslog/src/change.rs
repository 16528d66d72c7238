//! Values of refs, and changes of one ref from an old value to a new one.

use alloc::boxed::Box;
use core::fmt;
use core::hash::{Hash, Hasher};

use crate::name::RefName;
use crate::oid::{ObjectFormat, ObjectId};

/// The value of a ref.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Value {
    /// An object id (a direct ref).
    Direct(Target),
    /// The name of another ref, which need not exist (a symbolic ref).
    Symbolic(RefName),
}

impl Value {
    /// The object id of a direct ref; `None` for a symbolic one.
    #[must_use]
    pub const fn id(&self) -> Option<ObjectId> {
        match self {
            Self::Direct(target) => Some(target.id),
            Self::Symbolic(_) => None,
        }
    }

    pub(crate) const fn target(&self) -> Option<&Target> {
        match self {
            Self::Direct(target) => Some(target),
            Self::Symbolic(_) => None,
        }
    }

    /// The ref that a symbolic ref names; `None` for a direct one.
    #[must_use]
    pub const fn target_name(&self) -> Option<&RefName> {
        match self {
            Self::Direct(_) => None,
            Self::Symbolic(name) => Some(name),
        }
    }

    /// An id without a peeled one is no tag.
    pub(crate) fn know_peel(&mut self) {
        if let Self::Direct(target) = self {
            target.looked_at = LookedAt::Yes;
        }
    }

    /// The value without what is derived from it.
    pub(crate) fn without_peeled(self) -> Self {
        match self {
            Self::Direct(target) => Self::Direct(Target::from(target.id)),
            Self::Symbolic(name) => Self::Symbolic(name),
        }
    }

    /// Whether the value fits a repository of this format.
    pub(crate) fn fits(&self, format: ObjectFormat) -> bool {
        self.id().is_none_or(|id| id.format() == format)
    }
}

impl From<ObjectId> for Value {
    fn from(id: ObjectId) -> Self {
        Self::Direct(Target::from(id))
    }
}

impl From<Target> for Value {
    fn from(target: Target) -> Self {
        Self::Direct(target)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(target) => write!(f, "{}", target.id),
            Self::Symbolic(name) => write!(f, "ref:{name}"),
        }
    }
}

/// The known peel of an object: the object at the end of its chain of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peel {
    /// Unknown: nobody has looked whether the object is an annotated tag. An id that came with a push starts so.
    Unknown,
    /// Not a tag: the object is no annotated tag.
    NotATag,
    /// An annotated tag whose chain ends at this object.
    To(ObjectId),
}

/// An object id and, if known, its peeled id: the object at the end of its chain of annotated tags.
///
/// What an object peels to is derived from it, so it counts neither for equality nor for the checksum. It can be told later:
/// [`Refs::handle_peeled`](crate::Refs::handle_peeled).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "TargetParts", into = "TargetParts"))]
pub struct Target {
    id: ObjectId,
    looked_at: LookedAt,
    /// Boxed: few refs are annotated tags.
    peeled: Option<Box<ObjectId>>,
}

/// Whether the object of an id was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookedAt {
    No,
    Yes,
}

impl Target {
    /// An object that is known to be no annotated tag.
    #[must_use]
    pub const fn not_a_tag(id: ObjectId) -> Self {
        Self { id, looked_at: LookedAt::Yes, peeled: None }
    }

    /// The known peel of the object.
    #[must_use]
    pub fn peel(&self) -> Peel {
        match (&self.peeled, self.looked_at) {
            (Some(id), _) => Peel::To(**id),
            (None, LookedAt::Yes) => Peel::NotATag,
            (None, LookedAt::No) => Peel::Unknown,
        }
    }

    /// An annotated tag and the object that it peels to.
    ///
    /// # Errors
    /// The two ids are of different formats.
    pub fn peeled_to(id: ObjectId, peeled: ObjectId) -> Result<Self, MixedFormats> {
        if id.format() != peeled.format() {
            return Err(MixedFormats);
        }
        Ok(Self { id, looked_at: LookedAt::Yes, peeled: Some(Box::new(peeled)) })
    }

    /// The id of the object.
    #[must_use]
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// The peeled id, if it is known and differs from the id.
    #[must_use]
    pub fn peeled(&self) -> Option<ObjectId> {
        self.peeled.as_deref().copied()
    }

    pub(crate) const fn as_id_bytes(&self) -> &[u8] {
        self.id.as_bytes()
    }
}

impl From<ObjectId> for Target {
    fn from(id: ObjectId) -> Self {
        Self { id, looked_at: LookedAt::No, peeled: None }
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Target {}

impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct TargetParts {
    id: ObjectId,
    peeled: Option<ObjectId>,
    /// Whether an object without a peeled id is known to be no tag.
    #[serde(default)]
    not_a_tag: bool,
}

#[cfg(feature = "serde")]
impl From<Target> for TargetParts {
    fn from(target: Target) -> Self {
        Self { id: target.id, peeled: target.peeled(), not_a_tag: target.peel() == Peel::NotATag }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<TargetParts> for Target {
    type Error = MixedFormats;

    fn try_from(parts: TargetParts) -> Result<Self, MixedFormats> {
        match parts.peeled {
            Some(peeled) => Self::peeled_to(parts.id, peeled),
            None if parts.not_a_tag => Ok(Self::not_a_tag(parts.id)),
            None => Ok(Self::from(parts.id)),
        }
    }
}

/// SHA-1 and SHA-256 ids are mixed in one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SHA-1 and SHA-256 ids cannot be mixed")]
pub struct MixedFormats;

/// The old value of a ref: expected by a command, or remembered by a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Old {
    /// Any value or none: a command expects nothing, a forward-only change remembers nothing.
    Any,
    /// The ref did not exist.
    Absent,
    /// The ref held this value.
    Is(Value),
}

impl Old {
    /// `Absent` for `None`, `Is` for a value.
    #[must_use]
    pub fn known(value: Option<Value>) -> Self {
        value.map_or(Self::Absent, Self::Is)
    }

    /// The old value, if there was one and it is known.
    #[must_use]
    pub const fn value(&self) -> Option<&Value> {
        match self {
            Self::Any | Self::Absent => None,
            Self::Is(value) => Some(value),
        }
    }

    /// Whether a ref whose current value is `current` meets the expectation.
    #[must_use]
    pub fn matches(&self, current: Option<&Value>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Is(value) => current == Some(value),
        }
    }
}

/// A physical change of one ref, from its old value to its new one. Symbolic refs are resolved before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(from = "ChangeParts"))]
pub struct Change {
    name: RefName,
    old: Old,
    new: Option<Value>,
}

impl Change {
    /// A change of `name` from `old` to `new` (`None` deletes).
    ///
    /// A peeled id in `old` is dropped: nothing needs it.
    #[must_use]
    pub fn new(name: RefName, old: Old, new: Option<Value>) -> Self {
        let old = match old {
            Old::Is(value) => Old::Is(value.without_peeled()),
            Old::Any | Old::Absent => old,
        };
        Self { name, old, new }
    }

    /// The name of the ref.
    #[must_use]
    pub const fn name(&self) -> &RefName {
        &self.name
    }

    /// The value before the change.
    #[must_use]
    pub const fn old(&self) -> &Old {
        &self.old
    }

    /// The value after the change; `None` if the ref is deleted.
    #[must_use]
    pub const fn new_value(&self) -> Option<&Value> {
        self.new.as_ref()
    }

    /// A new id without a peeled one is no tag.
    pub(crate) fn know_peel(&mut self) {
        if let Some(value) = &mut self.new {
            value.know_peel();
        }
    }

    /// Whether the change is known to leave the ref as it was.
    #[must_use]
    pub fn is_no_op(&self) -> bool {
        self.old != Old::Any && self.old.matches(self.new.as_ref())
    }
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Change")]
struct ChangeParts {
    name: RefName,
    old: Old,
    new: Option<Value>,
}

#[cfg(feature = "serde")]
impl From<ChangeParts> for Change {
    fn from(ChangeParts { name, old, new }: ChangeParts) -> Self {
        Self::new(name, old, new)
    }
}

//! A Git repository's ref changes: admitted as Git would, logged, compacted, replayed, compared.
#![no_std]

extern crate alloc;

mod admit;
mod change;
mod codec;
mod compact;
mod config;
mod digest;
pub mod git;
mod id;
mod log;
mod name;
mod oid;
mod reconcile;
mod refs;
mod replay;
mod snapshot;
mod transaction;

pub use admit::{Admitted, Reason, Refused, Verdict};
pub use change::{Change, MixedFormats, Old, Target, Value};
pub use codec::error::{DecodeError, DecodeErrorKind};
pub use codec::frame::Records;
pub use compact::{CompactError, Mode, Segment, SegmentError, compact, compact_segments};
pub use config::{Config, ConfigBuilder, ConfigError, DfPolicy, HeadDeletion, RootRefs};
pub use digest::{Checksum, ChecksumKey};
pub use id::{LineageId, Point, Version};
pub use log::{Form, MalformedChanges, Record};
pub use name::{NameError, OneLevel, RefName};
pub use oid::{ObjectFormat, ObjectId, OidError};
pub use reconcile::diff;
pub use refs::{Refs, RefsError};
pub use replay::{ReplayError, Replayed};
pub use snapshot::{RestoreError, Snapshot};
pub use transaction::{Action, Command, Deref, Transaction};

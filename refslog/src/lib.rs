//! A Git repository's ref changes: admitted as Git would, logged, compacted, replayed and compared, without I/O.
//!
//! A replicated Git host has two kinds of data. Objects are immutable and can be copied at leisure. Refs are mutable, and
//! two copies of a repository are consistent if and only if their refs are equal. This crate keeps refs equal: it decides
//! whether a transaction may happen, says as a [`Record`] what it changes, and brings any replica from any version to
//! the newest. It knows refs as data: names, object ids, symbolic refs, transactions. Objects never pass through it.
//!
//! It does **not** read or write files, talk to Git or to other nodes, choose a writer, or order concurrent appends: one
//! writer at a time appends to a log, and the host sees to that (by a lock with a fence, and by compare-and-set on the
//! version). It does not ask whether an object exists, nor whether a branch may move back: those are questions for the
//! host, which has the objects.
//!
//! # Ask, do, tell
//!
//! The host *asks* whether a transaction may happen ([`Refs::admit`], which changes nothing), *does* the append to its
//! store, and *tells* each replica that it happened ([`Refs::apply`]). There are no effects to drain and no clock: each
//! question is a function with an answer. After `cargo add tenon-refslog bytes`, this is a whole program:
//!
//! ```
//! use tenon_refslog::{
//!     ChecksumKey, Command, Config, LineageId, Mode, ObjectFormat, ObjectId, Record, RefName, Refs, Replayed,
//!     Transaction, Value, compact, git,
//! };
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The key is a secret of the host, the same on all replicas.
//!     let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
//!     let mut writer = Refs::new(config.clone(), LineageId(0x5eed));
//!     let mut replica = Refs::new(config, LineageId(0x5eed));
//!     let mut stored: Vec<bytes::Bytes> = Vec::new();
//!
//!     let (main, a) = (RefName::new("refs/heads/main")?, ObjectId::from_hex("a".repeat(40))?);
//!     let first: Transaction = [
//!         Command::create(RefName::new("HEAD")?, Value::Symbolic(main.clone())),
//!         Command::create(main.clone(), a),
//!     ]
//!     .into_iter()
//!     .collect();
//!
//!     // A push brings lines of "old new name"; they make a transaction too.
//!     let push = format!("{} {} refs/heads/main\n", "a".repeat(40), "e".repeat(40));
//!     let second = git::parse_hook_lines(push.as_bytes(), ObjectFormat::Sha1)?;
//!
//!     for transaction in [first, second] {
//!         let admitted = writer.admit(&transaction)?; // ask: Git's verdict, command by command
//!         if let Some(record) = admitted.record() {
//!             stored.push(record.encode()); // do: append it, durably, if nobody else appended this version
//!             assert_eq!(writer.apply(record)?, Replayed::Applied); // tell
//!         }
//!     }
//!
//!     // What does not fit is refused, with a reason per command, and changes nothing.
//!     let late = format!("{} {} refs/heads/main\n", "a".repeat(40), "b".repeat(40));
//!     let refused = writer.admit(&git::parse_hook_lines(late.as_bytes(), ObjectFormat::Sha1)?).unwrap_err();
//!     assert_eq!(refused.reasons().next().unwrap().1.code(), 10); // stale: main is at e…, a… was expected
//!
//!     // A replica reads the records and replays them, one by one or folded into a segment.
//!     let records = stored.iter().map(|row| Record::decode(row)).collect::<Result<Vec<_>, _>>()?;
//!     let segment = compact(replica.point(), Mode::Cover, &records)?;
//!     assert_eq!(segment.changes().len(), 2); // HEAD, and main → e…: its way there is gone
//!     for text in git::write_changes(&replica.pending(&segment)?, ObjectFormat::Sha1) {
//!         assert!(!text.is_empty()); // do: feed each to `git update-ref --stdin -z`
//!     }
//!     assert_eq!(replica.replay(&segment)?, Replayed::Applied);
//!     assert_eq!(replica.point(), writer.point()); // same version, same checksum: equal refs
//!     Ok(())
//! }
//! ```
//!
//! # Keeping a log short, and reading it back
//!
//! [`Log`] holds a snapshot, folded segments and the newest records, and knows which versions replicas and pins still
//! need. Ask [`Log::plan`] what to fold next (within a budget; the numbers in the answer say why), do it
//! ([`Log::fold`], [`Log::absorb`]), make the result durable, and tell ([`Log::handle_folded`],
//! [`Log::handle_absorbed`]); then delete what it replaces. A tombstone goes only when it is merged into the snapshot,
//! and that never passes the *horizon*: the lowest version that a replica or pin within the limits still needs.
//! [`Log::standing`] tells a replica that fell behind the limits to take a snapshot. [`Log::get`] answers what a ref
//! held at an earlier version, or says that it was compacted; [`Log::diff`] says what two versions differ in, each ref
//! with the version that touched it last.
//!
//! A replica that went ahead of the log is taken back ([`Refs::rollback`]); [`Bisection`] finds where two logs part;
//! [`diff`] says what two states differ in, and [`Sketch`] and [`Reconciler`] find that over a wire, at some 32 to 36 bytes
//! a difference, where there is no common log.
//!
//! A record can carry bytes of yours ([`Record::with_payload`]): who, when, by which push. [`Log::undo`] then restores
//! what an actor, a push or a version changed, where no other record has moved the ref since, and lists what it cannot
//! restore. Payloads live as long as their records: [`LogConfigBuilder::retain_versions`] says how many stay as they
//! are; a fold keeps none.
//!
//! A process that starts for one push need not read all refs: [`Tip`] admits over a snapshot and what came after it.
//!
//! # A log behind a `post-receive` hook
//!
//! Where Git has decided before the log is asked, the log must follow, not judge. Git takes `:x main:x/y` in one push, which
//! the rules for one transaction refuse ([`DfPolicy::GitCompat`]); and hooks of two pushes may come in the other order than
//! the pushes. So do not admit the lines of the hook. List what Git holds now ([`git::parse_for_each_ref`]), and ask for the
//! record that leads there ([`Refs::record_to`]), under a lock of your own: whatever order the hooks run in, the last one
//! leaves the log where Git is. A host that asks *before* Git moves refs (in `proc-receive`) admits, with
//! [`DfPolicy::FinalState`] where a push may delete `x` and create `x/y`.
//!
//! # What you must persist, and when
//!
//! | what | when | if it is lost |
//! |---|---|---|
//! | [`Record::encode`] of an admitted transaction | durably, **before** [`Refs::apply`] and before anyone is told that the push is accepted; only if no record of that version exists (compare-and-set) | the push never happened |
//! | [`Refs::snapshot`] | whenever replay from the last one takes too long | replay from an older one |
//! | a compacted [`Segment`] | before the records that it covers are deleted | keep the records |
//! | [`Log::fold`]'s and [`Log::absorb`]'s results | before [`Log::handle_folded`], [`Log::handle_absorbed`] | plan again |
//! | [`Log::pins`] and [`Log::replicas`] | when they change, before the caller is answered; told again when the log is read back, **before** it is compacted | what they held may be folded or absorbed |
//! | lineage and [`ChecksumKey`] | when the repository is created | start a new lineage; every replica resynchronises |
//!
//! A write whose outcome is unknown is no failure: read the log back, and apply what is there. The feature `testkit` brings
//! a kit that tortures your own store (lost replies, repeated appends, crashes, torn writes, stale snapshots) and checks
//! that replicas converge.
//!
//! # What holds
//!
//! - *Git's verdicts.* Real `git update-ref`, on its `files` and `reftable` backends, is the oracle of the tests. Stricter
//!   by default: root refs other than `HEAD`, worktrees' refs, the deletion of `HEAD`, a `HEAD` that names nothing below
//!   `refs/`, names too long for Git to lock, and chains of symbolic refs that Git could not read are refused, whether they
//!   are named directly, reached through a symbolic ref, or pointed to ([`ConfigBuilder`] says which of these can be had). Where a command with an old value acts
//!   on a symbolic ref itself, Git's backends differ, and its default, `files`, is followed: [`Refs::READ_DEPTH`] counts
//!   from the ref's target on, in `reftable` from the ref. So a command with an old value on the first
//!   of exactly five symbolic refs in a chain is admitted here and by `files`, and refused by `reftable`. What Git refuses
//!   only because `HEAD`'s reflog would note the change too (a symbolic old value of the branch that `HEAD` names) is admitted.
//! - *A refusal changes nothing*, and neither does an error: the result of a replay is checked before the first ref moves.
//! - *Late and repeated records are ordinary*: they are [`Replayed::AlreadyApplied`].
//! - *Cover is valid anywhere within it* ([`Mode::Cover`]): a replica between base and end may replay it. An exact segment
//!   is smaller and refused anywhere but at its base.
//! - *How a stretch is cut does not show*: composition is associative, and equal values have equal bytes (where the same is
//!   known of peeled ids, which count for no equality).
//! - *What was accepted stays*: a pin holds its version against folds that were begun before it, and the versions that
//!   [`LogConfigBuilder::retain_versions`] names can be read one by one.
//! - *Damage is found*: every frame and block has a CRC32C, every version a keyed checksum of all refs.
//! - *Hostile bytes are refused* with an offset, without a panic, and without setting memory aside on their word.
#![cfg_attr(docsrs, feature(doc_cfg))]
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
mod plan;
mod reconcile;
mod record;
mod refs;
mod replay;
mod sketch;
mod snapshot;
mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
mod tip;
mod transaction;
mod verdict;

pub use change::{Change, MixedFormats, Old, Peel, Target, Value};
pub use codec::error::{DecodeError, DecodeErrorKind};
pub use codec::frame::Records;
pub use compact::{CompactError, Mode, Segment, SegmentError, compact, compact_segments};
pub use config::{Config, ConfigBuilder, ConfigError, DfPolicy, HeadDeletion, RootRefs};
pub use digest::{Checksum, ChecksumKey};
pub use id::{LineageId, Point, Version};
pub use log::{
    Absorbed, Folded, Kept, KeptReason, Log, LogConfig, LogConfigBuilder, LogConfigError, LogError, Piece, PinId,
    ReplicaId, Standing, Taken, Touched, Undo,
};
pub use name::{NameError, OneLevel, RefName};
pub use oid::{ObjectFormat, ObjectId, OidError};
pub use plan::{Extent, PieceKind, Plan, Stretch};
pub use reconcile::{Agreement, Bisection, diff};
pub use record::{Form, MalformedChanges, PayloadTooLong, Record};
pub use refs::{Refs, RefsError};
pub use replay::{ReplayError, Replayed};
pub use sketch::{Cell, Difference, EntryId, Reconciler, Sketch, SketchError};
pub use snapshot::{InstallError, MergeError, RestoreError, Snapshot, ValueRef};
pub use tip::{AdmitError, Tip};
pub use transaction::{Action, Command, Deref, Transaction};
pub use verdict::{Admitted, Reason, Refused, Verdict};

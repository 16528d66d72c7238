//! What the router and the nodes say to each other: header names, bodies, and the two small binary formats.
//!
//! All of it is HTTP on the cluster's own network with `authorization: Bearer TOKEN`. Small values travel as JSON in one header
//! ([`to_header`]), so that bodies stay what they are: Git's bytes, or a record of the refs log.

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderValue};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenon_quorum::{Digest, Epoch, Grant, Incarnation, NodeId, Proof, RepoId, Report, Row};
use tenon_refslog::{LineageId, ObjectId};

use crate::git::objects::PackKind;

/// On a `POST git-receive-pack` that is a push: a [`WriteOrder`].
pub(crate) const GRANT: &str = "x-forge-grant";
/// On a routed read (`info/refs`, `git-upload-pack`): the [`Route`](tenon_quorum::Route).
pub(crate) const ROUTE: &str = "x-forge-route";
/// On what the router orders: the life of the node's disk that it is for.
pub(crate) const LIFE: &str = "x-forge-life";
/// Where the body is bytes, the question itself: on `objects` and `apply` a [`Proof`], on `stage` a
/// [`StageOrder`](tenon_quorum::StageOrder), on `propose` a [`Propose`].
pub(crate) const ASK: &str = "x-forge-ask";

/// The lineage of a repository's refs log: another one for every epoch, so that a history that was given up is never mixed in.
pub(crate) fn lineage(repo: RepoId, epoch: Epoch) -> LineageId {
    LineageId(repo.0 << 32 | u64::from(epoch.0))
}

/// Puts a value into a header.
pub(crate) fn to_header(value: &impl Serialize) -> HeaderValue {
    let text = serde_json::to_string(value).unwrap_or_default();
    // JSON may hold any character; a header may not.
    let mut ascii = String::with_capacity(text.len());
    for unit in text.chars() {
        if unit.is_ascii() {
            ascii.push(unit);
        } else {
            let mut units = [0; 2];
            for half in unit.encode_utf16(&mut units) {
                // Writing to a string cannot fail.
                let _ = write!(ascii, "\\u{half:04x}");
            }
        }
    }
    HeaderValue::from_str(&ascii).unwrap_or_else(|_| HeaderValue::from_static("null"))
}

/// Takes a value out of a header; `None` when it is absent or malformed.
pub(crate) fn from_header<T: DeserializeOwned>(headers: &HeaderMap, name: &str) -> Option<T> {
    serde_json::from_slice(headers.get(name)?.as_bytes()).ok()
}

/// The answer of a node to `GET /repos/{id}/file?object=&path=`, a routed read: one file of what an object peels to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileView {
    /// The commit; absent if the object is none and leads to none.
    pub(crate) commit: Option<String>,
    /// The first line of its message.
    pub(crate) subject: String,
    /// The file; absent if it is not there.
    pub(crate) file: Option<FileText>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileText {
    Text(String),
    /// Larger than asked for.
    TooLarge,
    /// No UTF-8, or no file.
    NotText,
}

/// `POST /internal/register` on the router: a node says where it listens. Repeated until it is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Register {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// `http://HOST:PORT`, without a slash at the end.
    pub(crate) url: String,
}

/// The answer to [`Register`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Registered {
    /// The key of the checksums of all refs logs: one for the cluster.
    pub(crate) checksum_key: [u8; 32],
}

/// A node and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) url: String,
}

/// In [`GRANT`]: the right to write once, as the router got it from `tenon-quorum`, and where the other members listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WriteOrder {
    pub(crate) grant: Grant,
    /// All members but the writer: they get the objects.
    pub(crate) peers: Vec<Peer>,
    /// W, the writer included: as many voters must hold the objects before the refs are proposed.
    pub(crate) need: usize,
}

/// `POST /internal/writes/{write}/propose` on the router, in [`ASK`]; the body is the record's frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Propose {
    /// What the grant said.
    pub(crate) base: Proof,
    /// The digest of the refs after the record.
    pub(crate) after: Digest,
}

/// The answer to [`Propose`]. The same question again gets the same answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(crate) enum Proposed {
    /// The row moved, and shows this.
    Applied { proof: Proof },
    /// It did not, and never will.
    NotApplied { reason: String },
    /// Nobody can say yet; the repository finds out by itself.
    Unknown { reason: String },
}

/// `POST /repos/{id}/sync` on a node: become exactly what `row` shows. The answer is a [`Report`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SyncAsk {
    pub(crate) row: Row,
    /// Who has it; `None` starts the repository empty.
    pub(crate) source: Option<Peer>,
}

/// The body of a node's 409: it refuses, and says how it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    pub(crate) report: Option<Report>,
}

/// `GET /repos/{id}/refs` on a node, for inspection: what is in the repository, apart from what its gate says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefsView {
    pub(crate) report: Report,
    /// The digest of the refs that Git lists now, in hexadecimal digits.
    pub(crate) digest: String,
    /// What `git for-each-ref` lists, and `HEAD`, one per line.
    pub(crate) refs: String,
}

/// `GET /health` on a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) repositories: usize,
}

/// A piece of a repository's log, as `GET /internal/repos/{id}/log?from=V` answers: optionally a snapshot, then segments and records
/// that lead from version V (or the snapshot's) to the newest the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogPart {
    Snapshot(Bytes),
    Segment(Bytes),
    Record(Bytes),
}

impl LogPart {
    /// Appends the part: a kind byte, a length in four bytes (big-endian), the bytes.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        let (kind, bytes) = match self {
            LogPart::Snapshot(bytes) => (b'S', bytes),
            LogPart::Segment(bytes) => (b'C', bytes),
            LogPart::Record(bytes) => (b'R', bytes),
        };
        out.put_u8(kind);
        out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        out.put_slice(bytes);
    }

    /// Takes all parts of an answer; `None` when it is malformed.
    pub(crate) fn all(mut from: Bytes) -> Option<Vec<LogPart>> {
        let mut parts = Vec::new();
        while !from.is_empty() {
            if from.len() < 5 {
                return None;
            }
            let kind = from.get_u8();
            let length = usize::try_from(from.get_u32()).ok()?;
            if from.len() < length {
                return None;
            }
            let bytes = from.split_to(length);
            parts.push(match kind {
                b'S' => LogPart::Snapshot(bytes),
                b'C' => LogPart::Segment(bytes),
                b'R' => LogPart::Record(bytes),
                _ => return None,
            });
        }
        Some(parts)
    }
}

/// What a pack is to make reachable: it leads the body of `POST /repos/{id}/objects`, and then comes the pack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shipment {
    /// The ids, in hexadecimal digits.
    pub(crate) tips: Vec<String>,
    pub(crate) kind: PackKind,
}

impl Shipment {
    /// The ids as such.
    pub(crate) fn ids(&self) -> Option<Vec<ObjectId>> {
        self.tips.iter().map(|hex| ObjectId::from_hex(hex).ok()).collect()
    }

    /// The start of the body: the length of the JSON in four bytes (big-endian), then the JSON.
    pub(crate) fn lead(&self) -> Bytes {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut lead = BytesMut::with_capacity(4 + json.len());
        lead.put_u32(u32::try_from(json.len()).unwrap_or(u32::MAX));
        lead.put_slice(&json);
        lead.freeze()
    }
}

//! What the router and the nodes say to each other: header names, bodies, and the two small binary formats.
//!
//! All of it is HTTP on the cluster's own network with `authorization: Bearer TOKEN`. Small values travel as JSON in one header
//! ([`to_header`]), so that bodies stay what they are: Git's bytes, or a record of the refs log.

pub(crate) mod browse;

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderValue};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenon_quorum::{Boot, Digest, Epoch, Grant, Incarnation, NodeId, Proof, RepoId, Report, Row};
use tenon_refslog::{LineageId, ObjectId};

/// On `POST /repos/{id}/push`: a [`WriteOrder`]; the body is the pkt-lines of the push's commands.
pub(crate) const GRANT: &str = "x-forge-grant";
/// On a routed read (`info/refs`, `git-upload-pack`): the [`Route`](tenon_quorum::Route).
pub(crate) const ROUTE: &str = "x-forge-route";
/// On a routed `git-upload-pack`: ids that may be had though no ref reaches them any more, as those of open pipelines.
pub(crate) const ALSO: &str = "x-forge-also";
/// On what the router orders: the life of the node's disk that it is for.
pub(crate) const LIFE: &str = "x-forge-life";
/// Where the body is bytes, the question itself: on `apply` a [`Row`], on `stage` a
/// [`StageOrder`](tenon_quorum::StageOrder), on `propose` a [`Propose`].
pub(crate) const ASK: &str = "x-forge-ask";
/// On `stage` and `apply`: the [`ParcelId`] of the parcel that holds the record's objects, if they came in one.
pub(crate) const PARCEL: &str = "x-forge-parcel";

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
    /// Whether its message says that no pipeline is wanted.
    #[serde(default)]
    pub(crate) skip_ci: bool,
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
    /// The life of its disk; none, if it is empty.
    pub(crate) incarnation: Option<Incarnation>,
    /// The last start that is on its disk.
    pub(crate) boot: Boot,
    /// `http://HOST:PORT`, without a slash at the end.
    pub(crate) url: String,
}

/// The answer to [`Register`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Registered {
    /// The key of the checksums of all refs logs: one for the cluster.
    pub(crate) checksum_key: [u8; 32],
    pub(crate) begin: Begin,
}

/// What a node that starts does next. But for the last, it asks again then.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Begin {
    /// Its empty disk gets this number.
    Life(Incarnation),
    /// It writes this start down, and whether its disk is an older copy of itself.
    Boot { boot: Boot, rewound: bool },
    /// It serves.
    Ready,
}

/// `POST /repos/{id}/cure` on a node whose disk went back in time. The answer is a [`Report`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CureAsk {
    pub(crate) row: Row,
    pub(crate) boot: Boot,
    pub(crate) serial: u64,
}

/// A node and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) url: String,
}

/// The name of a parcel, which holds the objects of one push until the push is decided. Nodes name a folder by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ParcelId(String);

/// Why a text names no parcel.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a parcel's name is 32 hexadecimal digits")]
pub(crate) struct NoParcelId;

impl ParcelId {
    /// A name that no other parcel has.
    pub(crate) fn random() -> anyhow::Result<ParcelId> {
        Ok(ParcelId(crate::home::hex(&crate::home::random_bytes()?[..16])))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ParcelId {
    type Error = NoParcelId;

    fn try_from(text: String) -> Result<ParcelId, NoParcelId> {
        let fits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fits { Ok(ParcelId(text)) } else { Err(NoParcelId) }
    }
}

impl From<ParcelId> for String {
    fn from(id: ParcelId) -> String {
        id.0
    }
}

impl std::fmt::Display for ParcelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// In [`GRANT`]: the right to write once, as the router got it from `tenon-quorum`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WriteOrder {
    pub(crate) grant: Grant,
    /// Where the objects of the push are, if it brought any.
    pub(crate) parcel: Option<ParcelId>,
    /// Branches, as full names, that may be neither deleted nor moved to what does not contain them.
    pub(crate) protected: Vec<String>,
    /// So many refs may change.
    pub(crate) most_refs: usize,
}

/// The answer to a push.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PushAnswer {
    /// For each command, in order, why it was refused; `None` is `ok`.
    pub(crate) verdicts: Vec<Option<String>>,
    /// The branch that `HEAD` is to name from now on: the push has deleted the one that it named.
    pub(crate) head: Option<String>,
}

/// `POST /repos/{id}/parcels/{parcel}/forward` on a node that holds a parcel: send all that its tips need to a node that lags.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Forward {
    pub(crate) to: Peer,
    /// The ids, in hexadecimal digits.
    pub(crate) tips: Vec<String>,
}

/// `POST /internal/writes/{write}/propose` on the router, in [`ASK`]; the body is the record's frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Propose {
    /// What the grant said.
    pub(crate) base: Proof,
    /// The digest of the refs after the record.
    pub(crate) after: Digest,
    /// Where the objects of the record are, if they came with it.
    pub(crate) parcel: Option<ParcelId>,
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

/// What a pack is to make reachable: it leads the body of `POST /repos/{id}/parcels/{parcel}`, and then comes the pack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shipment {
    /// The ids, in hexadecimal digits.
    pub(crate) tips: Vec<String>,
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

//! `pre-receive`: the objects of a push go to the other members, before any ref is touched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use tenon_quorum::Role;
use tenon_refslog::{ObjectId, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _};
use tokio::sync::OnceCell;
use tokio_util::io::ReaderStream;

use super::drill::Point;
use super::hook::Call;
use super::push::Push;
use crate::git::objects::{self, ObjectFolders, PackKind};
use crate::wire::{self, Peer, Shipment};

/// How long the other members are waited for once enough have the objects.
const GRACE: Duration = Duration::from_secs(2);

/// Answers the hook: success once W voters, this one included, hold the objects durably.
pub(crate) async fn answer(push: &Arc<Push>, mut call: Call) {
    let code = match ship(push, &mut call).await {
        Ok(()) => 0,
        Err(reason) => {
            let _ = call.say(&format!("forge: {reason}")).await;
            1
        }
    };
    let _ = call.exit(code).await;
}

async fn ship(push: &Arc<Push>, call: &mut Call) -> Result<(), String> {
    let new = new_ids(push, call).await?;
    push.shared.drills.at(Point::PreReceive).await;
    if new.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<ObjectId> =
        push.replica.state().await.refs.iter().filter_map(|(_, value)| Value::id(&value)).collect();
    let known: Vec<ObjectId> = known.into_iter().collect();
    let cargo = Arc::new(Cargo {
        push: Arc::clone(push),
        folders: call.folders.clone(),
        new,
        known,
        thin: OnceCell::new(),
        full: OnceCell::new(),
    });
    // Packed before anybody is asked: whatever is wrong with the objects is then known by its right name.
    cargo.pack(PackKind::Thin).await?;
    deliver(push, &cargo).await
}

/// Reads the hook's lines; the ids that the refs are to get, each once.
async fn new_ids(push: &Push, call: &mut Call) -> Result<Vec<ObjectId>, String> {
    let most = push.shared.limits.max_refs_per_push;
    let mut new = BTreeSet::new();
    let mut lines = 0;
    loop {
        let mut line = Vec::new();
        let read = (&mut call.input).take(1 << 17).read_until(b'\n', &mut line).await;
        if read.map_err(|error| error.to_string())? == 0 {
            return Ok(new.into_iter().collect());
        }
        lines += 1;
        if lines > most {
            return Err(format!("more than {most} refs in one push; push fewer at a time"));
        }
        let mut words = line.trim_ascii_end().splitn(3, |byte| *byte == b' ').skip(1);
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err("Git's list of refs cannot be read".into());
        };
        if !name.starts_with(b"refs/") {
            return Err(format!("{} is not below refs/", String::from_utf8_lossy(name)));
        }
        let id = ObjectId::from_hex_or_null(id).map_err(|error| error.to_string())?;
        new.extend(id);
    }
}

/// What is to be sent, packed at most once each way.
#[derive(Debug)]
struct Cargo {
    push: Arc<Push>,
    folders: ObjectFolders,
    new: Vec<ObjectId>,
    known: Vec<ObjectId>,
    thin: OnceCell<tempfile::TempPath>,
    full: OnceCell<tempfile::TempPath>,
}

impl Cargo {
    async fn pack(&self, kind: PackKind) -> Result<&tempfile::TempPath, String> {
        let cell = match kind {
            PackKind::Thin => &self.thin,
            PackKind::Full => &self.full,
        };
        let make = async || {
            let shared = &self.push.shared;
            let file = tempfile::NamedTempFile::new_in(shared.spool_folder()).map_err(|error| error.to_string())?;
            let (file, path) = file.into_parts();
            let what = (self.new.as_slice(), self.known.as_slice(), kind);
            objects::pack(&shared.git, &self.push.replica.folder, &self.folders, what, file)
                .await
                .map_err(|error| error.to_string())?;
            Ok(path)
        };
        cell.get_or_try_init(make).await
    }

    /// Sends the objects to one member: the thin pack, or all of them if it lags too far behind for that.
    async fn send(&self, peer: &Peer) -> Result<(), String> {
        match self.post(peer, PackKind::Thin).await? {
            Received::Yes => Ok(()),
            Received::No(reason) => Err(reason),
            Received::NeedsFull => match self.post(peer, PackKind::Full).await? {
                Received::Yes => Ok(()),
                Received::NeedsFull => Err("it could not use a full pack either".into()),
                Received::No(reason) => Err(reason),
            },
        }
    }

    async fn post(&self, peer: &Peer, kind: PackKind) -> Result<Received, String> {
        let shared = &self.push.shared;
        let file = tokio::fs::File::open(self.pack(kind).await?).await.map_err(|error| error.to_string())?;
        let lead = Shipment { tips: self.new.iter().map(ObjectId::to_hex).collect(), kind }.lead();
        let body = stream::iter([Ok::<Bytes, std::io::Error>(lead)]).chain(ReaderStream::with_capacity(file, 64 << 10));
        let answer = shared
            .http
            .post(format!("{}/repos/{}/objects", peer.url, self.push.replica.id.0))
            .bearer_auth(&shared.token)
            .header(wire::ASK, wire::to_header(&self.push.order.grant.base))
            .body(reqwest::Body::wrap_stream(body))
            .send()
            .await
            .map_err(without_url)?;
        match answer.status() {
            StatusCode::OK => Ok(Received::Yes),
            StatusCode::PRECONDITION_FAILED => Ok(Received::NeedsFull),
            status => Ok(Received::No(format!("{status}: {}", answer.text().await.unwrap_or_default()))),
        }
    }
}

enum Received {
    Yes,
    NeedsFull,
    No(String),
}

/// An error's chain in one line, without the address: users see it.
pub(crate) fn without_url(error: reqwest::Error) -> String {
    use std::error::Error as _;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Sends to all members at once, until enough voters hold the objects and the others have had their chance.
async fn deliver(push: &Arc<Push>, cargo: &Arc<Cargo>) -> Result<(), String> {
    let need = push.order.need;
    let voters: BTreeSet<_> = push
        .order
        .grant
        .base
        .members
        .iter()
        .filter(|member| member.role == Role::Voter)
        .map(|member| member.node)
        .collect();
    let mut sent: FuturesUnordered<_> = push
        .order
        .peers
        .iter()
        .cloned()
        .map(|peer| {
            let cargo = Arc::clone(cargo);
            // On its own: who is not waited for still gets the objects.
            let task = tokio::spawn(async move {
                let result = cargo.send(&peer).await;
                (peer.node, result)
            });
            async move { task.await.map_err(|error| error.to_string()) }
        })
        .collect();
    let mut hold = 1;
    let mut open: BTreeSet<_> = voters.iter().copied().filter(|node| *node != push.shared.node).collect();
    let mut reasons = Vec::new();
    while hold < need && hold + open.len() >= need {
        let Some(done) = sent.next().await else { break };
        let (node, result) = done?;
        let counts = open.remove(&node);
        match result {
            Ok(()) if counts => hold += 1,
            Ok(()) => {}
            Err(reason) => {
                tracing::warn!(repo = %push.replica.id, %node, reason, "objects were not taken");
                reasons.push(format!("{node}: {reason}"));
            }
        }
    }
    if hold < need {
        return Err(format!(
            "no quorum: {hold} of {need} needed copies of the objects are durable ({}); try again later",
            reasons.join("; ")
        ));
    }
    let grace = if push.shared.suspects(&open) { Duration::from_millis(50) } else { GRACE };
    let rest = async {
        while let Some(done) = sent.next().await {
            if let Ok((node, result)) = done {
                open.remove(&node);
                if let Err(reason) = result {
                    tracing::warn!(repo = %push.replica.id, %node, reason, "objects were not taken");
                }
            }
        }
    };
    let late = tokio::time::timeout(grace, rest).await.is_err();
    push.shared.suspect(if late { open } else { BTreeSet::new() });
    Ok(())
}

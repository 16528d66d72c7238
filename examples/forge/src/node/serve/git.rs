//! The services of Git itself: the advertisement, a fetch's exchange, a push's commands.

use std::io::Read as _;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tenon_quorum::{Proof, Route, Stamp};
use tenon_refslog::ObjectId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Answer, Failure, explained, with};
use crate::git::{advertise, pkt, repository};
use crate::node::push::{Line, Push};
use crate::node::replica::{Replica, ReplicaError};
use crate::node::{Shared, wants};
use crate::wire::{self, WriteOrder};

/// The most a request of `upload-pack` may have, packed and unpacked: wants, haves and shallow lines, no objects.
const NEGOTIATION_LIMIT: usize = 64 << 20;

#[derive(Debug, Deserialize)]
pub(super) struct Service {
    service: String,
}

/// The advertisement that begins every fetch and push.
pub(super) async fn info_refs(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    Query(Service { service }): Query<Service>,
    headers: HeaderMap,
) -> Response {
    let what = match service.as_str() {
        "git-upload-pack" => "upload-pack",
        "git-receive-pack" => "receive-pack",
        _ => return (StatusCode::FORBIDDEN, "only git-upload-pack and git-receive-pack are served\n").into_response(),
    };
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        admit(&replica, &headers).await?;
        if what == "receive-pack" {
            let refs = replica.state().await.refs.clone();
            return Ok(git_response(&service, "advertisement", Body::from(advertise::for_push(Some(&refs)))));
        }
        let mut invocation = this.git.within(&replica.folder, what);
        if let Some(protocol) = protocol(&headers) {
            invocation.env("GIT_PROTOCOL", protocol);
        }
        let listed = replica.refs_lock.read().await;
        let output = invocation.args(["--stateless-rpc", "--advertise-refs", "."]).run(&[]).await?;
        drop(listed);
        let mut body = Vec::with_capacity(output.stdout.len() + 64);
        // In the second version of the protocol nothing leads the advertisement.
        if !output.stdout.starts_with(b"000eversion 2\n") {
            crate::git::pkt::put(&mut body, format!("# service={service}\n").as_bytes());
            crate::git::pkt::flush(&mut body);
        }
        body.extend_from_slice(&output.stdout);
        Ok(git_response(&service, "advertisement", Body::from(body)))
    })
    .await
}

/// A routed read passes the gate. A repair's fetch, which carries a proof instead, needs none: its target checks what it got.
pub(super) async fn admit(replica: &Replica, headers: &HeaderMap) -> Result<(), ReplicaError> {
    repository::settle_config(&replica.folder)?;
    match wire::from_header::<Route>(headers, wire::ROUTE) {
        Some(route) => replica.admit(&route).await,
        None if wire::from_header::<Proof>(headers, wire::ASK).is_some() => {
            if replica.state().await.gate.applied() == Stamp::BLANK {
                return Err(ReplicaError::Refused("nothing is here to copy".into()));
            }
            Ok(())
        }
        None => Err(ReplicaError::Refused(format!("{} is missing", wire::ROUTE))),
    }
}

/// The protocol that the client asks for, if it is one.
fn protocol(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("git-protocol")?.to_str().ok()?;
    let fit = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=:-._".contains(&byte));
    fit.then(|| text.to_owned())
}

fn git_response(service: &str, kind: &str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, format!("application/x-{service}-{kind}")),
        (header::CACHE_CONTROL, "no-cache, max-age=0, must-revalidate".to_owned()),
    ];
    (headers, body).into_response()
}

/// A clone's or fetch's exchange.
pub(super) async fn upload_pack(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let request = match negotiation(&headers, body).await {
        Ok(request) => request,
        Err(failure) => return explained(Err(failure)).await,
    };
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        admit(&replica, &headers).await?;
        let mut invocation = this.git.within(&replica.folder, "upload-pack");
        if let Some(protocol) = protocol(&headers) {
            invocation.env("GIT_PROTOCOL", protocol);
        }
        invocation.args(["--stateless-rpc", "."]);
        // Another node's repair may have all that is here; users may have what the refs reach.
        if headers.contains_key(wire::ROUTE) {
            let also = wire::from_header::<Vec<String>>(&headers, wire::ALSO).unwrap_or_default();
            let also: Vec<ObjectId> = also.iter().filter_map(|id| ObjectId::from_hex(id).ok()).collect();
            if let Some(id) = wants::out_of_reach(&this, &replica, &request, &also).await? {
                let mut refusal = Vec::new();
                pkt::put(&mut refusal, format!("ERR upload-pack: not our ref {}", id.to_hex()).as_bytes());
                return Ok(git_response("git-upload-pack", "result", Body::from(refusal)));
            }
        }
        let fetching = replica.fetches.begin();
        // A listing sees refs at one moment; a fetch reads objects, which do not change.
        if request.starts_with(b"0014command=ls-refs") {
            let listed = replica.refs_lock.read().await;
            let output = invocation.run(&request).await?;
            drop(listed);
            return Ok(git_response("git-upload-pack", "result", Body::from(output.stdout)));
        }
        let running = invocation.spawn()?;
        let (to, mut from) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(8);
        tokio::spawn(async move {
            stream_out(running, request, to).await;
            drop(fetching);
        });
        let blocks = stream::poll_fn(move |context| from.poll_recv(context));
        Ok(git_response("git-upload-pack", "result", Body::from_stream(blocks)))
    })
    .await
}

/// Runs an `upload-pack` for one client; it ends with the client, and a failing one breaks the client's connection.
async fn stream_out(
    mut running: crate::git::Running,
    request: Bytes,
    to: tokio::sync::mpsc::Sender<std::io::Result<Bytes>>,
) {
    let limit = running.limit();
    let work = async {
        let (stdin, stdout) = (running.stdin.take(), running.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(&request).await;
            }
        };
        let read = async {
            let Some(mut stdout) = stdout else { return Ok(()) };
            let mut block = vec![0; 64 << 10];
            loop {
                let count = stdout.read(&mut block).await?;
                if count == 0 || to.send(Ok(Bytes::copy_from_slice(&block[..count]))).await.is_err() {
                    return std::io::Result::Ok(());
                }
            }
        };
        let ((), read) = tokio::join!(write, read);
        read.map_err(|error| running.io(error))?;
        running.succeed().await
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(limit, work) => ended,
        () = to.closed() => return,
    };
    let broken = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("took longer than {} s", limit.as_secs()),
    };
    tracing::info!(broken, "an upload-pack broke off");
    let _ = to.send(Err(std::io::Error::other(broken))).await;
}

/// The client's request, unpacked if it is packed.
async fn negotiation(headers: &HeaderMap, body: Body) -> Answer<Bytes> {
    let body = axum::body::to_bytes(body, NEGOTIATION_LIMIT).await.map_err(|error| Failure::bad(error.to_string()))?;
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(body),
        Some(b"gzip" | b"x-gzip") => {
            let mut plain = Vec::new();
            let limit = u64::try_from(NEGOTIATION_LIMIT).unwrap_or(u64::MAX);
            let read = flate2::read::GzDecoder::new(body.as_ref()).take(limit + 1).read_to_end(&mut plain);
            match read {
                Ok(count) if count <= NEGOTIATION_LIMIT => Ok(plain.into()),
                Ok(_) => Err(Failure::Plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large unpacked".into())),
                Err(error) => Err(Failure::bad(format!("gzip: {error}"))),
            }
        }
        Some(other) => Err(Failure::Plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content-encoding {} is not understood", String::from_utf8_lossy(other)),
        )),
    }
}

/// A push under its grant: its commands as pkt-lines, its objects in a parcel that came before.
pub(super) async fn push(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(order) = wire::from_header::<WriteOrder>(&headers, wire::GRANT) else {
        return explained(Err(Failure::bad("a push needs a grant"))).await;
    };
    let most = order.most_refs.saturating_add(1);
    let lines = match pkt::section(&mut &body[..], most).await {
        Ok(lines) => lines.iter().map(|line| Line::parse(line)).collect::<Option<Vec<_>>>(),
        Err(_) => None,
    };
    let Some(lines) = lines else {
        return explained(Err(Failure::bad("the commands cannot be read"))).await;
    };
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        repository::settle_config(&replica.folder)?;
        let push = Push { shared: this, replica, order };
        Ok(Json(push.decide(lines).await?).into_response())
    })
    .await
}

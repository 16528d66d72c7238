//! Parcels: taken in from the router or from another node, forwarded, removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use tokio_util::io::ReaderStream;

use super::git::admit;
use super::{Failure, explained, with};
use crate::git::objects::{self, ObjectFolders, Strictness, TakeInError};
use crate::node::Shared;
use crate::node::drill::Point;
use crate::node::push::without_url;
use crate::node::replica::{Replica, ReplicaError};
use crate::wire::{Forward, ParcelId, Shipment};

/// The most that leads a pack: the names of its tips.
const SHIPMENT_LIMIT: usize = 64 << 20;

/// Takes the objects of a push in: 200 once they are durable; 412 if they lean on objects that are not here; 422 if they are bad.
pub(super) async fn take(
    State(shared): State<Arc<Shared>>,
    Path((id, parcel)): Path<(u64, String)>,
    body: Body,
) -> Response {
    let Ok(parcel) = ParcelId::try_from(parcel) else {
        return explained(Err(Failure::bad("no parcel's name"))).await;
    };
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        replica.make().await?;
        this.drills.at(Point::InParcel).await;
        let mut blocks = body.into_data_stream();
        let Some((shipment, rest)) = lead(&mut blocks).await else {
            return Err(ReplicaError::Refused("what leads the pack cannot be read".into()));
        };
        let tips = shipment.ids().ok_or_else(|| ReplicaError::Refused("a tip is no object id".into()))?;
        let Some(arrival) = replica.parcels.begin(&parcel) else {
            return Err(ReplicaError::Refused("too many pushes at once, or this one came twice".into()));
        };
        let sweeps = replica.sweeps.load(Ordering::SeqCst);
        let strictness = if this.limits.strict_objects { Strictness::Full } else { Strictness::Usual };
        let folder = replica.parcels.folder(&parcel);
        let pack = stream::iter([Ok(rest)]).chain(blocks);
        let what = (folder.as_path(), tips.as_slice(), strictness);
        let (status, said) = match objects::take_in(&this.git, &replica.folder, what, Box::pin(pack)).await {
            Ok(()) => {
                arrival.complete(tips, sweeps)?;
                return Ok(StatusCode::OK.into_response());
            }
            Err(TakeInError::Bad(said)) => (StatusCode::UNPROCESSABLE_ENTITY, said),
            Err(TakeInError::Incomplete(said)) => (StatusCode::PRECONDITION_FAILED, said),
            Err(TakeInError::Git(error)) => return Err(error.into()),
        };
        tracing::info!(repo = id, said, "a parcel is not taken");
        Ok((status, said).into_response())
    })
    .await
}

/// Whether a parcel is here; one that is coming in is waited for.
pub(super) async fn holds(State(shared): State<Arc<Shared>>, Path((id, parcel)): Path<(u64, String)>) -> Response {
    let Ok(parcel) = ParcelId::try_from(parcel) else {
        return explained(Err(Failure::bad("no parcel's name"))).await;
    };
    with(shared, id, async move |replica| {
        replica.parcels.arrived(&parcel).await;
        let there = replica.parcels.folder(&parcel).is_dir();
        Ok(if there { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response())
    })
    .await
}

/// A push is decided: its parcel goes, unless a vote is open that needs it.
pub(super) async fn remove(State(shared): State<Arc<Shared>>, Path((id, parcel)): Path<(u64, String)>) -> Response {
    let Ok(parcel) = ParcelId::try_from(parcel) else {
        return explained(Err(Failure::bad("no parcel's name"))).await;
    };
    with(shared, id, async move |replica| {
        let state = replica.state().await;
        if state.parcel() != Some(&parcel) {
            replica.parcels.remove(&parcel)?;
        }
        Ok(StatusCode::OK.into_response())
    })
    .await
}

/// Sends all that the tips of a parcel need to a node that lags too far behind to use the parcel as the client made it.
pub(super) async fn forward(
    State(shared): State<Arc<Shared>>,
    Path((id, parcel)): Path<(u64, String)>,
    Json(ask): Json<Forward>,
) -> Response {
    let Ok(parcel) = ParcelId::try_from(parcel) else {
        return explained(Err(Failure::bad("no parcel's name"))).await;
    };
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| send(&this, &replica, &parcel, ask).await).await
}

async fn send(shared: &Shared, replica: &Replica, parcel: &ParcelId, ask: Forward) -> Result<Response, ReplicaError> {
    let shipment = Shipment { tips: ask.tips };
    let tips = shipment.ids().ok_or_else(|| ReplicaError::Refused("a tip is no object id".into()))?;
    let (file, path) = tempfile::NamedTempFile::new_in(shared.spool_folder())?.into_parts();
    let folders = replica.folders(Some(parcel));
    objects::pack(&shared.git, &replica.folder, &folders, &tips, file).await?;
    let pack = tokio::fs::File::open(&path).await?;
    let lead = stream::iter([Ok::<Bytes, std::io::Error>(shipment.lead())]);
    let body = lead.chain(ReaderStream::with_capacity(pack, 64 << 10));
    let url = format!("{}/repos/{}/parcels/{parcel}", ask.to.url, replica.id.0);
    let sent = shared.http.post(url).bearer_auth(&shared.token).body(reqwest::Body::wrap_stream(body)).send().await;
    let answer = sent.map_err(|error| ReplicaError::Refused(format!("{}: {}", ask.to.node, without_url(error))))?;
    let status = answer.status();
    Ok((status, answer.text().await.unwrap_or_default()).into_response())
}

/// All that some ids need, packed: a routed read.
pub(super) async fn pack(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    Json(tips): Json<Vec<String>>,
) -> Response {
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        admit(&replica, &headers).await?;
        let tips = Shipment { tips }.ids().ok_or_else(|| ReplicaError::Refused("a tip is no object id".into()))?;
        let (file, path) = tempfile::NamedTempFile::new_in(this.spool_folder())?.into_parts();
        objects::pack(&this.git, &replica.folder, &ObjectFolders::default(), &tips, file).await?;
        // Its name is gone with `path`; what is open can be read to its end.
        let pack = tokio::fs::File::open(&path).await?;
        Ok(Body::from_stream(ReaderStream::with_capacity(pack, 64 << 10)).into_response())
    })
    .await
}

/// Reads what leads a pack; the bytes of the pack that came with it.
async fn lead(blocks: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin)) -> Option<(Shipment, Bytes)> {
    let mut have = BytesMut::new();
    loop {
        if have.len() >= 4 {
            let length = usize::try_from((&have[..4]).get_u32()).ok().filter(|length| *length <= SHIPMENT_LIMIT)?;
            if have.len() >= 4 + length {
                let json = have.split_to(4 + length);
                return Some((serde_json::from_slice(&json[4..]).ok()?, have.freeze()));
            }
        }
        have.extend_from_slice(&blocks.next().await?.ok()?);
    }
}

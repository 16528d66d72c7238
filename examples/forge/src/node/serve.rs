//! The node's HTTP face. Only the cluster's own token opens it; users talk to the router.

mod browse;
mod file;
mod git;
mod parcel;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use tenon_quorum::{Generation, Incarnation, RepoId, Row, StageOrder, Stamp};

use super::replica::{Replica, ReplicaError};
use super::{Shared, gc, sync};
use crate::git::{refs as git_refs, repository};
use crate::wire::{self, Health, RefsView, Refused, SyncAsk};

/// The most that the commands of a push take.
const COMMANDS_LIMIT: usize = 64 << 20;
/// The longest record of the refs log that is taken in.
const RECORD_LIMIT: usize = 64 << 20;

/// Serves until the listener fails.
pub(crate) async fn run(listener: tokio::net::TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    use axum::serve::ListenerExt as _;
    let app = Router::new()
        .route("/health", get(health))
        .route("/repos", get(repositories))
        .route("/repos/{id}/snapshot", post(snapshot))
        .route("/repos/{id}/info/refs", get(git::info_refs))
        .route("/repos/{id}/git-upload-pack", post(git::upload_pack))
        .route("/repos/{id}/push", post(git::push).layer(DefaultBodyLimit::max(COMMANDS_LIMIT)))
        .route("/repos/{id}/file", get(file::read))
        .route("/repos/{id}/summary", get(browse::summary))
        .route("/repos/{id}/look", post(browse::look))
        .route("/repos/{id}/parcels/{parcel}", post(parcel::take).get(parcel::holds).delete(parcel::remove))
        .route("/repos/{id}/parcels/{parcel}/forward", post(parcel::forward))
        .route("/repos/{id}/stage", post(stage))
        .route("/repos/{id}/apply", post(apply))
        .route("/repos/{id}/raise", post(raise))
        .route("/repos/{id}/promise", post(promise))
        .route("/repos/{id}/cure", post(cure))
        .route("/repos/{id}/sync", post(sync_replica))
        .route("/repos/{id}/report", get(report))
        .route("/repos/{id}/refs", get(refs))
        .route("/repos/{id}/rebuild", post(rebuild))
        .route("/repos/{id}/sweep", post(sweep))
        .route("/repos/{id}/pack", post(parcel::pack))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), alive))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), authorise))
        .with_state(shared);
    let listener = listener.tap_io(|stream| {
        // Small packets both ways: waiting to fill them costs tens of milliseconds an operation.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await
}

async fn authorise(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let wanted = format!("Bearer {}", shared.token);
    // In time that does not depend on where they differ.
    let differs =
        given.len() != wanted.len() || given.iter().zip(wanted.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) != 0;
    if differs {
        return (StatusCode::UNAUTHORIZED, "this is a node of forge; users talk to its router\n").into_response();
    }
    next.run(request).await
}

/// What was meant for another life of this node's disk is not for this one.
async fn alive(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let meant = wire::from_header::<Incarnation>(request.headers(), wire::LIFE);
    if meant.is_some_and(|meant| meant != shared.db.incarnation()) {
        let reason = format!("meant for another life of {}", shared.node);
        return (StatusCode::CONFLICT, Json(Refused { reason, report: None })).into_response();
    }
    next.run(request).await
}

/// An answer other than success.
enum Failure {
    Replica(Option<Arc<Replica>>, ReplicaError),
    Plain(StatusCode, String),
}

impl Failure {
    fn bad(what: impl Into<String>) -> Failure {
        Failure::Plain(StatusCode::BAD_REQUEST, what.into())
    }
}

type Answer<T = Response> = Result<T, Failure>;

/// Turns an error into a 409 with the node's report if the gate spoke, else into a 500.
async fn explained(answer: Answer) -> Response {
    match answer {
        Ok(response) => response,
        Err(Failure::Plain(status, text)) => (status, text).into_response(),
        Err(Failure::Replica(replica, error)) => {
            let status = match &error {
                ReplicaError::Gate(_) | ReplicaError::Refused(_) => StatusCode::CONFLICT,
                ReplicaError::Git(_) | ReplicaError::Db(_) | ReplicaError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let report = match &replica {
                Some(replica) => Some(replica.report().await),
                None => None,
            };
            tracing::debug!(%error, ?report, "refused");
            (status, Json(Refused { reason: error.to_string(), report })).into_response()
        }
    }
}

/// Does what concerns one repository in a task of its own: a caller that hangs up must not leave memory and disk apart.
async fn with<F, Fut>(shared: Arc<Shared>, id: u64, work: F) -> Response
where
    F: FnOnce(Arc<Replica>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Response, ReplicaError>> + Send,
{
    let task = tokio::spawn(async move {
        let replica = shared.replica(RepoId(id)).await.map_err(|error| Failure::Replica(None, error))?;
        work(Arc::clone(&replica)).await.map_err(|error| Failure::Replica(Some(replica), error))
    });
    let answer =
        task.await.unwrap_or_else(|error| Err(Failure::Plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())));
    explained(answer).await
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match shared.db.count().await {
        Ok(repositories) => {
            Json(Health { node: shared.node, incarnation: shared.db.incarnation(), repositories }).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whatever the store has forgotten: what the gates here know of.
async fn repositories(State(shared): State<Arc<Shared>>) -> Response {
    match shared.db.repositories().await {
        Ok(repositories) => Json(repositories).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The refs at exactly the state that is asked for, as the log keeps them.
async fn snapshot(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, Json(at): Json<Stamp>) -> Response {
    with(shared, id, async move |replica| {
        let state = replica.state().await;
        if state.gate.applied() != at {
            return Err(ReplicaError::Refused(format!("{} is applied here, not {at}", state.gate.applied())));
        }
        Ok(state.refs.snapshot().as_bytes().clone().into_response())
    })
    .await
}

async fn report(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    with(shared, id, async |replica| Ok(Json(replica.report().await).into_response())).await
}

async fn raise(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, Json(row): Json<Row>) -> Response {
    with(shared, id, async move |replica| Ok(Json(replica.settle(&row).await?).into_response())).await
}

async fn promise(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, Json(life): Json<Generation>) -> Response {
    with(shared, id, async move |replica| Ok(Json(replica.promise(life).await?).into_response())).await
}

async fn cure(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, Json(ask): Json<wire::CureAsk>) -> Response {
    with(shared, id, async move |replica| Ok(Json(replica.cure(&ask).await?).into_response())).await
}

async fn stage(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, headers: HeaderMap, body: Body) -> Response {
    let asked = asked::<StageOrder>(&headers, body).await;
    let (order, frame) = match asked {
        Ok(asked) => asked,
        Err(failure) => return explained(Err(failure)).await,
    };
    let parcel = wire::from_header(&headers, wire::PARCEL);
    with(shared, id, async move |replica| Ok(Json(replica.stage(&order, frame, parcel).await?).into_response())).await
}

async fn apply(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, headers: HeaderMap, body: Body) -> Response {
    let asked = asked::<Row>(&headers, body).await;
    let (row, frame) = match asked {
        Ok(asked) => asked,
        Err(failure) => return explained(Err(failure)).await,
    };
    let parcel = wire::from_header(&headers, wire::PARCEL);
    with(shared, id, async move |replica| Ok(Json(replica.apply(&row, frame, parcel).await?).into_response())).await
}

/// The question in the header, and the body.
async fn asked<T: serde::de::DeserializeOwned>(headers: &HeaderMap, body: Body) -> Answer<(T, Bytes)> {
    let question =
        wire::from_header(headers, wire::ASK).ok_or_else(|| Failure::bad(format!("{} is missing", wire::ASK)))?;
    let frame = axum::body::to_bytes(body, RECORD_LIMIT).await.map_err(|error| Failure::bad(error.to_string()))?;
    Ok((question, frame))
}

async fn sync_replica(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, Json(ask): Json<SyncAsk>) -> Response {
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| Ok(Json(sync::run(&this, &replica, &ask).await?).into_response())).await
}

/// What is in the repository, apart from what its gate says.
async fn refs(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        let shared_listing = replica.refs_lock.read().await;
        let listing = if replica.folder.join("HEAD").is_file() {
            git_refs::list(&this.git, &replica.folder).await?
        } else {
            git_refs::Listing::new()
        };
        let report = replica.report().await;
        drop(shared_listing);
        let found = this.refs_with(RepoId(id), report.applied, &listing);
        let checksum = match found {
            Some(refs) => refs.checksum(),
            None => this.checksum(RepoId(id), report.applied, &listing),
        };
        let digest = crate::home::hex(&checksum.prefix16());
        let line = |(name, value): (&tenon_refslog::RefName, &tenon_refslog::Value)| {
            format!("{value} {}\n", String::from_utf8_lossy(name.as_bytes()))
        };
        Ok(Json(RefsView { report, digest, refs: listing.iter().map(line).collect() }).into_response())
    })
    .await
}

/// Frees what neither a ref nor one of these ids reaches.
async fn sweep(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, Json(keep): Json<Vec<String>>) -> Response {
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        let keep: Vec<_> = keep.iter().filter_map(|id| tenon_refslog::ObjectId::from_hex(id).ok()).collect();
        Ok(Json(gc::sweep(&this, &replica, &keep).await?).into_response())
    })
    .await
}

/// Throws the repository away, to be repaired from the log and another node. The gate stays, and says that nothing is held.
async fn rebuild(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    with(shared, id, async move |replica| {
        let turn = replica.turn().await;
        if replica.state().await.gate.staged().is_some() {
            return Err(ReplicaError::Refused("a vote is open; ask again when it is settled".into()));
        }
        let report = replica.lose().await?;
        let alone = replica.refs_lock.write().await;
        repository::remove(&replica.folder)?;
        drop((alone, turn));
        Ok(Json(report).into_response())
    })
    .await
}

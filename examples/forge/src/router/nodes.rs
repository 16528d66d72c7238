//! The nodes as the router reaches them: where each listens, whether it answers, and one method per
//! call of the node's API.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenon_quorum::{FenceGate, Generation, Incarnation, Member, NodeId, RepoId, Report, Route, Row, StageOrder, Stamp};
use tokio::sync::watch;

use super::spool::Spooled;
use crate::node::gc::Swept;
use crate::wire::browse::LookAt;
use crate::wire::{self, CureAsk, Forward, ParcelId, Peer, PushAnswer, RefsView, Refused, SyncAsk, WriteOrder};

/// For calls that only read or write a few small values.
const SHORT: Duration = Duration::from_secs(10);
/// A health check that takes longer counts as none.
const HEALTH: Duration = Duration::from_secs(3);

/// What is known of one node.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) url: String,
    pub(crate) incarnation: Incarnation,
    up: watch::Sender<bool>,
}

impl Known {
    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }
}

/// A node in one life of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
}

impl From<&Member> for Life {
    fn from(member: &Member) -> Self {
        Self { node: member.node, incarnation: member.incarnation }
    }
}

/// The address book, and the client.
#[derive(Debug)]
pub(crate) struct Nodes {
    client: reqwest::Client,
    token: String,
    /// The longest that one Git process may run.
    long: Duration,
    book: RwLock<BTreeMap<NodeId, Known>>,
}

/// What a node answers to a question that its gate judges.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Done; this is how it stands now.
    Report(Report),
    /// It refuses, and says how it stands.
    Refused(Refused),
}

/// What a node answers to a push that it was granted.
#[derive(Debug)]
pub(crate) enum Decided {
    Answer(PushAnswer),
    Refused(Refused),
}

/// What a node answers to the objects of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// They are durable.
    Here,
    /// They lean on objects that it does not have.
    Lags(String),
    /// No repository should hold them, or they are damaged.
    Bad(String),
}

/// What a node answers to a routed read.
#[derive(Debug)]
pub(crate) enum Served {
    Reply(reqwest::Response),
    Refused(Refused),
}

impl Nodes {
    pub(crate) fn new(token: String, long: Duration) -> Result<Self> {
        let client = reqwest::Client::builder()
            .tcp_nodelay(true)
            .no_proxy()
            .connect_timeout(Duration::from_secs(3))
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, token, long, book: RwLock::default() })
    }

    /// A node said where it listens.
    pub(crate) fn register(&self, node: NodeId, incarnation: Incarnation, url: String) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let known =
            book.entry(node).or_insert_with(|| Known { url: String::new(), incarnation, up: watch::Sender::new(true) });
        known.url = url;
        known.incarnation = incarnation;
        known.up.send_replace(true);
    }

    /// Notes whether a node answers; tells whether that is news.
    pub(crate) fn note(&self, node: NodeId, up: bool) -> bool {
        self.known(node).is_some_and(|known| known.up.send_replace(up) != up)
    }

    pub(crate) fn known(&self, node: NodeId) -> Option<Known> {
        self.book.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(NodeId, Known)> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.iter().map(|(node, known)| (*node, known.clone())).collect()
    }

    pub(crate) async fn healthy(&self, known: &Known) -> bool {
        let health = self.client.get(format!("{}/health", known.url)).bearer_auth(&self.token).timeout(HEALTH).send();
        health.await.is_ok_and(|reply| reply.status().is_success())
    }

    /// Sends a routed read. Nothing of the reply's body is read yet.
    pub(crate) async fn serve_read(
        &self,
        route: &Route,
        path: &str,
        headers: &HeaderMap,
        body: &Spooled,
    ) -> Result<Served> {
        let request = self.pass_on(route.node, route.proof.repo, path, headers, body).await?;
        let reply = self.send(route.node, request.header(wire::ROUTE, wire::to_header(route))).await?;
        if reply.status() == StatusCode::CONFLICT {
            return Ok(Served::Refused(reply.json().await?));
        }
        if reply.status().is_server_error() {
            bail!("{}", fault(reply).await);
        }
        Ok(Served::Reply(reply))
    }

    /// One file of what an object leads to, as a routed read.
    pub(crate) async fn file(&self, route: &Route, object: &str, path: &str, most_bytes: usize) -> Result<Served> {
        let query = [("object", object), ("path", path), ("most_bytes", &most_bytes.to_string())];
        let request = self.client.get(self.url(route.node, route.proof.repo, "file")?).query(&query).timeout(SHORT);
        let reply = self.send(route.node, request.header(wire::ROUTE, wire::to_header(route))).await?;
        match reply.status() {
            StatusCode::CONFLICT => Ok(Served::Refused(reply.json().await?)),
            status if status.is_success() => Ok(Served::Reply(reply)),
            _ => bail!("{}", fault(reply).await),
        }
    }

    /// Has the node that was granted a push decide it; the commands are pkt-lines.
    pub(crate) async fn decide(&self, order: &WriteOrder, commands: Bytes) -> Result<Decided> {
        let node = order.grant.writer;
        let request = self.post(node, order.grant.base.repo, "push")?.timeout(self.long);
        let request = request.header(wire::GRANT, wire::to_header(order)).body(commands);
        let reply = self.send(node, request).await?;
        match reply.status() {
            StatusCode::CONFLICT => Ok(Decided::Refused(reply.json().await?)),
            status if status.is_success() => Ok(Decided::Answer(reply.json().await?)),
            _ => bail!("{}", fault(reply).await),
        }
    }

    /// Sends the objects of a push to a node: what leads them, then the pack as the client made it.
    pub(crate) async fn ship(
        &self,
        to: Life,
        repo: RepoId,
        parcel: &ParcelId,
        (lead, pack): (Bytes, impl Stream<Item = std::io::Result<Bytes>> + Send + 'static),
    ) -> Result<Shipped> {
        let body = futures_util::stream::iter([Ok(lead)]).chain(pack);
        let request = self.order(to, repo, &format!("parcels/{parcel}"))?.timeout(self.long);
        shipped(self.send(to.node, request.body(reqwest::Body::wrap_stream(body))).await?).await
    }

    /// Whether a node holds a parcel; one that is coming in is waited for.
    pub(crate) async fn holds(&self, at: Life, repo: RepoId, parcel: &ParcelId) -> Result<bool> {
        let url = self.url(at.node, repo, &format!("parcels/{parcel}"))?;
        let request = self.client.get(url).header(wire::LIFE, wire::to_header(&at.incarnation)).timeout(self.long);
        let reply = self.send(at.node, request).await?;
        match reply.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => bail!("{}", fault(reply).await),
        }
    }

    /// Has a node that holds a parcel send all that its tips need to one that lags.
    pub(crate) async fn forward(
        &self,
        from: Life,
        to: Life,
        repo: RepoId,
        parcel: &ParcelId,
        tips: Vec<String>,
    ) -> Result<Shipped> {
        let url = self.known(to.node).with_context(|| format!("{} has not registered", to.node))?.url;
        let ask = Forward { to: Peer { node: to.node, url }, tips };
        let request = self.order(from, repo, &format!("parcels/{parcel}/forward"))?.timeout(self.long);
        shipped(self.send(from.node, request.json(&ask)).await?).await
    }

    /// What people see of a repository: its summary, or what is at a path of a commit.
    pub(crate) async fn browse<T: DeserializeOwned>(
        &self,
        route: &Route,
        at: Option<&LookAt>,
    ) -> Result<Result<T, Refused>> {
        let (node, repo) = (route.node, route.proof.repo);
        let request = match at {
            None => self.client.get(self.url(node, repo, "summary")?),
            Some(at) => self.post(node, repo, "look")?.json(at),
        };
        let request = request.timeout(SHORT).header(wire::ROUTE, wire::to_header(route));
        let reply = self.send(node, request).await?;
        match reply.status() {
            StatusCode::CONFLICT => Ok(Err(reply.json().await?)),
            status if status.is_success() => Ok(Ok(reply.json().await?)),
            _ => bail!("{}", fault(reply).await),
        }
    }

    /// All that these ids of a repository need, packed, as a routed read.
    pub(crate) async fn pack(
        &self,
        route: &Route,
        tips: &[String],
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
        let request = self.post(route.node, route.proof.repo, "pack")?.timeout(self.long).json(tips);
        let reply = self.send(route.node, request.header(wire::ROUTE, wire::to_header(route))).await?;
        if reply.status().is_success() { Ok(self.body(route.node, reply)) } else { bail!("{}", fault(reply).await) }
    }

    /// Frees what neither a ref nor one of `keep` reaches.
    pub(crate) async fn sweep(&self, to: Life, repo: RepoId, keep: &[String]) -> Result<Swept> {
        let reply = self.send(to.node, self.order(to, repo, "sweep")?.timeout(self.long).json(keep)).await?;
        match reply.status() {
            StatusCode::CONFLICT => bail!("{}", reply.json::<Refused>().await?.reason),
            status if status.is_success() => Ok(reply.json().await?),
            _ => bail!("{}", fault(reply).await),
        }
    }

    /// A push was refused: its objects go.
    pub(crate) async fn drop_parcel(&self, to: Life, repo: RepoId, parcel: &ParcelId) -> Result<()> {
        let url = self.url(to.node, repo, &format!("parcels/{parcel}"))?;
        let request = self.client.delete(url).header(wire::LIFE, wire::to_header(&to.incarnation)).timeout(SHORT);
        let reply = self.send(to.node, request).await?;
        if reply.status().is_success() { Ok(()) } else { bail!("{}", fault(reply).await) }
    }

    /// The members of a repository that answer, each in the life that it is a member in.
    pub(crate) fn answering(&self, members: &[Member]) -> Vec<Member> {
        let up = |m: &&Member| self.known(m.node).is_some_and(|k| k.is_up() && k.incarnation == m.incarnation);
        members.iter().filter(up).copied().collect()
    }

    pub(crate) async fn raise(&self, to: Life, row: &Row) -> Result<Answer> {
        let request = self.order(to, row.repo, "raise")?.timeout(SHORT);
        judged(self.send(to.node, request.json(row)).await?).await
    }

    pub(crate) async fn cure(&self, to: Life, ask: &CureAsk) -> Result<Answer> {
        let request = self.order(to, ask.row.repo, "cure")?.timeout(SHORT);
        judged(self.send(to.node, request.json(ask)).await?).await
    }

    /// The gate that promised; a refusal is an error.
    pub(crate) async fn promise(&self, to: Life, repo: RepoId, generation: Generation) -> Result<FenceGate> {
        let request = self.order(to, repo, "promise")?.timeout(SHORT);
        let reply = self.send(to.node, request.json(&generation)).await?;
        if reply.status().is_success() { Ok(reply.json().await?) } else { bail!("{}", fault(reply).await) }
    }

    pub(crate) async fn stage(
        &self,
        to: Life,
        order: &StageOrder,
        record: &Bytes,
        parcel: Option<&ParcelId>,
    ) -> Result<Answer> {
        self.with_record(to, ("stage", order.base.repo), order, (record, parcel)).await
    }

    pub(crate) async fn apply(&self, to: Life, row: &Row, record: &Bytes, parcel: Option<&ParcelId>) -> Result<Answer> {
        self.with_record(to, ("apply", row.repo), row, (record, parcel)).await
    }

    async fn with_record(
        &self,
        to: Life,
        (what, repo): (&str, RepoId),
        ask: &impl Serialize,
        (record, parcel): (&Bytes, Option<&ParcelId>),
    ) -> Result<Answer> {
        let mut request = self.order(to, repo, what)?.timeout(self.long);
        if let Some(parcel) = parcel {
            request = request.header(wire::PARCEL, wire::to_header(parcel));
        }
        let request = request.header(wire::ASK, wire::to_header(ask)).body(record.clone());
        judged(self.send(to.node, request).await?).await
    }

    pub(crate) async fn sync(&self, to: Life, ask: &SyncAsk) -> Result<Answer> {
        let request = self.order(to, ask.row.repo, "sync")?.timeout(self.long);
        judged(self.send(to.node, request.json(ask)).await?).await
    }

    /// The refs at exactly `at`, encoded as the log keeps them.
    pub(crate) async fn snapshot(&self, node: NodeId, repo: RepoId, at: Stamp) -> Result<Bytes> {
        let reply = self.send(node, self.post(node, repo, "snapshot")?.timeout(self.long).json(&at)).await?;
        if reply.status().is_success() { Ok(reply.bytes().await?) } else { bail!("{}", fault(reply).await) }
    }

    /// The repositories that a node has a gate for.
    pub(crate) async fn repositories(&self, node: NodeId) -> Result<Vec<RepoId>> {
        let known = self.known(node).with_context(|| format!("{node} has not registered"))?;
        let reply = self.send(node, self.client.get(format!("{}/repos", known.url)).timeout(SHORT)).await?;
        if reply.status().is_success() { Ok(reply.json().await?) } else { bail!("{}", fault(reply).await) }
    }

    pub(crate) async fn rebuild(&self, node: NodeId, repo: RepoId) -> Result<Answer> {
        let request = self.post(node, repo, "rebuild")?.timeout(self.long);
        judged(self.send(node, request).await?).await
    }

    pub(crate) async fn report(&self, node: NodeId, repo: RepoId) -> Result<Report> {
        self.get(node, repo, "report").await
    }

    pub(crate) async fn refs(&self, node: NodeId, repo: RepoId) -> Result<RefsView> {
        self.get(node, repo, "refs").await
    }

    async fn get<T: DeserializeOwned>(&self, node: NodeId, repo: RepoId, what: &str) -> Result<T> {
        let url = self.url(node, repo, what)?;
        let reply = self.send(node, self.client.get(url).timeout(SHORT)).await?;
        if reply.status().is_success() { Ok(reply.json().await?) } else { bail!("{}", fault(reply).await) }
    }

    /// An order is for one life of a node's disk.
    fn order(&self, to: Life, repo: RepoId, what: &str) -> Result<reqwest::RequestBuilder> {
        Ok(self.post(to.node, repo, what)?.header(wire::LIFE, wire::to_header(&to.incarnation)))
    }

    fn post(&self, node: NodeId, repo: RepoId, what: &str) -> Result<reqwest::RequestBuilder> {
        Ok(self.client.post(self.url(node, repo, what)?))
    }

    fn url(&self, node: NodeId, repo: RepoId, what: &str) -> Result<String> {
        let known = self.known(node).with_context(|| format!("{node} has not registered"))?;
        Ok(format!("{}/repos/{}/{what}", known.url, repo.0))
    }

    async fn pass_on(
        &self,
        node: NodeId,
        repo: RepoId,
        path: &str,
        headers: &HeaderMap,
        body: &Spooled,
    ) -> Result<reqwest::RequestBuilder> {
        let request = if path.starts_with("info/refs") {
            self.client.get(self.url(node, repo, path)?)
        } else {
            let length = body.len();
            self.post(node, repo, path)?
                .header(header::CONTENT_LENGTH, length)
                .body(reqwest::Body::wrap_stream(body.body(0).await?))
        };
        Ok(request.headers(headers.clone()))
    }

    /// The body of a reply; it ends with an error when it breaks off, or when the node is known to be down.
    pub(crate) fn body(
        &self,
        node: NodeId,
        reply: reqwest::Response,
    ) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<> {
        let up = self.known(node).map(|known| known.up.subscribe());
        let state = Some((reply.bytes_stream().boxed(), up));
        futures_util::stream::unfold(state, move |state| async move {
            let (mut bytes, mut up) = state?;
            let gone = async {
                match &mut up {
                    Some(up) => drop(up.wait_for(|up| !up).await),
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                next = bytes.next() => next?.map_err(std::io::Error::other),
                () = gone => Err(std::io::Error::other(format!("{node} is down"))),
            };
            match next {
                Ok(next) => Some((Ok(next), Some((bytes, up)))),
                Err(e) => Some((Err(e), None)),
            }
        })
    }

    /// Sends, until the node is known to be down: a paused process holds its connections open.
    async fn send(&self, node: NodeId, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let known = self.known(node).with_context(|| format!("{node} has not registered"))?;
        let mut up = known.up.subscribe();
        tokio::select! {
            reply = request.bearer_auth(&self.token).send() => Ok(reply?),
            _ = up.wait_for(|up| !up) => Err(anyhow!("{node} is down")),
        }
    }
}

async fn shipped(reply: reqwest::Response) -> Result<Shipped> {
    match reply.status() {
        StatusCode::OK => Ok(Shipped::Here),
        StatusCode::PRECONDITION_FAILED => Ok(Shipped::Lags(reply.text().await?)),
        StatusCode::UNPROCESSABLE_ENTITY => Ok(Shipped::Bad(reply.text().await?)),
        StatusCode::CONFLICT => bail!("{}", reply.json::<Refused>().await?.reason),
        _ => bail!("{}", fault(reply).await),
    }
}

async fn judged(reply: reqwest::Response) -> Result<Answer> {
    match reply.status() {
        StatusCode::OK => Ok(Answer::Report(reply.json().await?)),
        StatusCode::CONFLICT => Ok(Answer::Refused(reply.json().await?)),
        _ => bail!("{}", fault(reply).await),
    }
}

async fn fault(reply: reqwest::Response) -> String {
    let status = reply.status();
    let text = reply.text().await.unwrap_or_default();
    format!("{status}: {}", text.trim())
}

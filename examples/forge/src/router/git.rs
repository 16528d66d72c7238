//! The Git smart-HTTP proxy: which repository and service a request means, where it goes, and how
//! its reply comes back.
//!
//! As long as nothing was sent to the client, a node that dies is replaced by another. Once bytes
//! were sent, a reply that breaks off breaks the connection: a stock client that sees a torn reply
//! end cleanly may wait for ever.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use tenon_quorum::{RepoId, RequestId};

use super::Host;
use super::answer::{self, Asked, Verdict};
use super::http::{self, Failure};
use super::name::RepoName;
use super::nodes::{Answer, Served};
use super::reads;
use super::spool::{SpoolError, Spooled};
use super::writes::{Ended, Lease};

/// Largest body of a fetch: wants, haves and options.
const MAX_FETCH_BYTES: u64 = 64 << 20;
/// More lines than that are not read to find out what a push asks for.
const MAX_COMMANDS: usize = 100_000;
/// How often a read is routed again, and a push granted again, when nodes fail it.
const ATTEMPTS: usize = 6;
/// A reply to a push up to this size is held back until it is whole, so that another node can take
/// over; a longer one is passed on as it comes.
const HELD_BACK: usize = 1 << 20;

/// Request headers that a node's Git must see.
const PASSED_IN: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ACCEPT, HeaderName::from_static("git-protocol")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// `GET info/refs?service=git-upload-pack`
    ListForFetch,
    /// `GET info/refs?service=git-receive-pack`
    ListForPush,
    /// `POST git-upload-pack`
    Fetch,
    /// `POST git-receive-pack`
    Push,
}

impl Service {
    /// What a node is asked for.
    fn node_path(self) -> &'static str {
        match self {
            Self::ListForFetch => "info/refs?service=git-upload-pack",
            Self::ListForPush => "info/refs?service=git-receive-pack",
            Self::Fetch => "git-upload-pack",
            Self::Push => "git-receive-pack",
        }
    }
}

/// Any request that is not for the API.
pub(crate) async fn serve(State(host): State<Host>, request: Request) -> Response {
    let result = match parse(request.method(), request.uri().path(), request.uri().query()) {
        Ok((name, service)) => handle(&host, &name, service, request).await,
        Err(failure) => Err(failure),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<(RepoName, Service), Failure> {
    let path = path.trim_start_matches('/');
    let no = || Failure::not_found("not here; a repository is cloned from http://HOST:PORT/NAME.git");
    let (repo, rest) = path
        .rsplit_once("/info/refs")
        .map(|(repo, _)| (repo, "info/refs"))
        .or_else(|| path.rsplit_once('/'))
        .ok_or_else(no)?;
    let service = match (method, rest, query.unwrap_or_default()) {
        (&Method::GET, "info/refs", "service=git-upload-pack") => Service::ListForFetch,
        (&Method::GET, "info/refs", "service=git-receive-pack") => Service::ListForPush,
        (&Method::GET, "info/refs", _) => {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "only smart HTTP is spoken here: use a Git newer than 1.6.6",
            ));
        }
        (&Method::POST, "git-upload-pack", _) => Service::Fetch,
        (&Method::POST, "git-receive-pack", _) => Service::Push,
        _ => return Err(no()),
    };
    let name = RepoName::parse(repo.strip_suffix(".git").unwrap_or(repo))
        .map_err(|e| Failure::new(StatusCode::BAD_REQUEST, e))?;
    Ok((name, service))
}

async fn handle(host: &Host, name: &RepoName, service: Service, request: Request) -> Result<Response, Failure> {
    if matches!(service, Service::ListForPush | Service::Push)
        && let Err(refused) = http::may_write(host, request.headers())
    {
        return Ok(*refused);
    }
    let repo = match host.repos.find(name).await? {
        Some(repo) => repo,
        // The first push makes the repository.
        None if service == Service::ListForPush => host.repos.ensure(name).await?,
        None => return Err(Failure::not_found(format!("there is no repository {name}"))),
    };
    let (parts, body) = request.into_parts();
    let limit = if service == Service::Push { host.limits.max_push_bytes } else { MAX_FETCH_BYTES };
    let body = match host.spool.take(body, limit).await {
        Ok(body) => body,
        // Git shows its user a verdict on each ref, but not what comes with a status that is no success.
        Err(SpoolError::TooLarge { start, limit }) if service == Service::Push => {
            let why = format!("the push is larger than the {limit} bytes allowed");
            return Ok(commands(&start).await?.reply(Verdict::Rejected(&why)));
        }
        Err(e @ SpoolError::TooLarge { .. }) => return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, e)),
        Err(e @ SpoolError::Broken(_)) => return Err(Failure::new(StatusCode::BAD_REQUEST, e)),
        Err(e @ SpoolError::Disk(_)) => return Err(Failure::new(StatusCode::INSUFFICIENT_STORAGE, e)),
    };
    let client = parts.extensions.get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| *address);
    let call = Call { host, repo, service, client: connection(client), headers: passed_in(&parts.headers), body };
    match service {
        Service::Push => call.push().await,
        Service::ListForFetch | Service::ListForPush | Service::Fetch => call.read().await,
    }
}

/// A fetch lists refs and then negotiates, request after request over one connection.
fn connection(client: Option<SocketAddr>) -> RequestId {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    RequestId(hasher.finish())
}

/// What a push asks for.
async fn commands(body: &Spooled) -> Result<Asked, Failure> {
    let mut start = body.reader().await.map_err(Failure::unavailable)?;
    Asked::read(&mut start, MAX_COMMANDS)
        .await
        .map_err(|e| Failure::new(StatusCode::BAD_REQUEST, format!("not a push: {e}")))
}

fn passed_in(headers: &HeaderMap) -> HeaderMap {
    PASSED_IN.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

/// One request, whole.
struct Call<'a> {
    host: &'a Host,
    repo: RepoId,
    service: Service,
    /// The connection that it came over.
    client: RequestId,
    headers: HeaderMap,
    body: Spooled,
}

impl Call<'_> {
    /// A read goes to a node that is current, to the same for all that comes over one connection; if it fails, another
    /// is asked.
    async fn read(self) -> Result<Response, Failure> {
        let mut last = Failure::unavailable("no node could serve the read");
        for attempt in 0..ATTEMPTS {
            let via = (attempt == 0).then_some(self.client);
            let route = reads::route(&self.host.driver, self.repo, via).await?;
            let served =
                self.host.driver.nodes.serve_read(&route, self.service.node_path(), &self.headers, &self.body).await;
            match served {
                Ok(Served::Reply(reply)) => {
                    let head = reply_head(&reply);
                    let body = self.host.driver.nodes.body(route.node, reply);
                    return Ok(head.map(|()| Body::from_stream(body)));
                }
                Ok(Served::Refused(refused)) => {
                    last = Failure::unavailable(format!("{} refused the read: {}", route.node, refused.reason));
                    self.host.driver.tell_answer(route.node, Ok(Answer::Refused(refused))).await;
                }
                Err(e) => {
                    self.host.driver.node_failed(route.node, &e).await;
                    last = Failure::unavailable(format!("{} failed: {e:#}", route.node));
                }
            }
        }
        Err(last)
    }

    /// A push goes to the node that is granted the write. When that node fails before the write is
    /// decided, the write is ended for certain and another is granted.
    async fn push(self) -> Result<Response, Failure> {
        if self.body.is_flush() {
            // A client probes whether it may post at all; Git answers with nothing.
            return Ok(answer::receive_pack_result(Body::empty()));
        }
        let asked = commands(&self.body).await?;
        let most = self.host.limits.max_refs_per_push;
        if asked.len() > most {
            let why = format!("{} refs in one push, at most {most} are allowed", asked.len());
            return Ok(asked.reply(Verdict::Rejected(&why)));
        }
        let need = self.host.driver.view(|core| core.router.config().quorum().write()) as usize;
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let lease = match self.host.writes.begin(self.repo).await {
                Ok(lease) => lease,
                Err(refused) => return Ok(asked.reply(Verdict::Rejected(&refused))),
            };
            let served = self.host.driver.nodes.serve_push(lease.grant(), need, &self.headers, &self.body).await;
            match self.finish_push(lease, served).await {
                PushEnd::Answer(reply) => return Ok(reply),
                PushEnd::Accepted => return Ok(asked.reply(Verdict::Accepted)),
                PushEnd::Again(why) => last = why,
                PushEnd::Unknown(why) => {
                    // Neither `ok` nor `ng` would be true: the connection breaks, the client asks again.
                    return Err(Failure::unavailable(format!("whether the push was taken is not known yet: {why}")));
                }
            }
        }
        Ok(asked.reply(Verdict::Rejected(&last)))
    }

    async fn finish_push(&self, lease: Lease, served: anyhow::Result<Served>) -> PushEnd {
        let writer = lease.node();
        let failed = match served {
            Ok(Served::Reply(reply)) => match self.hold_back(reply, lease).await {
                Ok((None, response)) => return PushEnd::Answer(response),
                // The node did not wait for what the store says: the store is right.
                Ok((Some(lease), _)) => return ended(lease, format!("{writer} answered early")).await,
                Err(failed) => failed,
            },
            Ok(Served::Refused(refused)) => {
                let why = format!("{writer} refused the grant: {}", refused.reason);
                self.host.driver.tell_answer(writer, Ok(Answer::Refused(refused))).await;
                return ended(lease, why).await;
            }
            Err(e) => (lease, e),
        };
        let (lease, error) = failed;
        self.host.driver.node_failed(writer, &error).await;
        ended(lease, format!("{writer} failed: {error:#}")).await
    }

    /// Takes a reply in until it is whole; a long one goes on as a stream, which holds the lease.
    /// A write that the node proposed and that is not decided yet comes back with the reply.
    async fn hold_back(
        &self,
        reply: reqwest::Response,
        lease: Lease,
    ) -> Result<(Option<Lease>, Response), (Lease, anyhow::Error)> {
        let head = reply_head(&reply);
        let mut stream = self.host.driver.nodes.body(lease.node(), reply).boxed();
        let mut whole = BytesMut::new();
        while whole.len() < HELD_BACK {
            match stream.next().await {
                Some(Ok(bytes)) => whole.extend_from_slice(&bytes),
                Some(Err(e)) => return Err((lease, e.into())),
                None => {
                    let open = lease.is_open().then_some(lease);
                    return Ok((open, head.map(|()| Body::from(whole.freeze()))));
                }
            }
        }
        let start = futures_util::stream::once(async move { Ok(whole.freeze()) });
        let rest = start.chain(stream).map(move |bytes| {
            let _until_the_end = &lease;
            bytes
        });
        Ok((None, head.map(|()| Body::from_stream(rest))))
    }
}

/// How an attempt ended that its node did not answer.
async fn ended(lease: Lease, why: String) -> PushEnd {
    match lease.end().await {
        Ended::Applied => PushEnd::Accepted,
        Ended::NotApplied => PushEnd::Again(why),
        Ended::Unknown(reason) => PushEnd::Unknown(format!("{why}; {reason}")),
    }
}

/// How one attempt of a push ended.
enum PushEnd {
    Answer(Response),
    Accepted,
    Again(String),
    Unknown(String),
}

fn reply_head(reply: &reqwest::Response) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = reply.status();
    for name in [header::CONTENT_TYPE, header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA] {
        if let Some(value) = reply.headers().get(&name) {
            head.headers_mut().insert(name, value.clone());
        }
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &Method, path: &str, query: &str) -> Result<(String, Service), StatusCode> {
        parse(method, path, Some(query)).map(|(name, service)| (name.to_string(), service)).map_err(|f| f.status)
    }

    #[test]
    fn requests() {
        let get = |path, query| parsed(&Method::GET, path, query);
        let post = |path| parsed(&Method::POST, path, "");
        let name = |n: &str| n.to_owned();
        assert_eq!(get("/a.git/info/refs", "service=git-upload-pack"), Ok((name("a"), Service::ListForFetch)));
        assert_eq!(get("/t/a/info/refs", "service=git-receive-pack"), Ok((name("t/a"), Service::ListForPush)));
        assert_eq!(post("/t/a.git/git-upload-pack"), Ok((name("t/a"), Service::Fetch)));
        assert_eq!(post("/a.git/git-receive-pack"), Ok((name("a"), Service::Push)));
        assert_eq!(get("/a.git/info/refs", ""), Err(StatusCode::FORBIDDEN));
        assert_eq!(get("/a.git/HEAD", ""), Err(StatusCode::NOT_FOUND));
        assert_eq!(get("/", ""), Err(StatusCode::NOT_FOUND));
        assert_eq!(post("/../a.git/git-receive-pack"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(post("/internal/x/git-receive-pack"), Err(StatusCode::BAD_REQUEST));
    }
}

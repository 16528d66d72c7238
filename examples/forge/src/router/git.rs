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
use tenon_quorum::{RepoId, RequestId};

use super::http::{DISK_FULL, Failure};
use super::name::RepoName;
use super::nodes::{Answer, Served};
use super::push;
use super::reads;
use super::spool::{SpoolError, Spooled};
use super::{Host, browse};
use crate::git::advertise;
use crate::wire;

/// Largest body of a fetch: wants, haves and options.
const MAX_FETCH_BYTES: u64 = 64 << 20;
/// How often a read is routed again when nodes fail it.
const ATTEMPTS: usize = 6;

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
    /// Anything below `info/lfs/`.
    Lfs,
}

impl Service {
    /// What a node is asked for.
    fn node_path(self) -> &'static str {
        match self {
            Self::ListForFetch => "info/refs?service=git-upload-pack",
            Self::ListForPush => "info/refs?service=git-receive-pack",
            Self::Fetch => "git-upload-pack",
            Self::Push => "git-receive-pack",
            Self::Lfs => "info/lfs",
        }
    }
}

/// Any request that is not for the API.
pub(crate) async fn serve(State(host): State<Host>, request: Request) -> Response {
    let result = match parse(request.method(), request.uri().path(), request.uri().query()) {
        Ok((name, service)) => handle(&host, &name, service, request).await,
        Err(_) if is_for_people(&request) => return browse::serve(&host, request.uri().path()).await,
        Err(failure) => Err(failure),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

/// A browser asks for a page; Git never does.
fn is_for_people(request: &Request) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    request.method() == Method::GET && accept.contains("text/html")
}

fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<(RepoName, Service), Failure> {
    let path = path.trim_start_matches('/');
    let no = || Failure::not_found("not here; a repository is cloned from http://HOST:PORT/NAME.git");
    let (repo, rest) = path
        .split_once("/info/lfs/")
        .map(|(repo, _)| (repo, "info/lfs"))
        .or_else(|| path.rsplit_once("/info/refs").map(|(repo, _)| (repo, "info/refs")))
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
        (_, "info/lfs", _) => Service::Lfs,
        (&Method::POST, "git-upload-pack", _) => Service::Fetch,
        (&Method::POST, "git-receive-pack", _) => Service::Push,
        _ => return Err(no()),
    };
    let name = RepoName::parse(repo.strip_suffix(".git").unwrap_or(repo))
        .map_err(|e| Failure::new(StatusCode::BAD_REQUEST, e))?;
    Ok((name, service))
}

async fn handle(host: &Host, name: &RepoName, service: Service, request: Request) -> Result<Response, Failure> {
    if service == Service::Lfs {
        return Ok(no_lfs());
    }
    let repo = host.repos.find(name).await?;
    let repo = match (repo, service) {
        // The first push makes the repository, once its objects are found good.
        (None, Service::ListForPush) => return Ok(nothing_yet()),
        (repo, Service::Push) => repo,
        (Some(repo), _) => Some(repo),
        (None, _) => return Err(Failure::not_found(format!("there is no repository {name}"))),
    };
    let (parts, body) = request.into_parts();
    if service == Service::Push && parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a push is not to be compressed once more"));
    }
    let limit = if service == Service::Push { host.limits.max_push_bytes } else { MAX_FETCH_BYTES };
    let body = match host.spool.take(body, limit).await {
        Ok(body) => body,
        // Git shows its user a verdict on each ref, but not what comes with a status that is no success.
        Err(SpoolError::TooLarge { start, limit }) if service == Service::Push => {
            let why = format!("the push is larger than the {limit} bytes allowed");
            return Ok(push::commands(&start).await?.reply(Some(&why)));
        }
        Err(SpoolError::Full { start }) if service == Service::Push => {
            return Ok(push::commands(&start).await?.reply(Some(DISK_FULL)));
        }
        Err(SpoolError::Full { .. }) => return Err(Failure::full()),
        Err(e @ SpoolError::TooLarge { .. }) => return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, e)),
        Err(e @ SpoolError::Broken(_)) => return Err(Failure::new(StatusCode::BAD_REQUEST, e)),
        Err(e @ SpoolError::Disk(_)) => return Err(Failure::new(StatusCode::INSUFFICIENT_STORAGE, e)),
    };
    let Some(repo) = repo.filter(|_| service != Service::Push) else {
        return push::push(host, name, repo, body).await;
    };
    let client = parts.extensions.get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| *address);
    let mut headers = passed_in(&parts.headers);
    if service == Service::Fetch {
        // A job checks its commit out, whatever has become of the branch since.
        headers.insert(wire::ALSO, wire::to_header(&host.ci.open_commits(repo.0).await?));
    }
    let call = Call { host, repo, service, client: connection(client), headers, body };
    call.read().await
}

/// What a client sees that wants to push to a repository which its push will make.
fn nothing_yet() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/x-git-receive-pack-advertisement"),
        (header::CACHE_CONTROL, "no-cache, max-age=0, must-revalidate"),
    ];
    (headers, advertise::for_push(None)).into_response()
}

/// Git LFS speaks JSON; its clients show the message.
fn no_lfs() -> Response {
    let message = "this server stores no Git LFS objects: commit the files themselves, or name another LFS server \
                   in .lfsconfig";
    let body = serde_json::json!({ "message": message }).to_string();
    let headers = [(header::CONTENT_TYPE, "application/vnd.git-lfs+json"), (header::CACHE_CONTROL, "no-cache")];
    (StatusCode::NOT_IMPLEMENTED, headers, body).into_response()
}

/// A fetch lists refs and then negotiates, request after request over one connection.
fn connection(client: Option<SocketAddr>) -> RequestId {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    RequestId(hasher.finish())
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
                    self.host.driver.tell_answer(route.node, None, Ok(Answer::Refused(refused))).await;
                }
                Err(e) => {
                    self.host.driver.node_failed(route.node, &e).await;
                    last = Failure::unavailable(format!("{} failed: {e:#}", route.node));
                }
            }
        }
        Err(last)
    }
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
        assert_eq!(post("/t/a.git/info/lfs/objects/batch"), Ok((name("t/a"), Service::Lfs)));
        assert_eq!(get("/a.git/info/refs", ""), Err(StatusCode::FORBIDDEN));
        assert_eq!(get("/a.git/HEAD", ""), Err(StatusCode::NOT_FOUND));
        assert_eq!(get("/", ""), Err(StatusCode::NOT_FOUND));
        assert_eq!(post("/../a.git/git-receive-pack"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(post("/internal/x/git-receive-pack"), Err(StatusCode::BAD_REQUEST));
    }
}

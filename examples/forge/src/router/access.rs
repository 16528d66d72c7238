//! Who may read and who may write: one check in front of every route, behind the door.
//!
//! A forge makes a token at its first start. Programs show it as password or as bearer; a browser that showed it once has
//! a cookie. Workers have a token of their own, which reads repositories and does nothing else here.

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Json, Router as Routes, routing};
use base64::Engine as _;
use door::{SecretFile, Sessions};
use serde::{Deserialize, Serialize};

use super::Host;
use super::http::{Failure, bears};
use crate::ci::page::{self, html};
use crate::cli::ServeArgs;
use crate::home::Home;

/// The largest login form.
const MOST_FORM: usize = 4 << 10;

/// What opens a forge.
#[derive(Debug)]
pub(crate) enum Access {
    /// Everybody who reaches it: this machine's users.
    Open,
    Token {
        file: SecretFile,
        sessions: Sessions,
        /// Whether reading needs no token.
        public_reads: bool,
    },
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The way in.
    Nothing,
    /// Its own route looks who asks: workers, nodes.
    Inner,
    Fetch,
    Push,
    Read,
    Write,
}

fn need(method: &Method, uri: &Uri) -> Need {
    let path = uri.path();
    let lists = path.ends_with("/info/refs");
    if path.starts_with("/internal/") {
        Need::Inner
    } else if path == super::PATH_OF_LOGIN || path == "/-/style.css" || path == "/-/live.js" {
        Need::Nothing
    } else if path.ends_with("/git-receive-pack") || (lists && uri.query() == Some("service=git-receive-pack")) {
        Need::Push
    } else if lists || path.ends_with("/git-upload-pack") {
        Need::Fetch
    } else if *method == Method::GET || *method == Method::HEAD {
        Need::Read
    } else {
        Need::Write
    }
}

impl Access {
    /// As the flags say; the first start makes the token.
    pub(crate) fn of(args: &ServeArgs, home: &Home, port: u16) -> anyhow::Result<Self> {
        if args.open {
            home.publish_token_file(None)?;
            return Ok(Self::Open);
        }
        let path = args.token_file.clone().unwrap_or_else(|| home.path().join(crate::home::ACCESS_TOKEN));
        let file = SecretFile::open(std::path::absolute(path)?)?;
        home.publish_token_file(Some(file.path()))?;
        let sessions = Sessions::new(&format!("forge-{port}"));
        Ok(Self::Token { file, sessions, public_reads: args.public_reads })
    }

    /// The path of a link that logs a browser in, once.
    pub(crate) fn login(&self) -> std::io::Result<Option<String>> {
        match self {
            Self::Open => Ok(None),
            Self::Token { sessions, .. } => Ok(Some(format!("{}?key={}", super::PATH_OF_LOGIN, sessions.link()?))),
        }
    }

    fn admits(&self, need: Need, headers: &HeaderMap, worker_token: &str) -> bool {
        let Self::Token { file, sessions, public_reads } = self else { return true };
        let reads = matches!(need, Need::Read | Need::Fetch);
        if matches!(need, Need::Nothing | Need::Inner) || (reads && *public_reads) {
            return true;
        }
        if need == Need::Fetch && bears(headers, worker_token) {
            return true;
        }
        let secret = match file.current() {
            Ok(secret) => secret,
            Err(e) => {
                tracing::error!("nobody is let in: {e}");
                return false;
            }
        };
        let given = bearer(headers).map(str::to_owned).or_else(|| password(headers));
        given.is_some_and(|given| secret.is(&given)) || sessions.is_in(headers, &secret)
    }
}

/// Lets a request through to its route if whoever sent it may do that.
pub(crate) async fn authorise(State(host): State<Host>, request: Request, next: Next) -> Response {
    let need = need(request.method(), request.uri());
    if host.access.admits(need, request.headers(), &host.ci().worker_token) {
        return next.run(request).await;
    }
    let wants = "this forge wants its token";
    match need {
        Need::Fetch | Need::Push => {
            let failure = Failure::new(StatusCode::UNAUTHORIZED, format!("{wants}, as password"));
            ([(header::WWW_AUTHENTICATE, "Basic realm=\"forge\"")], failure).into_response()
        }
        Need::Read if is_page(request.uri()) => {
            (StatusCode::UNAUTHORIZED, html(page::login("This forge wants its token."))).into_response()
        }
        Need::Read | Need::Write | Need::Nothing | Need::Inner => {
            let failure = Failure::new(StatusCode::UNAUTHORIZED, format!("{wants}: as bearer, or in FORGE_TOKEN"));
            // Never Basic: a browser would keep the password, and send it along with every page's requests.
            ([(header::WWW_AUTHENTICATE, "Bearer realm=\"forge\"")], failure).into_response()
        }
    }
}

fn is_page(uri: &Uri) -> bool {
    !uri.path().starts_with("/api/") && uri.path() != "/metrics" && uri.path() != "/-/live"
}

pub(crate) fn routes() -> Routes<Host> {
    Routes::new()
        .route(super::PATH_OF_LOGIN, routing::get(login_page).post(login_form))
        .route("/-/logout", routing::post(log_out))
        .route("/api/login", routing::post(new_link))
}

/// A link that logs a browser in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Link {
    /// From the root; absent where everybody is let in.
    pub(crate) path: Option<String>,
}

async fn new_link(State(host): State<Host>) -> Result<Json<Link>, Failure> {
    Ok(Json(Link { path: host.access.login().map_err(Failure::unavailable)? }))
}

#[derive(Debug, Default, Deserialize)]
struct Shown {
    #[serde(default)]
    key: String,
    #[serde(default)]
    token: String,
}

async fn login_page(State(host): State<Host>, Query(shown): Query<Shown>) -> Response {
    let Access::Token { sessions, .. } = &host.access else { return Redirect::to("/").into_response() };
    if shown.key.is_empty() {
        return html(page::login(""));
    }
    if sessions.redeem(&shown.key) {
        return welcome(&host.access);
    }
    let again = "That link was used, or is older than ten minutes. `forge login` prints another.";
    (StatusCode::FORBIDDEN, html(page::login(again))).into_response()
}

async fn login_form(State(host): State<Host>, request: Request) -> Response {
    let Access::Token { file, .. } = &host.access else { return Redirect::to("/").into_response() };
    let body = axum::body::to_bytes(request.into_body(), MOST_FORM).await.unwrap_or_default();
    // A form's body is written as a query is.
    let uri: Option<Uri> = format!("/?{}", String::from_utf8_lossy(&body)).parse().ok();
    let shown = uri.and_then(|uri| Query::<Shown>::try_from_uri(&uri).ok()).map(|query| query.0).unwrap_or_default();
    if file.current().is_ok_and(|secret| secret.is(shown.token.trim())) {
        return welcome(&host.access);
    }
    (StatusCode::FORBIDDEN, html(page::login("That is not the token."))).into_response()
}

/// Sets the cookie. The page leads on by itself: after a redirect of a link from elsewhere the cookie would not be sent.
fn welcome(access: &Access) -> Response {
    let Access::Token { file, sessions, .. } = access else { return Redirect::to("/").into_response() };
    let cookie = file.current().ok().and_then(|secret| sessions.set_cookie(&secret));
    match cookie {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], html(page::welcome())).into_response(),
        None => Failure::unavailable("the token cannot be read").into_response(),
    }
}

async fn log_out(State(host): State<Host>) -> Response {
    let cookie = match &host.access {
        Access::Open => None,
        Access::Token { sessions, .. } => sessions.clear_cookie(),
    };
    let to = Redirect::to("/");
    cookie.map_or_else(
        || to.clone().into_response(),
        |cookie| ([(header::SET_COOKIE, cookie)], to.clone()).into_response(),
    )
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn password(headers: &HeaderMap) -> Option<String> {
    let encoded = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let plain = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    Some(String::from_utf8(plain).ok()?.split_once(':')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_needs_something_and_a_new_one_needs_no_less() {
        let of = |method: Method, uri: &str| need(&method, &uri.parse().unwrap());
        let get = |uri| of(Method::GET, uri);
        let post = |uri| of(Method::POST, uri);
        assert_eq!(get("/a.git/info/refs?service=git-receive-pack"), Need::Push);
        assert_eq!(get("/a.git/info/refs?service=git-upload-pack"), Need::Fetch);
        assert_eq!(get("/a.git/info/refs"), Need::Fetch);
        assert_eq!((post("/a/git-receive-pack"), post("/a/git-upload-pack")), (Need::Push, Need::Fetch));
        assert_eq!(
            (get("/"), get("/metrics"), get("/-/live"), get("/new/page")),
            (Need::Read, Need::Read, Need::Read, Need::Read)
        );
        assert_eq!(
            (post("/-/jobs/1/abort"), post("/api/nodes/1/kill"), post("/new")),
            (Need::Write, Need::Write, Need::Write)
        );
        assert_eq!((of(Method::DELETE, "/api/repos/a"), of(Method::PUT, "/x")), (Need::Write, Need::Write));
        assert_eq!(
            (get("/-/login"), post("/-/login"), get("/-/style.css")),
            (Need::Nothing, Need::Nothing, Need::Nothing)
        );
        assert_eq!((get("/api/jobs/1/log"), post("/internal/ci/pull")), (Need::Read, Need::Inner));
    }
}

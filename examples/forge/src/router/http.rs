//! What every request to the router goes through: whose it is, who asks, and what an error looks like.

use anyhow::Result as Anyhow;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use door::{Door, Hosts, Route};

use super::Host;
use crate::cli::ServeArgs;

/// The checks that come before every route.
///
/// # Errors
/// A name of `--host` is none.
pub(crate) fn door(args: &ServeArgs) -> Anyhow<Door> {
    let ours = Hosts::new().named(&args.listen.to_string())?;
    let ours = args.host.iter().try_fold(ours, |hosts, name| hosts.named(name))?;
    Ok(Door::new(ours, route))
}

/// Who a route is for.
fn route(_method: &Method, uri: &Uri) -> Route {
    let path = uri.path();
    if path.ends_with("/git-upload-pack") {
        Route::Program(Some("application/x-git-upload-pack-request"))
    } else if path.ends_with("/git-receive-pack") {
        Route::Program(Some("application/x-git-receive-pack-request"))
    } else if path.ends_with("/info/refs") || path.contains("/info/lfs/") || path.starts_with("/internal/") {
        Route::Program(None)
    } else if path.starts_with("/api/") {
        Route::Api
    } else {
        Route::Page
    }
}

/// An answer that is no success, told in one plain line; Git shows it as `remote: …`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl std::fmt::Display) -> Self {
        Self { status, message: message.to_string() }
    }

    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    pub(crate) fn unavailable(why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
        (self.status, headers, format!("{}\n", self.message)).into_response()
    }
}

impl From<super::store::StoreError> for Failure {
    fn from(e: super::store::StoreError) -> Self {
        Self::unavailable(e)
    }
}

/// Whether these headers bear this token.
pub(crate) fn bears(headers: &HeaderMap, token: &str) -> bool {
    bearer(headers).is_some_and(|given| same(given, token))
}

/// Lets through only calls that carry the cluster's token.
pub(crate) async fn internal(State(host): State<Host>, request: Request, next: Next) -> Response {
    if bears(request.headers(), &host.cluster_token) {
        return next.run(request).await;
    }
    Failure::new(StatusCode::UNAUTHORIZED, "for the nodes of this cluster only").into_response()
}

/// Lets reads through, and changes only if they may be made: with the token, if there is one.
pub(crate) async fn api(State(host): State<Host>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    match may_write(&host, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => *refused,
    }
}

/// Whether these headers carry the right to write; if not, the answer that asks for it.
pub(crate) fn may_write(host: &Host, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let Some(wanted) = &host.token else { return Ok(()) };
    let given = bearer(headers).map(str::to_owned).or_else(|| password(headers));
    if given.is_some_and(|given| same(&given, wanted)) {
        return Ok(());
    }
    let refused = Failure::new(StatusCode::UNAUTHORIZED, "writing needs the token, as password");
    Err(Box::new(([(header::WWW_AUTHENTICATE, "Basic realm=\"forge\"")], refused).into_response()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn password(headers: &HeaderMap) -> Option<String> {
    let encoded = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let plain = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    Some(String::from_utf8(plain).ok()?.split_once(':')?.1.to_owned())
}

/// Compares without telling by its time where two secrets part.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

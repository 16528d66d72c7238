//! What every request to the router goes through: whose it is, and what an error looks like.

use anyhow::Result as Anyhow;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use door::{Door, Hosts, Route};

use super::Host;
use crate::cli::ServeArgs;

/// The checks that come before every route.
///
/// # Errors
/// A name of `--host` is none.
pub(crate) fn door(args: &ServeArgs) -> Anyhow<Door> {
    let ours = args.host.iter().try_fold(Hosts::new(), |hosts, name| hosts.named(name))?;
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

    pub(crate) fn full() -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, DISK_FULL)
    }
}

/// What users read when the server has no room left.
pub(crate) const DISK_FULL: &str = "the server's disk is full";

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
        (self.status, headers, format!("{}\n", self.message)).into_response()
    }
}

impl From<super::store::StoreError> for Failure {
    fn from(e: super::store::StoreError) -> Self {
        if e.is_full() { Self::full() } else { Self::unavailable(e) }
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

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Compares without telling by its time where two secrets part.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

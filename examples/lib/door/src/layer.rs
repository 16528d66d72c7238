//! The door as a layer around a server.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Request, Response, header};
use tower_layer::Layer;
use tower_service::Service;

use crate::check::Door;

/// What every answer carries unless its route says otherwise: it is nobody else's script, style or frame, and its type is
/// not guessed.
const DEFAULTS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "same-origin"),
];

/// The two ends of the connection that a request came over, as one of its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client.
    pub remote: SocketAddr,
    /// The address of this machine that it came in on.
    pub local: SocketAddr,
}

/// A server behind a [`Door`].
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    door: Door,
    inner: S,
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { door: self.clone(), inner }
    }
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
    R: From<String> + Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let local = head.extensions.get::<Peer>().map(|peer| peer.local.ip());
        if let Err(refusal) = self.door.check(&head, local) {
            let mut response = Response::new(R::from(format!("{refusal}\n")));
            *response.status_mut() = refusal.status();
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, text);
            return Box::pin(async { Ok(finished(response)) });
        }
        // The clone has not been polled for readiness; the one that was is used.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move { inner.call(Request::from_parts(head, body)).await.map(finished) })
    }
}

fn finished<R>(mut response: Response<R>) -> Response<R> {
    for (name, value) in DEFAULTS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

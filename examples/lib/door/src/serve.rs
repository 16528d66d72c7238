//! The accept loop: how many connections there are, how slow each may be, and who gives way.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::ConnectInfo;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower_service::Service as _;

use crate::crowd::{Busy, Crowd, Place};
use crate::layer::Peer;
use crate::pace::Pace;

/// After a connection could not be taken for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 5\r\nconnection: close\r\n\
    content-length: 41\r\n\r\nthis server has too many connections now\n";

/// What connections may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest that a connection may be idle, and that the head of a request may take.
    pub head: Duration,
    /// The longest that a body, or a client that reads its answer, may pause.
    pub pause: Duration,
    /// The least bytes a second of a body, and of a client that reads its answer, in the long run.
    pub bytes_per_second: u64,
    /// Most connections at once.
    pub total: usize,
    /// Most connections of one address.
    pub per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            pause: Duration::from_secs(30),
            bytes_per_second: 1024,
            total: 1024,
            per_address: 256,
        }
    }
}

impl Limits {
    /// Other counts of connections; each at least one.
    #[must_use]
    pub fn connections(mut self, total: usize, per_address: usize) -> Self {
        self.total = total.max(1);
        self.per_address = per_address.clamp(1, self.total);
        self
    }

    /// Another time for heads, for idle connections, and for pauses.
    #[must_use]
    pub const fn patience(mut self, head: Duration, pause: Duration) -> Self {
        self.head = head;
        self.pause = pause;
        self
    }
}

/// Serves until `end`; then every request that is under way may end, which whoever calls bounds in time.
///
/// Where there are as many connections as there may be, the one that has been idle for longest gives way to a new one; if
/// none is idle, the new one is told so. Each request has the extensions [`Peer`] and axum's `ConnectInfo`.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, end: impl Future<Output = ()>) {
    let crowd = Arc::new(Crowd::new(limits.total, limits.per_address));
    let (close, closing) = watch::channel(false);
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => take(stream, remote, &app, limits, &crowd, &closing),
            Err(e) => {
                // Out of descriptors, most likely: somebody who is idle gives one back.
                crowd.make_room();
                tracing::warn!("a connection cannot be taken: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    close.send_replace(true);
    crowd.emptied().await;
}

fn take(
    mut stream: TcpStream,
    remote: SocketAddr,
    app: &Router,
    limits: Limits,
    crowd: &Arc<Crowd>,
    closing: &watch::Receiver<bool>,
) {
    let _slower_without = stream.set_nodelay(true);
    let Some(place) = Crowd::enter(crowd, remote.ip()) else {
        tokio::spawn(async move {
            let _gone = tokio::time::timeout(PAUSE, stream.write_all(FULL)).await;
        });
        return;
    };
    let local = stream.local_addr().unwrap_or_else(|_| (IpAddr::from([0, 0, 0, 0]), 0).into());
    tokio::spawn(connection(stream, Peer { remote, local }, app.clone(), limits, place, closing.clone()));
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    app: Router,
    limits: Limits,
    place: Place,
    mut closing: watch::Receiver<bool>,
) {
    let state = place.state();
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = state.busy();
        let mut app = app.clone();
        async move {
            let mut request = request.map(|body| Body::new(Paced { body, pace: limits.pace() }));
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(ConnectInfo(peer.remote));
            let response = app.call(request).await?;
            Ok::<_, Infallible>(response.map(|body| Answer { body, _busy: busy }))
        }
    });
    let io = TokioIo::new(Watched { stream, pace: limits.pace() });
    let mut builder = http1::Builder::new();
    let builder = builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let mut served = pin!(builder.serve_connection(io, service));
    let mut told = false;
    loop {
        tokio::select! {
            _ended = served.as_mut() => break,
            () = place.told_to_go() => break,
            _ = closing.wait_for(|closing| *closing), if !told => {
                told = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

impl Limits {
    fn pace(&self) -> Pace {
        Pace::new(self.pause, self.bytes_per_second)
    }
}

/// A request's body that may not be too slow.
struct Paced {
    body: Incoming,
    pace: Pace,
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pace.passed(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let slow = ready!(self.pace.waits(cx));
                Poll::Ready(Some(Err(slow.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body; its connection is busy until it is sent.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose other side must read what it is sent.
struct Watched {
    stream: TcpStream,
    pace: Pace,
}

impl Watched {
    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                self.pace.passed(count);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                let slow = ready!(self.pace.waits(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)))
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Raises this process's limit of open files to what the system allows, at most 65,536; the limit that holds now.
///
/// # Errors
/// The limit cannot be read.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const MOST: u64 = 65_536;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(MOST);
    if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() {
        return Ok(soft);
    }
    Ok(wanted)
}

//! Slow and idle clients against a real server, with limits of fractions of a second.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use door::{Limits, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Longer than every limit here by far: what is not over by then does not end.
const LONG: Duration = Duration::from_mins(1);

struct Server {
    address: std::net::SocketAddr,
    end: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

async fn server(limits: Limits) -> Server {
    let huge = async || Body::from(vec![0; 64 << 20]);
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/huge", get(huge))
        .route(
            "/slow",
            get(async || {
                tokio::time::sleep(Duration::from_millis(300)).await;
                "late"
            }),
        )
        .route(
            "/take",
            post(async |body: Body| {
                axum::body::to_bytes(body, usize::MAX)
                    .await
                    .map(|all| all.len().to_string())
                    .map_err(|_| axum::http::StatusCode::REQUEST_TIMEOUT)
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let served = tokio::spawn(serve(listener, app, limits, async move { drop(ended.await) }));
    Server { address, end: Some(end), served }
}

fn short() -> Limits {
    Limits::default().patience(Duration::from_millis(200), Duration::from_millis(200))
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends, and reads to the end of the connection, which must come.
    async fn all(&self, said: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end too.
    let _reset = tokio::time::timeout(LONG, stream.read_to_end(&mut all)).await.expect("the connection stays open");
    String::from_utf8_lossy(&all).into_owned()
}

async fn hello(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut block = [0; 4096];
    let count = stream.read(&mut block).await.unwrap_or(0);
    String::from_utf8_lossy(&block[..count]).into_owned()
}

#[tokio::test]
async fn idle_connections_and_slow_heads_are_closed() {
    let server = server(short()).await;
    for head in ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let said = server.all(head).await;
        assert!(said.is_empty() || said.contains(" 408 "), "{head:?}: {said}");
    }
    // One that was used, too.
    let mut stream = server.connect().await;
    assert!(hello(&mut stream).await.contains("hello"));
    rest(&mut stream).await;
    // A route that takes longer is not idle.
    assert!(server.all("GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ends_with("late"));
}

#[tokio::test]
async fn a_body_keeps_its_pace_or_ends() {
    let server = server(short()).await;
    let head = "POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    assert!(server.all(&format!("{head}abc")).await.contains(" 408 "), "one that stops");
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    // A byte now and then is no pace.
    let trickled = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, trickled).await.expect("a trickle goes on for ever");
    // One that is slow, but keeps it, is taken whole however long it takes.
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /take HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 81920\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..20 {
        stream.write_all(&[b'x'; 4096]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(rest(&mut stream).await.ends_with("81920"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_written_to_for_ever() {
    let mut server = server(short()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The server ends only when all its connections have.
    drop(server.end.take());
    tokio::time::timeout(LONG, server.served).await.expect("it writes for ever").unwrap();
    drop(stream);
}

#[tokio::test]
async fn idle_sockets_lock_nobody_out_and_busy_ones_are_not_thrown_out() {
    let limits = Limits::default().connections(8, 8);
    let server = server(limits).await;
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(server.connect().await);
    }
    for _ in 0..10 {
        let mut stream = server.connect().await;
        assert!(hello(&mut stream).await.contains("hello"));
        crowd.push(stream);
    }
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect().await;
        stream
            .write_all(b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
            .await
            .unwrap();
        // The route has begun to read.
        let mut line = [0; 25];
        stream.read_exact(&mut line).await.unwrap();
        assert!(line.starts_with(b"HTTP/1.1 100"));
        busy.push(stream);
    }
    let mut ninth = server.connect().await;
    assert!(rest(&mut ninth).await.contains("too many connections"));
    for stream in &mut busy {
        stream.write_all(b"all of it").await.unwrap();
        let mut block = [0; 512];
        let count = stream.read(&mut block).await.unwrap();
        assert!(String::from_utf8_lossy(&block[..count]).ends_with('9'));
    }
    let mut stream = server.connect().await;
    assert!(hello(&mut stream).await.contains("hello"));
}

#[test]
fn the_descriptor_limit_is_raised_and_reported() {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let now = door::raise_descriptor_limit().unwrap();
    assert_eq!(nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap(), (now, hard));
    assert_eq!(now, hard.min(65_536).max(now));
}

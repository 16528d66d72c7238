//! How slow the other side may be: a pause in all, which every byte wins back a little of.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Time that a peer may be waited for. Only the waiting counts, never what the server itself takes.
#[derive(Debug)]
pub(crate) struct Pace {
    most: Duration,
    left: Duration,
    /// For each byte that has passed, in nanoseconds.
    per_byte: u64,
    since: Option<Instant>,
    end: Pin<Box<Sleep>>,
}

/// The peer is too slow.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the other side is too slow")]
pub(crate) struct TooSlow;

impl Pace {
    /// At most `most` of waiting at once; and, in the long run, at least so many bytes a second.
    pub(crate) fn new(most: Duration, bytes_per_second: u64) -> Self {
        let per_byte = 1_000_000_000 / bytes_per_second.clamp(1, 1_000_000_000);
        Self { most, left: most, per_byte, since: None, end: Box::pin(tokio::time::sleep(most)) }
    }

    /// Bytes have passed.
    pub(crate) fn passed(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let won = Duration::from_nanos(self.per_byte.saturating_mul(bytes as u64));
        self.left = self.left.saturating_add(won).min(self.most);
    }

    /// The peer is waited for; ready when it has been for too long.
    pub(crate) fn waits(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            self.end.as_mut().reset(now + self.left);
        }
        self.end.as_mut().poll(cx).map(|()| TooSlow)
    }
}

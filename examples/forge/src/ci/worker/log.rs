//! A job's output on its way to the router: in parts, each at its offset, up to the limit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::Client;
use crate::ci::wire::Assignment;

/// Output waits this long for more before it is sent.
const GATHER: Duration = Duration::from_millis(200);
/// The most that is sent at once.
const PART: usize = 64 << 10;

/// Sends what comes from `output` until it ends. What the router cannot take is lost, not waited for:
/// a log decides nothing.
pub(super) async fn ship(client: Client, job: Assignment, mut output: mpsc::Receiver<Bytes>) {
    let mut log = Cut::new(job.log_limit);
    let mut waiting = BytesMut::new();
    let mut sent: u64 = 0;
    loop {
        let open = gather(&mut output, &mut waiting, &mut log).await;
        while !waiting.is_empty() {
            let part = waiting.split_to(waiting.len().min(PART)).freeze();
            let length = u64::try_from(part.len()).unwrap_or(0);
            match client.log(&job.lease, sent, part).await {
                Ok(()) => {}
                Err(e) => tracing::debug!("a part of the log of {} is lost: {e:#}", job.title),
            }
            sent += length;
        }
        if !open {
            return;
        }
    }
}

/// Collects output until it pauses, is much, or ends; `false` when it has ended.
async fn gather(output: &mut mpsc::Receiver<Bytes>, waiting: &mut BytesMut, log: &mut Cut) -> bool {
    let Some(first) = output.recv().await else { return false };
    log.take(&first, waiting);
    let until = Instant::now() + GATHER;
    while waiting.len() < PART {
        match tokio::time::timeout_at(until, output.recv()).await {
            Ok(Some(part)) => log.take(&part, waiting),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
    true
}

/// Lets through up to the limit, and says once that more was there.
struct Cut {
    left: u64,
    limit: u64,
    said: bool,
}

impl Cut {
    const fn new(limit: u64) -> Self {
        Self { left: limit, limit, said: false }
    }

    fn take(&mut self, part: &[u8], into: &mut BytesMut) {
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(part.len());
        into.extend_from_slice(&part[..fits]);
        self.left -= u64::try_from(fits).unwrap_or(0);
        if fits < part.len() && !self.said {
            self.said = true;
            into.extend_from_slice(format!("\nforge: the log is cut here, at {} bytes\n", self.limit).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_once() {
        let mut cut = Cut::new(5);
        let mut out = BytesMut::new();
        for part in [&b"abc"[..], b"def", b"ghi"] {
            cut.take(part, &mut out);
        }
        assert_eq!(&out[..], b"abcde\nforge: the log is cut here, at 5 bytes\n");
    }
}

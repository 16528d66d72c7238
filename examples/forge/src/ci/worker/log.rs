//! A job's output on its way to the router: in parts, each at its offset, up to the limit.

use std::collections::VecDeque;
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
/// Of a log that is cut, so large a part is its end: one in so many.
const KEPT_OF: u64 = 4;

/// Sends what comes from `output` until it ends. What the router cannot take is lost, not waited for:
/// a log decides nothing.
pub(super) async fn ship(client: Client, job: Assignment, mut output: mpsc::Receiver<Bytes>) {
    let mut log = Cut::new(job.log_limit);
    let mut waiting = BytesMut::new();
    let mut sent: u64 = 0;
    loop {
        let open = gather(&mut output, &mut waiting, &mut log).await;
        if !open {
            log.finish(&mut waiting);
        }
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

/// Lets through up to a limit; of what is more it keeps the end, where one reads why a job failed.
struct Cut {
    /// What may still pass as it comes.
    left: u64,
    /// The newest of what came after that.
    end: VecDeque<u8>,
    /// So much of it is kept.
    keeps: usize,
    left_out: u64,
}

impl Cut {
    fn new(limit: u64) -> Self {
        let keeps = limit / KEPT_OF;
        let end = VecDeque::new();
        Self { left: limit - keeps, end, keeps: usize::try_from(keeps).unwrap_or(usize::MAX), left_out: 0 }
    }

    fn take(&mut self, part: &[u8], into: &mut BytesMut) {
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(part.len());
        into.extend_from_slice(&part[..fits]);
        self.left -= u64::try_from(fits).unwrap_or(0);
        self.end.extend(&part[fits..]);
        let over = self.end.len().saturating_sub(self.keeps);
        self.end.drain(..over);
        self.left_out += u64::try_from(over).unwrap_or(0);
    }

    /// Nothing follows: the end comes, and before it how much is left out.
    fn finish(&mut self, into: &mut BytesMut) {
        if self.left_out > 0 {
            into.extend_from_slice(format!("\nforge: {} bytes are left out here\n", self.left_out).as_bytes());
        }
        let end = std::mem::take(&mut self.end);
        into.extend_from_slice(&Vec::from(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_cut_keeps_its_beginning_and_its_end() {
        let cut = |limit, parts: &[&[u8]]| {
            let mut cut = Cut::new(limit);
            let mut out = BytesMut::new();
            for part in parts {
                cut.take(part, &mut out);
            }
            cut.finish(&mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(cut(8, &[b"abc", b"def", b"ghi", b"jkl"]), "abcdef\nforge: 4 bytes are left out here\nkl");
        assert_eq!(cut(8, &[b"abc", b"defgh"]), "abcdefgh", "what fits is whole");
        assert_eq!(cut(8, &[b"abcdefghi"]), "abcdef\nforge: 1 bytes are left out here\nhi");
        assert_eq!(cut(0, &[b"abc"]), "\nforge: 3 bytes are left out here\n");
    }
}

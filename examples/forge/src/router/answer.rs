//! Replies to a push that the router gives itself: when no node may take it, or when the node that
//! took it died and its outcome is known. A stock client shows them like any other.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use tokio::io::AsyncRead;

use crate::git::pkt;

/// What became of every ref of a push.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict<'a> {
    Accepted,
    Rejected(&'a str),
}

/// What a push asks for: read from the start of its body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    refs: Vec<Vec<u8>>,
    side_band: Option<usize>,
    report: bool,
}

impl Asked {
    /// Reads the commands that lead the body of `git-receive-pack`.
    ///
    /// # Errors
    /// The body does not start with at most `most` commands and a flush.
    pub(crate) async fn read(body: &mut (impl AsyncRead + Unpin), most: usize) -> Result<Self, pkt::PktError> {
        let mut asked = Self::default();
        for line in pkt::section(body, most).await? {
            let mut parts = line.splitn(2, |b| *b == 0);
            let command = parts.next().unwrap_or_default();
            if let Some(capabilities) = parts.next() {
                asked.learn(capabilities);
            }
            // `shallow ID` lines and the like are no commands.
            let mut words = command.splitn(3, |b| *b == b' ');
            if let (Some(_old), Some(_new), Some(name)) = (words.next(), words.next(), words.next()) {
                asked.refs.push(name.strip_suffix(b"\n").unwrap_or(name).to_vec());
            }
        }
        Ok(asked)
    }

    /// How many refs.
    pub(crate) fn len(&self) -> usize {
        self.refs.len()
    }

    fn learn(&mut self, capabilities: &[u8]) {
        for word in capabilities.split(u8::is_ascii_whitespace) {
            match word {
                b"report-status" | b"report-status-v2" => self.report = true,
                b"side-band-64k" => self.side_band = Some(pkt::MAX_PAYLOAD - 1),
                b"side-band" if self.side_band.is_none() => self.side_band = Some(995),
                _ => {}
            }
        }
    }

    /// The reply that gives every ref the same verdict.
    pub(crate) fn reply(&self, verdict: Verdict<'_>) -> Response {
        let mut out = Vec::new();
        if self.report {
            let mut report = Vec::new();
            pkt::put(&mut report, b"unpack ok\n");
            for name in &self.refs {
                let mut line = Vec::new();
                match verdict {
                    Verdict::Accepted => line.extend_from_slice(b"ok "),
                    Verdict::Rejected(_) => line.extend_from_slice(b"ng "),
                }
                line.extend_from_slice(name);
                if let Verdict::Rejected(reason) = verdict {
                    line.push(b' ');
                    line.extend_from_slice(one_line(reason).as_bytes());
                }
                line.push(b'\n');
                pkt::put(&mut report, &line);
            }
            pkt::flush(&mut report);
            match self.side_band {
                None => out = report,
                Some(most) => {
                    for part in report.chunks(most) {
                        let mut band = vec![1];
                        band.extend_from_slice(part);
                        pkt::put(&mut out, &band);
                    }
                    pkt::flush(&mut out);
                }
            }
        }
        receive_pack_result(Body::from(out))
    }
}

/// A reply to `POST git-receive-pack`.
pub(crate) fn receive_pack_result(body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-git-receive-pack-result"));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
    response
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(capabilities: &str) -> Vec<u8> {
        let mut body = Vec::new();
        let id = "1".repeat(40);
        pkt::put(&mut body, format!("shallow {id}\n").as_bytes());
        pkt::put(&mut body, format!("{id} {id} refs/heads/a\0 {capabilities}\n").as_bytes());
        pkt::put(&mut body, format!("{id} {id} refs/heads/b\n").as_bytes());
        pkt::flush(&mut body);
        body.extend_from_slice(b"PACK...");
        body
    }

    async fn reply(capabilities: &str, verdict: Verdict<'_>) -> String {
        let body = body(capabilities);
        let asked = Asked::read(&mut &body[..], 10).await.unwrap();
        assert_eq!(asked.refs, [b"refs/heads/a".to_vec(), b"refs/heads/b".to_vec()]);
        let bytes = axum::body::to_bytes(asked.reply(verdict).into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_ref_gets_the_verdict() {
        let plain = reply("report-status", Verdict::Rejected("no\nquorum")).await;
        assert_eq!(plain, "000eunpack ok\n001eng refs/heads/a no quorum\n001eng refs/heads/b no quorum\n0000");
        let banded = reply("report-status-v2 side-band-64k agent=x", Verdict::Accepted).await;
        assert_eq!(banded, "003f\u{1}000eunpack ok\n0014ok refs/heads/a\n0014ok refs/heads/b\n00000000");
        assert_eq!(reply("quiet", Verdict::Accepted).await, "");
    }

    #[tokio::test]
    async fn too_many_or_torn_commands_are_refused() {
        assert!(Asked::read(&mut &body("")[..], 1).await.is_err());
        assert!(Asked::read(&mut &b"00ffabc"[..], 10).await.is_err());
    }
}

//! A push as the client sent it, and the reply that a stock client shows: a verdict on each ref.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::git::pkt;

/// More push options than this are refused.
const MOST_OPTIONS: usize = 64;
const SIGNED: &str = "signed pushes (push certificates) are not taken here; push without --signed";
const SHA256: &str = "repositories with SHA-256 ids are not taken here";

/// What a push asks for: read from the start of its body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    commands: Vec<Command>,
    options: Vec<String>,
    shallow: bool,
    /// What about it is not taken here, in words.
    foreign: Option<&'static str>,
    side_band: Option<usize>,
    report: bool,
    /// Where the pack begins in the body.
    pub(crate) pack: u64,
}

/// One ref that is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// `OLD NEW NAME`, as nodes read it.
    line: Vec<u8>,
    new: Vec<u8>,
    name: Vec<u8>,
}

impl Command {
    /// Whether the ref is to be removed.
    pub(crate) fn deletes(&self) -> bool {
        self.new.iter().all(|b| *b == b'0')
    }
}

/// Counts what is read through it.
struct Counted<R> {
    from: R,
    read: u64,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.from).poll_read(cx, buf);
        self.read += (buf.filled().len() - before) as u64;
        polled
    }
}

impl Asked {
    /// Reads the commands that lead the body of `git-receive-pack`, and the push options.
    ///
    /// # Errors
    /// The body does not start with at most `most` commands and a flush.
    pub(crate) async fn read(body: impl AsyncRead + Unpin, most: usize) -> Result<Self, pkt::PktError> {
        let mut body = Counted { from: body, read: 0 };
        let mut asked = Self::default();
        let mut options = false;
        for line in pkt::section(&mut body, most).await? {
            let mut parts = line.splitn(2, |b| *b == 0);
            let command = parts.next().unwrap_or_default();
            if let Some(capabilities) = parts.next() {
                options |= asked.learn(capabilities);
            }
            asked.take(command.strip_suffix(b"\n").unwrap_or(command));
        }
        if options {
            let lines = pkt::section(&mut body, MOST_OPTIONS).await?;
            asked.options = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        }
        asked.pack = body.read;
        Ok(asked)
    }

    fn take(&mut self, line: &[u8]) {
        self.shallow |= line.starts_with(b"shallow ");
        if line.starts_with(b"push-cert") {
            self.foreign = Some(SIGNED);
        }
        let mut words = line.splitn(3, |b| *b == b' ');
        if let (Some(old), Some(new), Some(name)) = (words.next(), words.next(), words.next()) {
            let ids = [old, new].map(|id| id.len() == 40 && id.iter().all(u8::is_ascii_hexdigit));
            // A name that Git would not have sent cannot be answered line by line.
            if ids == [true, true] && self.foreign.is_none() && !name.contains(&b'\n') {
                self.commands.push(Command { line: line.to_vec(), new: new.to_vec(), name: name.to_vec() });
            } else if old.len() == 64 {
                self.foreign = Some(SHA256);
            }
        }
    }

    /// Learns what the client understands; whether push options follow.
    fn learn(&mut self, capabilities: &[u8]) -> bool {
        let mut options = false;
        for word in capabilities.split(u8::is_ascii_whitespace) {
            match word {
                b"report-status" | b"report-status-v2" => self.report = true,
                b"side-band-64k" => self.side_band = Some(pkt::MAX_PAYLOAD - 1),
                b"side-band" if self.side_band.is_none() => self.side_band = Some(995),
                b"push-options" => options = true,
                b"object-format=sha256" => self.foreign = Some(SHA256),
                _ if word.starts_with(b"push-cert=") => self.foreign = Some(SIGNED),
                _ => {}
            }
        }
        options
    }

    /// What no node needs to see, said in words.
    pub(crate) fn out_of_question(&self, most: usize) -> Option<String> {
        if let Some(why) = self.foreign {
            return Some(why.to_owned());
        }
        (self.commands.len() > most)
            .then(|| format!("{} refs in one push, at most {most} are allowed", self.commands.len()))
    }

    pub(crate) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Whether the client has not all the history itself.
    pub(crate) fn is_shallow(&self) -> bool {
        self.shallow
    }

    pub(crate) fn options(&self) -> &[String] {
        &self.options
    }

    /// The commands for a node.
    pub(crate) fn pkt_lines(&self) -> Bytes {
        let mut out = Vec::new();
        for command in &self.commands {
            pkt::put(&mut out, &command.line);
        }
        pkt::flush(&mut out);
        out.into()
    }

    /// The ids that the refs are to get, each once.
    pub(crate) fn tips(&self) -> Vec<String> {
        let set = self.commands.iter().filter(|command| !command.deletes());
        let mut tips: Vec<String> = set.map(|c| String::from_utf8_lossy(&c.new).into_owned()).collect();
        tips.sort_unstable();
        tips.dedup();
        tips
    }

    /// The reply that gives every ref the same verdict; `None` is `ok`.
    pub(crate) fn reply(&self, verdict: Option<&str>) -> Response {
        let verdicts: Vec<_> = self.commands.iter().map(|_| verdict.map(str::to_owned)).collect();
        self.verdicts(&verdicts, &[])
    }

    /// The reply with a verdict on each command, and lines that the user reads (`remote: …`) before.
    pub(crate) fn verdicts(&self, verdicts: &[Option<String>], said: &[String]) -> Response {
        let mut out = Vec::new();
        if let Some(most) = self.side_band {
            for line in said {
                band(&mut out, 2, most, format!("{}\n", one_line(line)).as_bytes());
            }
        }
        if self.report {
            let mut report = Vec::new();
            pkt::put(&mut report, b"unpack ok\n");
            for (command, verdict) in self.commands.iter().zip(verdicts) {
                let mut line = if verdict.is_none() { b"ok ".to_vec() } else { b"ng ".to_vec() };
                line.extend_from_slice(&command.name);
                if let Some(reason) = verdict {
                    line.push(b' ');
                    line.extend_from_slice(one_line(reason).as_bytes());
                }
                line.push(b'\n');
                pkt::put(&mut report, &line);
            }
            pkt::flush(&mut report);
            match self.side_band {
                None => out = report,
                Some(most) => band(&mut out, 1, most, &report),
            }
        }
        if self.side_band.is_some() && !out.is_empty() {
            pkt::flush(&mut out);
        }
        receive_pack_result(Body::from(out))
    }
}

fn band(out: &mut Vec<u8>, number: u8, most: usize, data: &[u8]) {
    for part in data.chunks(most) {
        let mut line = vec![number];
        line.extend_from_slice(part);
        pkt::put(out, &line);
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
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(capabilities: &str, options: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        let id = "1".repeat(40);
        pkt::put(&mut body, format!("shallow {id}\n").as_bytes());
        pkt::put(&mut body, format!("{id} {id} refs/heads/a\0 {capabilities}\n").as_bytes());
        pkt::put(&mut body, format!("{id} {} refs/heads/b\n", "0".repeat(40)).as_bytes());
        pkt::flush(&mut body);
        if !options.is_empty() {
            for option in options {
                pkt::put(&mut body, option.as_bytes());
            }
            pkt::flush(&mut body);
        }
        body.extend_from_slice(b"PACK...");
        body
    }

    async fn reply(capabilities: &str, verdict: Option<&str>) -> String {
        let body = body(capabilities, &[]);
        let asked = Asked::read(&body[..], 10).await.unwrap();
        let names: Vec<_> = asked.commands().iter().map(|c| (&c.name[..], c.deletes())).collect();
        assert_eq!(names, [(&b"refs/heads/a"[..], false), (b"refs/heads/b", true)]);
        assert_eq!(&body[usize::try_from(asked.pack).unwrap()..], b"PACK...");
        assert!(asked.is_shallow() && asked.tips() == ["1".repeat(40)]);
        let bytes = axum::body::to_bytes(asked.reply(verdict).into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_ref_gets_the_verdict() {
        let plain = reply("report-status", Some("no\nquorum")).await;
        assert_eq!(plain, "000eunpack ok\n001eng refs/heads/a no quorum\n001eng refs/heads/b no quorum\n0000");
        let banded = reply("report-status-v2 side-band-64k agent=x", None).await;
        assert_eq!(banded, "003f\u{1}000eunpack ok\n0014ok refs/heads/a\n0014ok refs/heads/b\n00000000");
        assert_eq!(reply("quiet", None).await, "");
    }

    #[tokio::test]
    async fn options_stand_between_the_commands_and_the_pack() {
        let body = body("report-status push-options", &["ci.skip", "x=y"]);
        let asked = Asked::read(&body[..], 10).await.unwrap();
        assert_eq!(asked.options(), ["ci.skip", "x=y"]);
        assert_eq!(&body[usize::try_from(asked.pack).unwrap()..], b"PACK...");
    }

    #[tokio::test]
    async fn what_is_not_spoken_here_is_said_once_and_in_words() {
        let out = async |capabilities: &str| {
            let asked = Asked::read(&body(capabilities, &[])[..], 10).await.unwrap();
            asked.out_of_question(10).unwrap_or_default()
        };
        assert!(out("report-status push-cert=nonce").await.contains("push certificates"));
        assert!(out("report-status object-format=sha256").await.contains("SHA-256"));
        assert_eq!(out("report-status object-format=sha1").await, "");
    }

    #[tokio::test]
    async fn too_many_or_torn_commands_are_refused() {
        assert!(Asked::read(&body("", &[])[..], 1).await.is_err());
        assert!(Asked::read(&b"00ffabc"[..], 10).await.is_err());
    }
}

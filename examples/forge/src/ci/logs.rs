//! Job logs: one file an attempt, written in parts that may be repeated.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use tenon_jobqueue::JobKey;

/// The folder of all logs.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    limit: u64,
}

/// The end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) text: String,
    /// How many bytes stand before it.
    pub(crate) before: u64,
}

impl Logs {
    /// Logs of at most `limit` bytes each, and a line that says so.
    pub(crate) fn open(folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, limit })
    }

    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Writes what `part`, which begins at `offset`, adds to the log; how long that is now. A part beyond the end, or
    /// beyond the limit, is not written.
    pub(crate) fn append(&self, key: JobKey, offset: u64, part: &[u8]) -> io::Result<u64> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.file(key))?;
        let length = file.metadata()?.len();
        let most = self.limit.saturating_add(4096);
        let Some(known) = length.checked_sub(offset).and_then(|n| usize::try_from(n).ok()) else { return Ok(length) };
        let new = part.get(known..).unwrap_or_default();
        if new.is_empty() || length + new.len() as u64 > most {
            return Ok(length);
        }
        file.write_all(new)?;
        Ok(length + new.len() as u64)
    }

    /// The last `most` bytes, from the beginning of a line.
    pub(crate) fn tail(&self, key: JobKey, most: u64) -> io::Result<Tail> {
        let mut file = match File::open(self.file(key)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Tail { text: String::new(), before: 0 }),
            Err(e) => return Err(e),
        };
        let mut before = file.metadata()?.len().saturating_sub(most);
        file.seek(SeekFrom::Start(before))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        if before > 0
            && let Some(end) = bytes.iter().position(|b| *b == b'\n')
        {
            bytes.drain(..=end);
            before += end as u64 + 1;
        }
        Ok(Tail { text: plain(&bytes), before })
    }

    /// Removes a log, if there is one.
    pub(crate) fn remove(&self, key: JobKey) -> io::Result<()> {
        match fs::remove_file(self.file(key)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn file(&self, key: JobKey) -> PathBuf {
        self.folder.join(format!("{}-{}.log", key.job, key.attempt))
    }
}

/// Text without terminal control: colours go, a carriage return begins the line again.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                // A control sequence ends with a letter or one of a few signs (ECMA-48, 5.4).
                while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c) || c == '[') {}
            }
            '\r' if chars.peek() != Some(&'\n') => out.truncate(out.rfind('\n').map_or(0, |at| at + 1)),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_jobqueue::{Attempt, JobId};

    const KEY: JobKey = JobKey { job: JobId::new(3), attempt: Attempt::FIRST };

    #[test]
    fn parts_are_written_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path().join("logs"), 1 << 20).unwrap();
        assert_eq!(logs.tail(KEY, 10).unwrap().text, "");
        assert_eq!(logs.append(KEY, 0, b"one\ntwo\n").unwrap(), 8);
        assert_eq!(logs.append(KEY, 0, b"one\ntwo\n").unwrap(), 8, "repeated");
        assert_eq!(logs.append(KEY, 4, b"two\nthree\n").unwrap(), 14, "overlapping");
        assert_eq!(logs.append(KEY, 99, b"lost").unwrap(), 14, "beyond the end");
        assert_eq!(logs.tail(KEY, 1 << 20).unwrap(), Tail { text: "one\ntwo\nthree\n".into(), before: 0 });
        assert_eq!(logs.tail(KEY, 9).unwrap(), Tail { text: "three\n".into(), before: 8 });
    }

    #[test]
    fn a_log_ends_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path().join("logs"), 10).unwrap();
        assert_eq!(logs.append(KEY, 0, &[b'x'; 4000]).unwrap(), 4000);
        assert_eq!(logs.append(KEY, 4000, &[b'x'; 4000]).unwrap(), 4000);
    }

    #[test]
    fn terminal_control_goes() {
        assert_eq!(plain(b"\x1b[1;32mok\x1b[0m\n10 %\r20 %\ra\x07b\r\nend\xff"), "ok\nab\nend\u{fffd}");
    }
}

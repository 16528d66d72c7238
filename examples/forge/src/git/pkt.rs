//! Git's pkt-lines: four hexadecimal digits of length, then the payload; `0000` ends a section.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest payload that a pkt-line can carry.
pub(crate) const MAX_PAYLOAD: usize = 65516;

/// One pkt-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pkt {
    Data(Vec<u8>),
    Flush,
    Delimiter,
    ResponseEnd,
}

impl Pkt {
    /// The payload as text without its line feed; `None` for a special packet.
    pub(crate) fn line(&self) -> Option<&[u8]> {
        match self {
            Pkt::Data(data) => Some(data.strip_suffix(b"\n").unwrap_or(data)),
            Pkt::Flush | Pkt::Delimiter | Pkt::ResponseEnd => None,
        }
    }
}

/// Why bytes are not pkt-lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PktError {
    #[error("pkt-line: {0}")]
    Io(#[from] std::io::Error),
    #[error("pkt-line: {0:?} is not a length")]
    Length([u8; 4]),
    #[error("pkt-line: more than {0} of them")]
    TooMany(usize),
}

/// Appends one line.
pub(crate) fn put(out: &mut Vec<u8>, payload: &[u8]) {
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    out.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    out.extend_from_slice(payload);
}

/// Appends the end of a section.
pub(crate) fn flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Reads one pkt-line.
///
/// # Errors
/// The stream ended or the length is malformed; the stream is then of no more use.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Pkt, PktError> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await?;
    let length = std::str::from_utf8(&head)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or(PktError::Length(head))?;
    match length {
        0 => Ok(Pkt::Flush),
        1 => Ok(Pkt::Delimiter),
        2 => Ok(Pkt::ResponseEnd),
        3 => Err(PktError::Length(head)),
        _ => {
            let mut data = vec![0; length - 4];
            from.read_exact(&mut data).await?;
            Ok(Pkt::Data(data))
        }
    }
}

/// Reads the lines of one section, up to its flush.
///
/// # Errors
/// As [`read`], or the section has more than `limit` lines.
pub(crate) async fn section(from: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Vec<Vec<u8>>, PktError> {
    let mut lines = Vec::new();
    loop {
        let packet = read(from).await?;
        let Some(line) = packet.line() else { return Ok(lines) };
        if lines.len() == limit {
            return Err(PktError::TooMany(limit));
        }
        lines.push(line.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_is_read() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"version=1\n");
        put(&mut bytes, b"");
        flush(&mut bytes);
        let mut from = bytes.as_slice();
        assert_eq!(section(&mut from, 9).await.unwrap(), vec![b"version=1".to_vec(), Vec::new()]);
        assert!(from.is_empty());
    }

    #[tokio::test]
    async fn hostile_lengths_are_errors() {
        for bytes in [&b"0003"[..], b"zzzz", b"+004", b"-004", b"00", b"0008abc", b"\xff\xff\xff\xff"] {
            assert!(read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
        let mut many = Vec::new();
        (0..5).for_each(|_| put(&mut many, b"x"));
        assert!(matches!(section(&mut many.as_slice(), 4).await, Err(PktError::TooMany(4))));
    }
}

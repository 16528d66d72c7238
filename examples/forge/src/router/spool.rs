//! Request bodies taken in whole before anything is decided, so that a slow client holds no lock.

use std::path::{Path, PathBuf};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

/// What is larger goes to a file.
const IN_MEMORY: usize = 1 << 20;

/// A body that is too large is drained up to so many times the limit, so that its sender hears why.
const DRAINED: u64 = 8;

/// A whole request body.
#[derive(Debug)]
pub(crate) enum Spooled {
    Memory(Bytes),
    /// A file that is gone when this is dropped.
    File {
        path: TempPath,
        len: u64,
    },
}

/// Why a body was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("the body is larger than the {limit} bytes allowed")]
    TooLarge { limit: u64, start: Spooled },
    #[error("the client broke off: {0}")]
    Broken(axum::Error),
    #[error("the spool folder cannot be written: {0}")]
    Disk(#[from] std::io::Error),
}

/// Where bodies go, and how large they may be.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

impl Spool {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Takes a body in, up to `most` bytes.
    pub(crate) async fn take(&self, body: Body, most: u64) -> Result<Spooled, SpoolError> {
        let mut stream = body.into_data_stream();
        let mut start = BytesMut::new();
        let mut file = None;
        let mut len = 0_u64;
        let mut too_large = false;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(SpoolError::Broken)?;
            len += chunk.len() as u64;
            if len > most.saturating_mul(DRAINED) {
                return Err(SpoolError::Broken(axum::Error::new("a body far beyond the limit")));
            }
            if len > most {
                // The rest is taken and dropped: a client that is not listened to does not listen.
                too_large = true;
                continue;
            }
            if file.is_none() && start.len() + chunk.len() <= IN_MEMORY {
                start.extend_from_slice(&chunk);
                continue;
            }
            if file.is_none() {
                let (mut out, path) = self.file().await?;
                out.write_all(&start).await?;
                start = BytesMut::new();
                file = Some((out, path));
            }
            if let Some((out, _)) = &mut file {
                out.write_all(&chunk).await?;
            }
        }
        let taken = match file {
            None => Spooled::Memory(start.freeze()),
            Some((mut out, path)) => {
                out.flush().await?;
                Spooled::File { path, len }
            }
        };
        if too_large { Err(SpoolError::TooLarge { limit: most, start: taken }) } else { Ok(taken) }
    }

    async fn file(&self) -> std::io::Result<(File, TempPath)> {
        let folder = self.folder.clone();
        let made = tokio::task::spawn_blocking(move || tempfile::NamedTempFile::new_in(folder)).await;
        let (file, path) = made.map_err(std::io::Error::other)??.into_parts();
        Ok((File::from_std(file), path))
    }
}

impl Spooled {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// The first bytes, if they are in memory: enough to tell a probe from a push.
    pub(crate) fn is_flush(&self) -> bool {
        matches!(self, Self::Memory(bytes) if &bytes[..] == b"0000")
    }

    /// The body as a reader, from its start.
    pub(crate) async fn reader(&self) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin + '_>> {
        match self {
            Self::Memory(bytes) => Ok(Box::new(&bytes[..])),
            Self::File { path, .. } => Ok(Box::new(tokio::io::BufReader::new(File::open(path).await?))),
        }
    }

    /// The body once more, from `start` on.
    pub(crate) async fn body(
        &self,
        start: u64,
    ) -> std::io::Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
        match self {
            Self::Memory(bytes) => {
                let rest = bytes.slice(usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len())..);
                Ok(futures_util::stream::once(async move { Ok(rest) }).left_stream())
            }
            Self::File { path, .. } => {
                let mut file = File::open(path).await?;
                file.seek(std::io::SeekFrom::Start(start)).await?;
                Ok(ReaderStream::with_capacity(file, 1 << 16).right_stream())
            }
        }
    }
}

//! Request bodies taken in whole before anything is decided, so that a slow client holds no lock.

use std::io::ErrorKind;
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
    #[error("there is no room for the body on the disk")]
    Full {
        /// As much of it as there was room for.
        start: Spooled,
    },
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
        let mut intake = Intake { spool: self, start: BytesMut::new(), file: None };
        let mut len = 0_u64;
        // The rest is taken and dropped then: a client that is not listened to does not listen.
        let (mut too_large, mut full) = (false, false);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(SpoolError::Broken)?;
            len += chunk.len() as u64;
            if len > most.saturating_mul(DRAINED) {
                return Err(SpoolError::Broken(axum::Error::new("a body far beyond the limit")));
            }
            too_large |= len > most;
            if too_large || full {
                continue;
            }
            match intake.put(&chunk).await {
                Ok(()) => {}
                Err(e) if is_full(&e) => full = true,
                Err(e) => return Err(e.into()),
            }
        }
        let taken = match intake.finish().await {
            Ok(taken) => taken,
            Err((e, taken)) if is_full(&e) => {
                full = true;
                taken
            }
            Err((e, _)) => return Err(e.into()),
        };
        match (too_large, full) {
            (true, _) => Err(SpoolError::TooLarge { limit: most, start: taken }),
            (false, true) => Err(SpoolError::Full { start: taken }),
            (false, false) => Ok(taken),
        }
    }

    async fn file(&self) -> std::io::Result<(File, TempPath)> {
        let folder = self.folder.clone();
        let made = tokio::task::spawn_blocking(move || tempfile::NamedTempFile::new_in(folder)).await;
        let (file, path) = made.map_err(std::io::Error::other)??.into_parts();
        Ok((File::from_std(file), path))
    }
}

/// A body on its way in.
struct Intake<'a> {
    spool: &'a Spool,
    start: BytesMut,
    /// Once it is too much for memory: all of it, and how much that is.
    file: Option<(File, TempPath, u64)>,
}

impl Intake<'_> {
    async fn put(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() && self.start.len() + chunk.len() <= IN_MEMORY {
            self.start.extend_from_slice(chunk);
            return Ok(());
        }
        if self.file.is_none() {
            let (mut out, path) = self.spool.file().await?;
            out.write_all(&self.start).await?;
            out.flush().await?;
            let start = std::mem::take(&mut self.start);
            self.file = Some((out, path, start.len() as u64));
        }
        if let Some((out, _, len)) = &mut self.file {
            out.write_all(chunk).await?;
            *len += chunk.len() as u64;
        }
        Ok(())
    }

    /// The whole, or what could not be written and what is there of it.
    async fn finish(self) -> Result<Spooled, (std::io::Error, Spooled)> {
        let Some((mut out, path, len)) = self.file else { return Ok(Spooled::Memory(self.start.freeze())) };
        let flushed = out.flush().await;
        let taken = Spooled::File { path, len };
        match flushed {
            Ok(()) => Ok(taken),
            Err(e) => Err((e, taken)),
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
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

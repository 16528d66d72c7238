//! Request bodies taken in whole before anything is decided, so that a slow client holds no lock.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

/// What is larger goes to a file.
const IN_MEMORY: usize = 1 << 20;

/// A whole request body.
#[derive(Debug)]
pub(crate) enum Spooled {
    Memory(Bytes),
    /// A file without a name: it is gone when this is dropped.
    File {
        file: File,
        len: u64,
    },
}

/// Why a body was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("the body is larger than the {0} bytes allowed")]
    TooLarge(u64),
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
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(SpoolError::Broken)?;
            len += chunk.len() as u64;
            if len > most {
                return Err(SpoolError::TooLarge(most));
            }
            if file.is_none() && start.len() + chunk.len() <= IN_MEMORY {
                start.extend_from_slice(&chunk);
                continue;
            }
            let out = match &mut file {
                Some(out) => out,
                None => {
                    let mut out = self.nameless().await?;
                    out.write_all(&start).await?;
                    start = BytesMut::new();
                    file.insert(out)
                }
            };
            out.write_all(&chunk).await?;
        }
        match file {
            None => Ok(Spooled::Memory(start.freeze())),
            Some(mut file) => {
                file.flush().await?;
                Ok(Spooled::File { file, len })
            }
        }
    }

    async fn nameless(&self) -> std::io::Result<File> {
        let folder = self.folder.clone();
        let made = tokio::task::spawn_blocking(move || tempfile::tempfile_in(folder)).await;
        Ok(File::from_std(made.map_err(std::io::Error::other)??))
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

    /// The body once more, from its start.
    pub(crate) async fn body(&self) -> std::io::Result<reqwest::Body> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone().into()),
            Self::File { file, .. } => {
                let mut again = file.try_clone().await?;
                again.seek(SeekFrom::Start(0)).await?;
                Ok(reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(again, 1 << 16)))
            }
        }
    }
}

//! `forge backup` and `forge restore`: every repository of a running forge into a folder, and from there into a running one.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use super::{ClientArgs, say};

/// Written last: a folder without it is no whole backup.
const MANIFEST: &str = "manifest.json";
/// The format of what this program writes.
const FORMAT: u32 = 1;

/// A folder for a backup.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The folder: for a backup a new one.
    folder: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
}

/// What a backup has.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    repositories: Vec<Kept>,
}

/// One repository of a backup.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    file: String,
    bytes: u64,
}

pub(super) async fn back_up(args: BackupArgs) -> Result<()> {
    let client = args.client.client()?;
    let folder = args.folder;
    match fs::create_dir(&folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => bail!("{} is there already", folder.display()),
        other => other.with_context(|| format!("cannot make the folder {}", folder.display()))?,
    }
    let mut manifest = Manifest { format: FORMAT, repositories: Vec::new() };
    for repo in client.names().await? {
        let file = format!("{}.repository", repo.id);
        let bytes = keep(client.export(&repo.name).await?, &folder.join(&file))
            .await
            .with_context(|| format!("{} is not backed up", repo.name))?;
        manifest.repositories.push(Kept { name: repo.name, file, bytes });
    }
    let partial = folder.join("manifest.new");
    let mut out = File::create(&partial)?;
    out.write_all(&serde_json::to_vec_pretty(&manifest)?)?;
    out.sync_all()?;
    fs::rename(partial, folder.join(MANIFEST))?;
    File::open(&folder)?.sync_all()?;
    let bytes: u64 = manifest.repositories.iter().map(|kept| kept.bytes).sum();
    say(&format!("{} repositories, {bytes} bytes, are in {}\n", manifest.repositories.len(), folder.display()));
    Ok(())
}

async fn keep(reply: reqwest::Response, file: &Path) -> Result<u64> {
    let mut out = File::create_new(file)?;
    let mut blocks = reply.bytes_stream();
    let mut bytes = 0;
    while let Some(block) = blocks.next().await {
        let block = block?;
        out.write_all(&block)?;
        bytes += u64::try_from(block.len())?;
    }
    out.sync_all()?;
    Ok(bytes)
}

pub(super) async fn restore(args: BackupArgs) -> Result<()> {
    let client = args.client.client()?;
    let folder = args.folder;
    let manifest = fs::read(folder.join(MANIFEST))
        .with_context(|| format!("{} holds no whole backup: its {MANIFEST} is missing", folder.display()))?;
    let manifest: Manifest = serde_json::from_slice(&manifest).context("the backup's manifest cannot be read")?;
    if manifest.format != FORMAT {
        bail!("the backup is of format {}, and this program reads {FORMAT}", manifest.format);
    }
    let there: Vec<String> = client.names().await?.into_iter().map(|repo| repo.name).collect();
    let (mut made, mut failed) = (0, 0);
    for kept in &manifest.repositories {
        if there.contains(&kept.name) {
            // What is there is never written over. A new forge has an empty `demo`.
            say(&format!("{}: is there, and stays as it is\n", kept.name));
            continue;
        }
        match bring_back(&client, &folder, kept).await {
            Ok(()) => made += 1,
            Err(e) => {
                failed += 1;
                say(&format!("{}: not restored: {e:#}\n", kept.name));
            }
        }
    }
    say(&format!("{made} repositories are restored\n"));
    if failed == 0 { Ok(()) } else { bail!("{failed} repositories are not restored") }
}

async fn bring_back(client: &crate::client::Client, folder: &Path, kept: &Kept) -> Result<()> {
    let file = tokio::fs::File::open(folder.join(&kept.file)).await?;
    let bytes = file.metadata().await?.len();
    if bytes != kept.bytes {
        bail!("its file has {bytes} bytes, and had {} when it was written", kept.bytes);
    }
    client.import(&kept.name, reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, 1 << 16))).await?;
    Ok(())
}

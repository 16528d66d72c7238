//! Who writes for the kit: commits of one file, the records that lead to them, and the packs that carry them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use tenon_quorum::{Digest, Epoch, RepoId, Row};
use tenon_refslog::{Command as Change, ObjectId, RefName, Refs, Transaction, Value};

use crate::wire::{self, Shipment};

/// The file that holds what was written.
pub(super) const FILE: &str = "content";

/// One write: what leads to it, and what it leads to.
pub(super) struct Written {
    refs: Refs,
    pub(super) record: Bytes,
    /// The pack, as it is sent to a node.
    pub(super) shipment: Bytes,
}

pub(super) struct Author {
    folder: TempDir,
    written: BTreeMap<(RepoId, Digest), Written>,
}

fn digest(refs: &Refs) -> Digest {
    Digest(refs.checksum().prefix16())
}

/// What a repository without refs hashes to.
pub(super) fn empty(repo: RepoId) -> Digest {
    nothing(repo).map_or(Digest([0; 16]), |refs| digest(&refs))
}

fn nothing(repo: RepoId) -> Result<Refs> {
    Ok(Refs::new(super::rules()?, wire::lineage(repo, Epoch(1))))
}

impl Author {
    pub(super) fn new() -> Result<Author> {
        let author = Author { folder: tempfile::tempdir()?, written: BTreeMap::new() };
        author.git(&["init", "-q", "--bare", "."], b"")?;
        Ok(author)
    }

    pub(super) fn written(&self, repo: RepoId, digest: Digest) -> Option<&Written> {
        self.written.get(&(repo, digest))
    }

    /// The digest of the refs once the branch is at a commit of `content`, and the record that leads there.
    pub(super) fn write(&mut self, base: &Row, content: &[u8]) -> Result<(Digest, Bytes)> {
        let mut refs = match self.written(base.repo, base.newest.digest) {
            Some(written) => written.refs.clone(),
            None => nothing(base.repo)?,
        };
        ensure!(digest(&refs) == base.newest.digest, "the row goes on from what nobody wrote");
        let blob = self.git(&["hash-object", "-w", "--stdin"], content)?;
        let tree = self.git(&["mktree"], format!("100644 blob {blob}\t{FILE}\n").as_bytes())?;
        let tip = self.git(&["commit-tree", "-m", "written", &tree], b"")?;
        let id = ObjectId::from_hex(&tip)?;
        let main = Change::update(RefName::new("refs/heads/main")?, Value::from(id));
        let record = refs.admit(&Transaction::from(main))?.into_record().context("nothing changes")?;
        refs.apply(&record)?;
        let (after, frame) = (digest(&refs), record.encode());
        let pack = self.output(&["pack-objects", "--revs", "--stdout", "-q"], format!("{tip}\n").as_bytes())?;
        let shipment = [Shipment { tips: vec![tip] }.lead().as_ref(), &pack].concat().into();
        self.written.insert((base.repo, after), Written { refs, record: frame.clone(), shipment });
        Ok((after, frame))
    }

    fn git(&self, args: &[&str], input: &[u8]) -> Result<String> {
        Ok(String::from_utf8(self.output(args, input)?)?.trim().to_owned())
    }

    /// The same commit for the same content, whenever it is asked for.
    fn output(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let mut git = Command::new("git");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "kit").env(format!("GIT_{who}_EMAIL"), "kit@localhost");
            git.env(format!("GIT_{who}_DATE"), "@1 +0000");
        }
        git.args(args).current_dir(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = git.spawn()?;
        child.stdin.take().context("no input")?.write_all(input)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "git {args:?}: {}", output.status);
        Ok(output.stdout)
    }
}

//! From pushes to pipelines: reads each repository's feed of committed changes from where it stopped.
//!
//! The feed is written with the push itself; its cursor moves with the pipeline's rows. So a push that was acknowledged
//! has its pipelines, each once, whenever this program was killed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gitlab_ci::Context;
use tenon_jobqueue::Refused;
use tenon_refslog::{Record, Value};

use super::centre::{Centre, Failed, Pushed};
use super::file::{self, CiFile, Fetched};
use super::plan::{self, Plan};
use super::store::Cursor;
use crate::router::Host;
use crate::router::store::Pipelines;
use crate::wire::FileText;

/// How many pushes are read at once.
const PAGE: usize = 64;
/// The most refs of one push that get a pipeline.
const MOST_REFS: usize = 20;
/// A burst of changes is looked at once.
const GATHER: Duration = Duration::from_millis(50);
/// Looked at also when nothing seems to happen.
const IDLE: Duration = Duration::from_secs(2);

/// A ref that a push set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    reference: String,
    object: String,
}

/// Follows all repositories, for ever.
pub(crate) async fn run(host: Host) {
    let mut done: BTreeMap<u64, u64> = BTreeMap::new();
    let mut turns = host.turns();
    let mut failures = 0;
    loop {
        turns.mark_unchanged();
        let mut failed = false;
        match host.shown().await {
            Ok(repos) => {
                for repo in repos {
                    let seen = done.get(&repo.id).copied();
                    if seen.is_some_and(|seen| seen >= repo.version) {
                        continue;
                    }
                    match catch_up(&host, repo.id).await {
                        Ok(version) => drop(done.insert(repo.id, version)),
                        // Nothing is skipped: it is tried again.
                        Err(e) => {
                            failed = true;
                            tracing::warn!(repo = repo.name, "its pushes cannot be followed now: {e:#}");
                        }
                    }
                }
            }
            Err(e) => {
                failed = true;
                tracing::warn!("the repositories cannot be listed: {e}");
            }
        }
        if failed {
            // A full disk fails at once, and would be asked again at once.
            tokio::time::sleep(crate::router::pause_after(failures)).await;
        }
        failures = if failed { failures + 1 } else { 0 };
        let _woken = tokio::time::timeout(IDLE, turns.changed()).await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Makes the pipelines of a repository's pushes that have none yet; the version up to which that is done.
async fn catch_up(host: &Host, repo: u64) -> Result<u64> {
    let centre = &host.ci().centre;
    loop {
        let mut cursor = centre.store.cursor(repo)?;
        let rows = host.pushes(repo, cursor.version, PAGE).await?;
        if rows.is_empty() {
            return Ok(cursor.version);
        }
        for row in rows {
            let sets = if row.pipelines == Pipelines::Skipped {
                Vec::new()
            } else if row.record.is_empty() {
                tracing::warn!(repo, version = row.version, "its record is gone: it gets no pipeline");
                Vec::new()
            } else {
                sets(&Record::decode(&row.record).context("a record of the feed cannot be read")?)
            };
            let end = Cursor { version: row.version, part: 0 };
            let mut at = cursor;
            for (part, set) in (1..).zip(&sets).skip(usize::try_from(cursor.part)?) {
                let next = if usize::try_from(part)? == sets.len() { end } else { Cursor { part, ..cursor } };
                one(host, centre, repo, row.version, set, (at, next)).await?;
                at = next;
            }
            if at != end {
                centre.store.pass(repo, (at, end), None)?;
            }
            cursor = end;
        }
    }
}

/// The branches and tags that a push set, as far as they get pipelines.
fn sets(record: &Record) -> Vec<Set> {
    let all = record.changes().iter().filter(|change| !change.is_no_op()).filter_map(|change| {
        let reference = std::str::from_utf8(change.name().as_bytes()).ok()?;
        let counts = reference.starts_with("refs/heads/") || reference.starts_with("refs/tags/");
        match change.new_value() {
            Some(Value::Direct(target)) if counts => {
                Some(Set { reference: reference.to_owned(), object: target.id().to_hex() })
            }
            Some(Value::Direct(_) | Value::Symbolic(_)) | None => None,
        }
    });
    let all: Vec<Set> = all.collect();
    if all.len() > MOST_REFS {
        tracing::info!(refs = all.len(), "a push of more than {MOST_REFS} refs: only the first get pipelines");
    }
    all.into_iter().take(MOST_REFS).collect()
}

/// Reads the CI file of a commit with all that it includes, each as it turns out to be wanted. What it comes to, or what is
/// wrong with it.
async fn read(
    host: &Host,
    repo: u64,
    set: &Set,
    first: FileText,
    context: &Context,
) -> Result<Result<Result<CiFile, String>, String>> {
    let mut files = Fetched::default();
    let (mut path, mut text) = (file::FILE.to_owned(), Some(first));
    loop {
        match text {
            Some(FileText::TooLarge) => {
                return Ok(Err(format!("{path} is larger than {} KiB", file::MOST_BYTES >> 10)));
            }
            Some(FileText::NotText) => return Ok(Err(format!("{path} is no text"))),
            Some(FileText::Text(text)) => files.put(&path, Some(text)),
            None => files.put(&path, None),
        }
        let read = CiFile::read(&files, context);
        let Some(missing) = files.missing() else { return Ok(read.map_err(|e| e.to_string())) };
        if files.len() == file::MOST_FILES {
            return Ok(Err(format!("more than {} files are included", file::MOST_FILES)));
        }
        text = host.file(repo, &set.object, &missing, file::MOST_BYTES).await?.file;
        path = missing;
    }
}

async fn one(host: &Host, centre: &Centre, repo: u64, version: u64, set: &Set, cursor: (Cursor, Cursor)) -> Result<()> {
    let view = host.file(repo, &set.object, file::FILE, file::MOST_BYTES).await?;
    let (Some(commit), Some(text), false) = (view.commit, view.file, view.skip_ci) else {
        centre.store.pass(repo, cursor, None)?;
        return Ok(());
    };
    let reference = set.reference.clone();
    let subject = view.subject.clone();
    let pushed = Pushed { repo, reference, hash: commit, subject: view.subject, version, cursor };
    let repository = centre.store.repository(repo)?.unwrap_or_default();
    let context = plan::context(&set.reference, &pushed.hash, &subject, &repository, 0);
    let made = match read(host, repo, set, text, &context).await? {
        Ok(Ok(file)) => centre.create(pushed.clone(), Plan::new(file, &set.reference)).await,
        Ok(Err(reason)) => {
            tracing::info!(repo, reference = pushed.reference, "no pipeline: {reason}");
            centre.store.pass(repo, cursor, None)?;
            return Ok(());
        }
        Err(wrong) => centre.create_wrong(&pushed, wrong),
    };
    match made {
        Ok(pipeline) => tracing::info!(%pipeline, repo, reference = pushed.reference, "made"),
        // The same was made before: the cursor has moved, and is read again.
        Err(Failed::Refused(Refused::Exists)) => bail!("its place in the feed has moved"),
        // The queue is full, for now.
        Err(e @ (Failed::Refused(Refused::Full { .. }) | Failed::Store(_) | Failed::Ends)) => return Err(e.into()),
        Err(Failed::Refused(why)) => drop(centre.create_wrong(&pushed, format!("the queue does not take it: {why}"))?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};

    #[test]
    fn branches_and_tags_that_are_set_count_and_nothing_else() {
        let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([1; 32])).build().unwrap();
        let refs = Refs::new(config, LineageId(1));
        let id = ObjectId::from_hex("1".repeat(40)).unwrap();
        let set = |name: &str| Command::update(RefName::new(name).unwrap(), Value::from(id));
        let head =
            Command::update(RefName::new("HEAD").unwrap(), Value::Symbolic(RefName::new("refs/heads/main").unwrap()));
        let names = ["refs/heads/main", "refs/notes/x", "refs/tags/v1"];
        let transaction: Transaction = names.into_iter().map(set).chain([head]).collect();
        let record = refs.admit(&transaction).unwrap().into_record().unwrap();
        let found: Vec<String> = sets(&record).into_iter().map(|s| s.reference).collect();
        assert_eq!(found, ["refs/heads/main", "refs/tags/v1"]);
    }
}

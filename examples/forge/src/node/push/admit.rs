//! What a push would write into the refs log, if all of it may.
//!
//! Git's own rules for updates are out of play: what they guard is checked by the refs log's admission, by `update-ref`'s `prepare`,
//! and by the host's few rules here.

use tenon_refslog::{Command, ObjectId, Record, RefName, Refs, Transaction, Value, Verdict};

use super::{Push, Verdicts};
use crate::git::objects;
use crate::git::refs::head_name;

/// What the refs are told that were fine, but not alone.
const NOT_ALONE: &str = "not moved: another ref of this push was refused";
/// The longest part of a name that a file system takes, with what Git appends while it writes (`.lock`); in bytes.
const LONGEST_PART: usize = 250;
/// The longest name of a ref, in bytes.
const LONGEST_NAME: usize = 1024;
/// Of so many new branches at most the newest commit is looked for, to find the default branch of a new repository.
const LOOKED_AT: usize = 2000;

/// One line of a push.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) name: Vec<u8>,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
}

impl Line {
    /// Reads `OLD NEW NAME`.
    pub(crate) fn parse(line: &[u8]) -> Option<Line> {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (old, new, name) = (words.next()?, words.next()?, words.next()?);
        Some(Line {
            name: name.to_vec(),
            old: ObjectId::from_hex_or_null(old).ok()?,
            new: ObjectId::from_hex_or_null(new).ok()?,
        })
    }
}

/// What a push comes to.
#[derive(Debug)]
pub(super) struct Admitted {
    /// None if it changes nothing.
    pub(super) record: Option<Record>,
    /// Where `HEAD` goes afterwards. Git does not take it beside a change of the branch that it names.
    pub(super) head: Option<RefName>,
}

/// The record of the whole push.
///
/// # Errors
/// A verdict for each line, none of which is `ok`.
pub(super) async fn admit(push: &Push, lines: &[Line]) -> Result<Admitted, Verdicts> {
    let refs = push.replica.state().await.refs.clone();
    let mut verdicts: Verdicts = lines.iter().map(policy).collect();
    let mut transaction = Transaction::new();
    for (line, verdict) in lines.iter().zip(&mut verdicts) {
        let name = RefName::new(&line.name).or_else(|error| match line.new {
            // What is broken can at least be removed.
            None => RefName::broken(&line.name),
            Some(_) => Err(error),
        });
        match name {
            Ok(name) => transaction.push(Command::push(line.old, line.new, name)),
            Err(error) => *verdict = Some(format!("the name is not allowed: {error}")),
        }
    }
    if lines.len() > push.order.most_refs {
        let most = push.order.most_refs;
        verdicts.fill(Some(format!("more than {most} refs in one push")));
    }
    if verdicts.iter().all(Option::is_none) {
        // In a transaction of their own `update-ref` would check these; beside what conflicts with them it cannot.
        verdicts = commits_where_needed(push, lines).await?;
    }
    for (line, verdict) in lines.iter().zip(&mut verdicts).filter(|(_, verdict)| verdict.is_none()) {
        *verdict = protected(push, &refs, line).await;
    }
    if verdicts.iter().any(Option::is_some) {
        return Err(alone(verdicts));
    }
    let mut head = new_head(push, &refs, lines).await;
    let names = refs.get(&head_name()).as_ref().and_then(Value::target_name).map(|name| name.as_bytes().to_vec());
    if !lines.iter().any(|line| Some(&line.name) == names.as_ref())
        && let Some(head) = head.take()
    {
        transaction.push(Command::update(head_name(), Value::Symbolic(head)));
    }
    match refs.admit(&transaction) {
        Ok(admitted) => Ok(Admitted { record: admitted.into_record(), head }),
        Err(refused) => Err(alone(refused.verdicts().iter().take(lines.len()).map(said).collect())),
    }
}

/// Whoever was refused nothing is refused with the others.
fn alone(verdicts: Verdicts) -> Verdicts {
    verdicts.into_iter().map(|verdict| Some(verdict.unwrap_or_else(|| NOT_ALONE.into()))).collect()
}

/// What a refused command's user reads.
fn said(verdict: &Verdict) -> Option<String> {
    verdict.reason().map(ToString::to_string)
}

/// The host's own rules, beyond what Git can hold.
fn policy(line: &Line) -> Option<String> {
    if !line.name.starts_with(b"refs/") {
        return Some("the name is not allowed: it is not below refs/".into());
    }
    // On one kind of file system a ref is a file: what is committed must fit on every node.
    let long = line.name.len() > LONGEST_NAME || line.name.split(|byte| *byte == b'/').any(|p| p.len() > LONGEST_PART);
    (long && line.new.is_some())
        .then(|| format!("the name is too long: at most {LONGEST_NAME} bytes, and {LONGEST_PART} between two slashes"))
}

/// A protected branch stays, and moves only to what contains it.
async fn protected(push: &Push, refs: &Refs, line: &Line) -> Option<String> {
    if !push.order.protected.iter().any(|name| name.as_bytes() == line.name) {
        return None;
    }
    let is = RefName::new(&line.name).ok().and_then(|name| refs.get(&name)).and_then(|value| Value::id(&value))?;
    let Some(new) = line.new else { return Some("the branch is protected: it cannot be deleted".to_owned()) };
    let folders = push.replica.folders(push.order.parcel.as_ref());
    match objects::contains(&push.shared.git, &push.replica.folder, &folders, (new, is)).await {
        Ok(true) => None,
        Ok(false) => Some("the branch is protected: it cannot be forced".to_owned()),
        Err(error) => Some(error.in_one_line()),
    }
}

/// Branches name commits.
async fn commits_where_needed(push: &Push, lines: &[Line]) -> Result<Verdicts, Verdicts> {
    let is_branch = |line: &&Line| line.name.starts_with(b"refs/heads/");
    let ids: Vec<ObjectId> = lines.iter().filter(is_branch).filter_map(|line| line.new).collect();
    if ids.is_empty() || !lines.iter().any(|line| line.new.is_none()) {
        return Ok(lines.iter().map(|_| None).collect());
    }
    let folders = push.replica.folders(push.order.parcel.as_ref());
    let found = objects::kinds(&push.shared.git, &push.replica.folder, &folders, &ids).await;
    let kinds = found.map_err(|error| lines.iter().map(|_| Some(error.in_one_line())).collect::<Verdicts>())?;
    let verdict = |line: &Line| {
        let id = line.new.filter(|_| is_branch(&line))?;
        (kinds.get(&id).map(String::as_str) != Some("commit"))
            .then(|| format!("cannot update: trying to write non-commit object {} to a branch", id.to_hex()))
    };
    Ok(lines.iter().map(verdict).collect())
}

/// Where `HEAD` goes with this push, if the branch that it names is not there afterwards: to a branch that people expect, so that
/// no clone is born without one. It stays where it is while there is none at all.
async fn new_head(push: &Push, refs: &Refs, lines: &[Line]) -> Option<RefName> {
    const BRANCHES: &[u8] = b"refs/heads/";
    let head = refs.get(&head_name());
    let target = head.as_ref().and_then(Value::target_name)?;
    let mut left: std::collections::BTreeMap<Vec<u8>, ObjectId> = std::collections::BTreeMap::new();
    let deleted = lines.iter().any(|line| line.new.is_none() && line.name == target.as_bytes());
    let there = refs.get(target).is_some() && !deleted;
    if there || lines.iter().any(|line| line.new.is_some() && line.name == target.as_bytes()) {
        return None;
    }
    let branches = refs.iter_prefix(BRANCHES).filter_map(|(name, value)| Some((name.as_bytes().to_vec(), value.id()?)));
    left.extend(branches);
    for line in lines.iter().filter(|line| line.name.starts_with(BRANCHES)) {
        match line.new {
            Some(id) => left.insert(line.name.clone(), id),
            None => left.remove(&line.name),
        };
    }
    let usual = ["refs/heads/main", "refs/heads/master"].map(|name| name.as_bytes().to_vec());
    let chosen = match usual.into_iter().find(|name| left.contains_key(name)) {
        Some(usual) => usual,
        None if left.len() == 1 => left.keys().next()?.clone(),
        None => newest(push, &left).await.or_else(|| left.keys().next().cloned())?,
    };
    RefName::new(&chosen).ok()
}

/// The branch with the newest commit.
async fn newest(push: &Push, branches: &std::collections::BTreeMap<Vec<u8>, ObjectId>) -> Option<Vec<u8>> {
    let ids: Vec<ObjectId> = branches.values().copied().take(LOOKED_AT).collect();
    let folders = push.replica.folders(push.order.parcel.as_ref());
    let newest = objects::newest(&push.shared.git, &push.replica.folder, &folders, &ids).await.ok()??;
    branches.iter().find(|(_, id)| **id == newest).map(|(name, _)| name.clone())
}

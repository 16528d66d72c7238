//! `proc-receive`: the refs of a push are decided, as one transaction, and each gets its answer.
//!
//! Git's own rules for updates are out of play here (they come after this hook, one ref at a time): what they guard is checked by the
//! refs log's admission, by `update-ref`'s `prepare`, and by the few rules of [`policy`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenon_quorum::Digest;
use tenon_refslog::{Command, ObjectId, Record, RefName, Refs, Transaction, Value, Verdict};

use super::drill::Point;
use super::hook::Call;
use super::pre_receive::without_url;
use super::push::Push;
use super::replica::{ReplicaError, Turn};
use crate::git::refs::{self as git_refs, RefTransaction, head_name};
use crate::git::{pkt, repository};
use crate::wire::{self, Propose, Proposed};

/// How long the outcome of a proposal is asked for when the answer is lost.
const ASKING: Duration = Duration::from_secs(20);
/// What the refs are told that were fine, but not alone.
const NOT_ALONE: &str = "not moved: another ref of this push was refused";

/// One line of a push.
#[derive(Debug)]
struct Line {
    name: Vec<u8>,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
}

/// What a ref is told; `None` is `ok`.
type Verdicts = Vec<Option<String>>;

/// Answers the hook. Whatever happens, the answer is well formed: Git waits for ever on any other.
pub(crate) async fn answer(push: Arc<Push>, turn: Arc<Turn>, mut call: Call) {
    let result = converse(&push, &turn, &mut call).await;
    let code = u8::from(result.is_err());
    if let Err(error) = result {
        tracing::warn!(repo = %push.replica.id, error, "proc-receive broke off");
    }
    let _ = call.exit(code).await;
}

async fn converse(push: &Push, turn: &Turn, call: &mut Call) -> Result<(), String> {
    let text = |error: pkt::PktError| error.to_string();
    let hello = pkt::section(&mut call.input, 64).await.map_err(text)?;
    let offered = hello.first().map_or(&b""[..], Vec::as_slice);
    let options = offered.split(|byte| *byte == 0).nth(1).unwrap_or_default();
    let options = options.split(|byte| *byte == b' ').any(|word| word == b"push-options");
    let mut out = Vec::new();
    pkt::put(&mut out, if options { b"version=1\0push-options" } else { b"version=1" });
    pkt::flush(&mut out);
    call.stdout(&out).await.map_err(|error| error.to_string())?;
    // One more than is allowed is read, so that the refusal is a clean one.
    let lines =
        pkt::section(&mut call.input, push.shared.limits.max_refs_per_push.saturating_add(1)).await.map_err(text)?;
    if options {
        let options = pkt::section(&mut call.input, 1024).await.map_err(text)?;
        tracing::debug!(repo = %push.replica.id, count = options.len(), "push options");
    }
    let lines: Vec<Line> =
        lines.iter().map(|line| parse(line)).collect::<Option<_>>().ok_or("Git's commands cannot be read")?;
    let verdicts = decide(push, turn, &lines).await;
    let mut out = Vec::new();
    for (line, verdict) in lines.iter().zip(verdicts) {
        let mut text = if verdict.is_none() { b"ok ".to_vec() } else { b"ng ".to_vec() };
        text.extend_from_slice(&line.name);
        if let Some(reason) = verdict {
            text.push(b' ');
            text.extend(reason.chars().filter(|c| !c.is_control()).take(300).collect::<String>().bytes());
        }
        pkt::put(&mut out, &text);
    }
    pkt::flush(&mut out);
    call.stdout(&out).await.map_err(|error| error.to_string())
}

fn parse(line: &[u8]) -> Option<Line> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (old, new, name) = (words.next()?, words.next()?, words.next()?);
    Some(Line {
        name: name.to_vec(),
        old: ObjectId::from_hex_or_null(old).ok()?,
        new: ObjectId::from_hex_or_null(new).ok()?,
    })
}

/// All refs of a push together: every one is moved, or none and each says why.
async fn decide(push: &Push, turn: &Turn, lines: &[Line]) -> Verdicts {
    match admit(push, lines).await {
        Ok(None) => lines.iter().map(|_| None).collect(),
        Ok(Some(record)) => match carry_through(push, turn, record).await {
            Ok(()) => lines.iter().map(|_| None).collect(),
            Err(reason) => lines.iter().map(|_| Some(reason.clone())).collect(),
        },
        Err(verdicts) => {
            verdicts.into_iter().map(|verdict| Some(verdict.unwrap_or_else(|| NOT_ALONE.into()))).collect()
        }
    }
}

/// What the push would write into the log, if all of it may.
async fn admit(push: &Push, lines: &[Line]) -> Result<Option<Record>, Verdicts> {
    let state = push.replica.state().await;
    let refs = &state.refs;
    let mut verdicts: Verdicts = lines.iter().map(|line| policy(refs, line)).collect();
    let mut transaction = Transaction::new();
    let mut names = Vec::new();
    for (line, verdict) in lines.iter().zip(&mut verdicts) {
        let name = RefName::new(&line.name).or_else(|error| match line.new {
            // What is broken can at least be removed.
            None => RefName::broken(&line.name),
            Some(_) => Err(error),
        });
        match name {
            Ok(name) => {
                transaction.push(Command::push(line.old, line.new, name.clone()));
                names.push(name);
            }
            Err(error) => *verdict = Some(format!("the name is not allowed: {error}")),
        }
    }
    if lines.len() > push.shared.limits.max_refs_per_push {
        let most = push.shared.limits.max_refs_per_push;
        verdicts.fill(Some(format!("more than {most} refs in one push")));
    }
    if verdicts.iter().any(Option::is_some) {
        return Err(verdicts);
    }
    if let Some(head) = new_head(refs, lines) {
        transaction.push(Command::update(head_name(), Value::Symbolic(head)));
    }
    match refs.admit(&transaction) {
        Ok(admitted) => Ok(admitted.into_record()),
        Err(refused) => Err(refused.verdicts().iter().take(lines.len()).map(said).collect()),
    }
}

/// What a refused command's user reads.
fn said(verdict: &Verdict) -> Option<String> {
    verdict.reason().map(ToString::to_string)
}

/// The host's own rules, beyond what Git can hold.
fn policy(refs: &Refs, line: &Line) -> Option<String> {
    let deletes_default = line.new.is_none()
        && refs
            .get(&head_name())
            .and_then(|head| head.target_name().map(|name| name.as_bytes() == line.name))
            .unwrap_or(false);
    if deletes_default && line.old.is_some() {
        return Some("the default branch (HEAD) cannot be deleted".into());
    }
    None
}

/// Where `HEAD` goes with this push: a first push that brings branches, but not the one that `HEAD` names, takes `HEAD` along, so that
/// no clone is born without a branch.
fn new_head(refs: &Refs, lines: &[Line]) -> Option<RefName> {
    let head = refs.get(&head_name());
    let target = head.as_ref().and_then(Value::target_name);
    if target.is_some_and(|name| refs.get(name).is_some() || lines.iter().any(|line| line.name == name.as_bytes())) {
        return None;
    }
    if refs.iter_prefix(b"refs/heads/").next().is_some() {
        return None;
    }
    let branches: Vec<&[u8]> = lines
        .iter()
        .filter(|line| line.new.is_some() && line.name.starts_with(b"refs/heads/"))
        .map(|line| line.name.as_slice())
        .collect();
    let usual = [&b"refs/heads/main"[..], b"refs/heads/master"];
    let chosen = usual.into_iter().find(|name| branches.contains(name)).or(branches.first().copied())?;
    RefName::new(chosen).ok()
}

/// From an admitted record to refs that have moved, or to the reason why none has.
async fn carry_through(push: &Push, turn: &Turn, record: Record) -> Result<(), String> {
    let (shared, replica) = (&push.shared, &push.replica);
    let commands = git_refs::as_one(record.changes());
    let prepared = if commands.is_empty() {
        None
    } else {
        let prepared = RefTransaction::prepare(&shared.git, &replica.folder, &commands).await;
        Some(prepared.map_err(|error| error.in_one_line())?)
    };
    shared.drills.at(Point::AfterPrepare).await;
    // Git has moved the objects out of quarantine by now, and syncs files, but no folders.
    let durable = repository::sync_objects(&replica.folder).map_err(|error| error.to_string());
    let tips: Vec<ObjectId> =
        record.changes().iter().filter_map(|change| change.new_value().and_then(Value::id)).collect();
    replica.note_connected(&tips).await;
    let outcome = match durable {
        Ok(()) if push.begin_proposing() => propose(push, &record).await,
        Ok(()) => Err("the push was called off".to_owned()),
        Err(error) => Err(error),
    };
    let proof = match outcome {
        Ok(proof) => proof,
        Err(reason) => {
            if let Some(prepared) = prepared {
                // Whatever comes of it, the locks go with the process.
                let _ = prepared.abort().await;
            }
            return Err(reason);
        }
    };
    shared.drills.at(Point::AfterAppend).await;
    if let Err(error) = move_refs(push, prepared, &record).await {
        tracing::warn!(repo = %replica.id, %error, "refs did not move as prepared; the log is carried out again");
        if replica.take_over(turn, &proof, &record).await.is_err() {
            let _ = replica.lose().await;
        }
        return Ok(());
    }
    shared.drills.at(Point::AfterCommit).await;
    if let Err(error) = replica.has_moved(&proof, &record).await {
        tracing::error!(repo = %replica.id, %error, "the gate does not follow the refs; waiting for a repair");
        let _ = replica.lose().await;
    }
    Ok(())
}

/// Moves the refs as prepared. Listings see all of it or nothing.
async fn move_refs(push: &Push, prepared: Option<RefTransaction>, record: &Record) -> Result<(), ReplicaError> {
    let _alone = push.replica.refs_lock.write().await;
    if let Some(prepared) = prepared {
        prepared.commit().await?;
    }
    Ok(git_refs::move_head(&push.shared.git, &push.replica.folder, record.changes()).await?)
}

/// Puts the record to the router. The one question may be repeated; it has one answer.
async fn propose(push: &Push, record: &Record) -> Result<tenon_quorum::Proof, String> {
    let shared = &push.shared;
    let grant = &push.order.grant;
    let question = Propose { base: grant.base.proof(), after: Digest(record.after().checksum.prefix16()) };
    let frame = record.encode();
    let until = Instant::now() + ASKING;
    loop {
        let asked = shared
            .http
            .post(format!("{}/internal/writes/{}/propose", shared.router, grant.write.0))
            .bearer_auth(&shared.token)
            .header(wire::ASK, wire::to_header(&question))
            .body(frame.clone())
            .timeout(ASKING)
            .send()
            .await;
        let lost = match asked {
            Ok(answer) if answer.status().is_success() => match answer.json::<Proposed>().await {
                Ok(Proposed::Applied { proof }) => return Ok(proof),
                Ok(Proposed::NotApplied { reason }) => return Err(reason),
                Ok(Proposed::Unknown { reason }) => {
                    return Err(format!("the outcome is not known yet ({reason}); fetch before pushing again"));
                }
                Err(error) => without_url(error),
            },
            Ok(answer) if answer.status().is_client_error() => {
                return Err(format!("the router refused: {}", answer.text().await.unwrap_or_default()));
            }
            Ok(answer) => answer.status().to_string(),
            Err(error) => without_url(error),
        };
        if Instant::now() > until {
            return Err(format!("the outcome is not known ({lost}); fetch before pushing again"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

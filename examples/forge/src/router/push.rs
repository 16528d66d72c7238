//! A push, from its body to the verdicts: objects first, to all members at once; then the repository's slot, for as long as the
//! refs take.
//!
//! While objects travel and are checked, other pushes to the repository go on. What was shipped for a push that is refused is
//! removed from every node.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tenon_quorum::{Member, NodeId, RepoId, Role};
use tenon_refslog::RefName;
use tokio::io::AsyncReadExt as _;
use tracing::warn;

use super::answer::{self, Asked};
use super::driver::Driver;
use super::http::{DISK_FULL, Failure};
use super::name::RepoName;
use super::nodes::{Answer, Decided, Life, Shipped};
use super::reads;
use super::spool::Spooled;
use super::store::{Newborn, Pipelines};
use super::writes::{Ended, Lease};
use super::{Host, admin};
use crate::wire::{ParcelId, Shipment, WriteOrder};

/// More lines than that are not read to find out what a push asks for.
const MAX_COMMANDS: usize = 1_000_000;
/// How often a push is granted again when nodes fail it.
const ATTEMPTS: usize = 6;
/// The push options that say that no pipelines are wanted.
const SKIP_CI: [&str; 2] = ["ci.skip", "ci.skip=true"];
/// What leads a pack without objects: `PACK`, a version, a count of zero.
const PACK_HEAD: usize = 12;

/// What a push asks for.
pub(super) async fn commands(body: &Spooled) -> Result<Asked, Failure> {
    let start = body.reader().await.map_err(Failure::unavailable)?;
    Asked::read(start, MAX_COMMANDS)
        .await
        .map_err(|e| Failure::new(StatusCode::BAD_REQUEST, format!("not a push: {e}")))
}

/// Takes a push through, in a task of its own: a client that leaves neither takes objects away from a vote that is being cast nor
/// leaves half a repository behind.
///
/// # Errors
/// It is none, or whether it was taken is not known: neither `ok` nor `ng` would be true.
pub(super) async fn push(
    host: &Host,
    name: &RepoName,
    repo: Option<RepoId>,
    body: Spooled,
) -> Result<Response, Failure> {
    if body.is_flush() {
        // A client probes whether it may post at all; Git answers with nothing.
        return Ok(answer::receive_pack_result(Body::empty()));
    }
    let asked = commands(&body).await?;
    if let Some(why) = asked.out_of_question(host.limits.max_refs_per_push) {
        return Ok(asked.reply(Some(&why)));
    }
    let (host, name) = (host.clone(), name.clone());
    let pushing = tokio::spawn(async move {
        let (repo, newborn) = match repo {
            Some(repo) => (repo, Newborn::No),
            None => match host.repos.for_push(&name).await {
                Ok(made) => made,
                Err(failure) => return Ok(asked.reply(Some(&failure.message))),
            },
        };
        let pushed = take_through(&host, repo, (&asked, Size::Limited), body).await;
        if newborn == Newborn::Yes {
            let taken = pushed.as_ref().is_ok_and(|pushed| pushed.end == PushEnd::Taken);
            let kept = if taken { host.repos.keep(repo).await } else { host.repos.unmake(repo).await };
            if let Err(e) = kept {
                warn!(%repo, "whether its first push was taken is noted at the next start: {e}");
            }
        }
        Ok(pushed?.reply)
    });
    pushing.await.map_err(Failure::unavailable)?
}

/// Takes a push to a repository that is there through.
///
/// # Errors
/// Whether it was taken is not known.
pub(super) async fn take_through(
    host: &Host,
    repo: RepoId,
    (asked, size): (&Asked, Size),
    body: Spooled,
) -> Result<Pushed, Failure> {
    let push = Push { host, repo, asked, size, body: Arc::new(body) };
    match push.ship().await {
        Ok(parcel) => push.decide(parcel).await,
        Err(why) => Ok(push.refused(&why)),
    }
}

/// How many refs may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// As many as a client's push may.
    Limited,
    /// As many as another repository has.
    Any,
}

/// How a push ended, and what its client reads.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) end: PushEnd,
    pub(super) reply: Response,
    /// Why it was refused, if it was.
    pub(super) why: Option<String>,
}

/// Whether refs have moved as the push wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushEnd {
    Taken,
    Refused,
}

struct Push<'a> {
    host: &'a Host,
    repo: RepoId,
    asked: &'a Asked,
    size: Size,
    body: Arc<Spooled>,
}

/// The objects of a push on the nodes. Unless the push is taken, they are removed with this.
#[derive(Debug)]
struct Parcel {
    driver: Arc<Driver>,
    repo: RepoId,
    id: ParcelId,
    /// Whom it was sent to.
    members: Vec<Member>,
    wanted: bool,
}

impl Parcel {
    /// It stays where it is: the push is taken, or may have been.
    fn want(parcel: &mut Option<Parcel>) {
        if let Some(parcel) = parcel {
            parcel.wanted = true;
        }
    }

    fn was_sent_to(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node)
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if self.wanted {
            return;
        }
        // When the whole ends, nodes forget the parcel by themselves.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for member in std::mem::take(&mut self.members) {
            let (driver, repo, id) = (Arc::clone(&self.driver), self.repo, self.id.clone());
            runtime.spawn(async move {
                // A node that does not hear of it removes the parcel in time by itself.
                if let Err(e) = driver.nodes.drop_parcel(Life::from(&member), repo, &id).await {
                    warn!(node = %member.node, %repo, "a refused push is not removed yet: {e:#}");
                }
            });
        }
    }
}

impl Push<'_> {
    fn refused(&self, why: &str) -> Pushed {
        let why = in_words(why);
        Pushed { end: PushEnd::Refused, reply: self.asked.reply(Some(why)), why: Some(why.to_owned()) }
    }

    fn answered(&self, verdicts: &[Option<String>]) -> Pushed {
        let verdicts: Vec<_> = verdicts.iter().map(|why| why.as_deref().map(|why| in_words(why).to_owned())).collect();
        let why = verdicts.iter().flatten().next().cloned();
        let end = if why.is_none() { PushEnd::Taken } else { PushEnd::Refused };
        let unknown = self.asked.options().iter().filter(|option| !SKIP_CI.contains(&option.as_str()));
        let said: Vec<String> = unknown
            .map(|option| format!("forge: the push option `{option}` is not known here, and did nothing"))
            .collect();
        Pushed { end, reply: self.asked.verdicts(&verdicts, &said), why }
    }

    fn taken(&self) -> Pushed {
        self.answered(&vec![None; self.asked.commands().len()])
    }

    /// Has the objects checked and made durable by enough voters; the others get them meanwhile.
    async fn ship(&self) -> Result<Option<Parcel>, String> {
        if !self.brings_objects().await? {
            return Ok(None);
        }
        let id = ParcelId::random().map_err(|e| e.to_string())?;
        let driver = Arc::clone(&self.host.driver);
        let mut parcel = Parcel { driver, repo: self.repo, id, members: Vec::new(), wanted: false };
        self.deliver(&mut parcel).await?;
        Ok(Some(parcel))
    }

    /// Whether there is a pack with anything in it.
    async fn brings_objects(&self) -> Result<bool, String> {
        if self.asked.tips().is_empty() {
            return Ok(false);
        }
        let mut head = Vec::new();
        let mut reader = self.body.reader().await.map_err(|e| e.to_string())?;
        let mut commands = (&mut reader).take(self.asked.pack);
        tokio::io::copy(&mut commands, &mut tokio::io::sink()).await.map_err(|e| e.to_string())?;
        let mut pack = reader.take(PACK_HEAD as u64);
        pack.read_to_end(&mut head).await.map_err(|e| e.to_string())?;
        match head.as_slice() {
            [b'P', b'A', b'C', b'K', _, _, _, _, count @ ..] if count.len() == 4 => Ok(count != [0; 4]),
            _ => Err("the push brings no pack".to_owned()),
        }
    }

    /// Sends to all members at once that have not got them yet, until enough voters hold the objects.
    async fn deliver(&self, parcel: &mut Parcel) -> Result<(), String> {
        let row = reads::row(&self.host.driver, self.repo).await.map_err(|failure| failure.message)?;
        let need = self.host.driver.view(|core| core.router.config().quorum().write()) as usize;
        let tips = self.asked.tips();
        let lead = Shipment { tips: tips.clone() }.lead();
        let mut sent: FuturesUnordered<_> = FuturesUnordered::new();
        for member in self.host.driver.nodes.answering(&row.members) {
            let again = parcel.was_sent_to(member.node);
            if !again {
                parcel.members.push(member);
            }
            let (driver, repo, id) = (Arc::clone(&self.host.driver), self.repo, parcel.id.clone());
            let (body, at, lead) = (Arc::clone(&self.body), self.asked.pack, lead.clone());
            // On its own: who is not waited for still gets the objects.
            sent.push(tokio::spawn(async move {
                let to = Life::from(&member);
                // A node that was killed since has lost them.
                if again && driver.nodes.holds(to, repo, &id).await.is_ok_and(|holds| holds) {
                    return anyhow::Ok((member, Ok(Shipped::Here)));
                }
                let pack = body.body(at).await?;
                Ok((member, driver.nodes.ship(to, repo, &id, (lead, pack)).await))
            }));
        }
        let mut holders: Vec<Member> = Vec::new();
        let mut late: Vec<Member> = Vec::new();
        let mut reasons = Vec::new();
        let voters = |members: &[Member]| members.iter().filter(|m| m.role == Role::Voter).count();
        while voters(&holders) < need {
            let Some(done) = sent.next().await else { break };
            let (member, shipped) = done.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            match shipped {
                Ok(Shipped::Here) => holders.push(member),
                Ok(Shipped::Bad(why)) => return Err(why),
                Ok(Shipped::Lags(why)) => {
                    reasons.push(format!("{}: {why}", member.node));
                    late.push(member);
                }
                Err(e) => {
                    self.host.driver.node_failed(member.node, &e).await;
                    reasons.push(format!("{}: {e:#}", member.node));
                }
            }
        }
        let enough = voters(&holders) >= need;
        let Some(from) = holders.first().copied() else { return Err(self.incomplete(&late, &reasons, need)) };
        // Those that lag get all that the tips need; where they are not needed, nobody waits for them.
        for member in late {
            let (driver, repo, id) = (Arc::clone(&self.host.driver), self.repo, parcel.id.clone());
            let tips = tips.clone();
            let forwarded = tokio::spawn(async move {
                driver.nodes.forward(Life::from(&from), Life::from(&member), repo, &id, tips).await
            });
            if !enough && voters(&holders) < need {
                match forwarded.await.map_err(|e| e.to_string())? {
                    Ok(Shipped::Here) => holders.push(member),
                    Ok(Shipped::Lags(why) | Shipped::Bad(why)) => reasons.push(format!("{}: {why}", member.node)),
                    Err(e) => reasons.push(format!("{}: {e:#}", member.node)),
                }
            }
        }
        if voters(&holders) < need {
            return Err(no_quorum(voters(&holders), need, &reasons));
        }
        Ok(())
    }

    /// Nobody could take the objects.
    fn incomplete(&self, late: &[Member], reasons: &[String], need: usize) -> String {
        if late.is_empty() {
            return no_quorum(0, need, reasons);
        }
        if self.asked.is_shallow() {
            return "shallow update not allowed: the history behind it is not here; fetch with --unshallow first"
                .to_owned();
        }
        format!("objects are missing ({})", reasons.join("; "))
    }

    /// Goes to the node that is granted the write. When that node fails before the write is decided, the write is ended for
    /// certain and another is granted.
    async fn decide(&self, mut parcel: Option<Parcel>) -> Result<Pushed, Failure> {
        let commands = self.asked.pkt_lines();
        let repo = self.repo.0;
        let protected = self.host.driver.stored(move |store| store.protected(repo)).await?;
        let skips = self.asked.options().iter().any(|option| SKIP_CI.contains(&option.as_str()));
        let pipelines = if skips { Pipelines::Skipped } else { Pipelines::Wanted };
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if let Some(parcel) = parcel.as_mut().filter(|_| attempt > 0)
                && let Err(why) = self.deliver(parcel).await
            {
                return Ok(self.refused(&why));
            }
            let lease = match self.host.writes.begin(self.repo, pipelines).await {
                Ok(lease) => lease,
                Err(refused) => return Ok(self.refused(&refused)),
            };
            if parcel.as_ref().is_some_and(|parcel| !parcel.was_sent_to(lease.node())) {
                // It came back since: it gets the objects before it is asked again.
                last = format!("{} has not got the objects", lease.node());
                let _not_proposed = lease.end().await;
                continue;
            }
            let order = WriteOrder {
                grant: lease.grant().clone(),
                parcel: parcel.as_ref().map(|p| p.id.clone()),
                protected: protected.clone(),
                most_refs: match self.size {
                    Size::Limited => self.host.limits.max_refs_per_push,
                    Size::Any => MAX_COMMANDS,
                },
            };
            let decided = self.host.driver.nodes.decide(&order, commands.clone()).await;
            match self.end(lease, decided).await {
                End::Verdicts(verdicts) if verdicts.iter().all(Option::is_none) => {
                    Parcel::want(&mut parcel);
                    return Ok(self.taken());
                }
                End::Verdicts(verdicts) => return Ok(self.answered(&verdicts)),
                End::Accepted => {
                    Parcel::want(&mut parcel);
                    return Ok(self.taken());
                }
                End::Again(why) => last = why,
                End::Unknown(why) => {
                    // Neither `ok` nor `ng` would be true: the connection breaks, the client asks again.
                    Parcel::want(&mut parcel);
                    return Err(Failure::unavailable(format!("whether the push was taken is not known yet: {why}")));
                }
            }
        }
        Ok(self.refused(&last))
    }

    /// `HEAD` goes with the branch that it named to one that is there. If that fails, the next push does it.
    async fn follow(&self, head: Option<String>) {
        let Some(branch) = head.and_then(|head| RefName::new(head.as_bytes()).ok()) else { return };
        if let Err(e) = admin::point_head(self.host, self.repo, &branch).await {
            warn!(repo = %self.repo, "HEAD names a branch that is deleted: {e}");
        }
    }

    async fn end(&self, lease: Lease, decided: anyhow::Result<Decided>) -> End {
        let writer = lease.node();
        let why = match decided {
            // What the node says was moved has been moved; what it refused may still be open: the store is right.
            Ok(Decided::Answer(answer)) => {
                return match lease.end().await {
                    Ended::Applied => {
                        self.follow(answer.head).await;
                        End::Accepted
                    }
                    Ended::NotApplied => End::Verdicts(answer.verdicts),
                    Ended::Unknown(reason) => End::Unknown(format!("{writer} answered; {reason}")),
                };
            }
            Ok(Decided::Refused(refused)) => {
                let why = format!("{writer} refused the grant: {}", refused.reason);
                self.host.driver.tell_answer(writer, None, Ok(Answer::Refused(refused))).await;
                why
            }
            Err(error) => {
                self.host.driver.node_failed(writer, &error).await;
                format!("{writer} failed: {error:#}")
            }
        };
        match lease.end().await {
            Ended::Applied => End::Accepted,
            Ended::NotApplied => End::Again(why),
            Ended::Unknown(reason) => End::Unknown(format!("{why}; {reason}")),
        }
    }
}

/// What users are told: a disk that is full is not theirs, and not a matter of one ref.
fn in_words(why: &str) -> &str {
    let full = ["No space left on device", "Disk quota exceeded", "disk is full"];
    if full.iter().any(|said| why.contains(said)) { DISK_FULL } else { why }
}

/// How one attempt of a push ended.
enum End {
    Verdicts(Vec<Option<String>>),
    Accepted,
    Again(String),
    Unknown(String),
}

fn no_quorum(hold: usize, need: usize, reasons: &[String]) -> String {
    let reasons = if reasons.is_empty() { "the other nodes do not answer".to_owned() } else { reasons.join("; ") };
    format!("no quorum: {hold} of {need} needed copies of the objects are durable ({reasons}); try again later")
}

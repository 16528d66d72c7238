//! One push on the node that was granted it: from the commands to a verdict on each.
//!
//! Its objects are here already, in a parcel. What is left takes milliseconds, and the repository's slot no longer than that:
//! admitted by the rules of the refs log, locked and checked by Git, proposed once to the router, carried out. Until the proposal
//! nothing has happened. From there on the outcome is the log's: what it has is carried out here, whoever is still listening.

mod admit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenon_quorum::Digest;
use tenon_refslog::Record;

use super::Shared;
use super::drill::Point;
use super::replica::{Replica, ReplicaError, Turn};
use crate::git::refs::Prepared;
use crate::wire::{self, Propose, Proposed, PushAnswer, WriteOrder};

pub(crate) use admit::Line;

/// How long the outcome of a proposal is asked for when the answer is lost.
const ASKING: Duration = Duration::from_secs(20);

/// What a ref is told; `None` is `ok`.
pub(crate) type Verdicts = Vec<Option<String>>;

/// A push under its grant.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) shared: Arc<Shared>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) order: WriteOrder,
}

impl Push {
    /// All refs of a push together: every one is moved, or none and each says why.
    ///
    /// # Errors
    /// The gate refuses the grant, or the node is not where the grant builds on; nothing has happened.
    pub(crate) async fn decide(self, lines: Vec<Line>) -> Result<PushAnswer, ReplicaError> {
        let grant = &self.order.grant;
        if (grant.writer, grant.incarnation) != (self.shared.node, self.shared.db.incarnation()) {
            return Err(ReplicaError::Refused("the grant is for another node, or another life of this one".into()));
        }
        let report = self.replica.settle(&grant.base).await?;
        if report.applied != grant.base.newest {
            return Err(ReplicaError::Refused(format!("the node is at {}", report.applied)));
        }
        if let Some(parcel) = &self.order.parcel {
            self.replica.parcels.arrived(parcel).await;
            if !self.replica.parcels.folder(parcel).is_dir() {
                return Err(ReplicaError::Refused("the objects of the push are not here any more".into()));
            }
        }
        let turn = self.replica.turn().await;
        if *self.replica.fence().borrow() > grant.base.fence {
            return Err(ReplicaError::Refused("fenced off before it began".into()));
        }
        let admitted = match admit::admit(&self, &lines).await {
            Ok(admitted) => admitted,
            Err(verdicts) => return Ok(PushAnswer { verdicts, head: None }),
        };
        let verdict = match admitted.record {
            Some(record) => self.carry_through(&turn, record).await.err(),
            None => None,
        };
        let head = admitted.head.filter(|_| verdict.is_none());
        let head = head.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
        Ok(PushAnswer { verdicts: lines.iter().map(|_| verdict.clone()).collect(), head })
    }

    /// From an admitted record to refs that have moved, or to the reason why none has.
    async fn carry_through(&self, turn: &Turn, record: Record) -> Result<(), String> {
        let (shared, replica) = (&self.shared, &self.replica);
        let folders = replica.folders(self.order.parcel.as_ref());
        let prepared = Prepared::begin(&shared.git, &replica.folder, &folders, record.changes()).await;
        let prepared = prepared.map_err(|error| error.in_one_line())?;
        shared.drills.at(Point::AfterPrepare).await;
        let proof = match self.propose(&record).await {
            Ok(proof) => proof,
            Err(reason) => {
                // Whatever comes of it, the locks go with the process.
                let _ = prepared.abort().await;
                return Err(reason);
            }
        };
        shared.drills.at(Point::AfterAppend).await;
        if let Err(error) = self.move_refs(prepared, &record).await {
            tracing::warn!(repo = %replica.id, %error, "refs did not move as prepared; the log is carried out again");
            if replica.take_over(turn, &proof, &record, self.order.parcel.as_ref()).await.is_err() {
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
    async fn move_refs(&self, prepared: Prepared, record: &Record) -> Result<(), ReplicaError> {
        self.replica.adopt(record, self.order.parcel.as_ref()).await?;
        let _alone = self.replica.refs_lock.write().await;
        Ok(prepared.commit(&self.shared.git, &self.replica.folder, record.changes()).await?)
    }

    /// Puts the record to the router. The one question may be repeated; it has one answer.
    async fn propose(&self, record: &Record) -> Result<tenon_quorum::Proof, String> {
        let shared = &self.shared;
        let WriteOrder { grant, parcel, .. } = &self.order;
        let after = Digest(record.after().checksum.prefix16());
        let question = Propose { base: grant.base.proof(), after, parcel: parcel.clone() };
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
}

/// An error's chain in one line, without the address: users see it.
pub(crate) fn without_url(error: reqwest::Error) -> String {
    use std::error::Error as _;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

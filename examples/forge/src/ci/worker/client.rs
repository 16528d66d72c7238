//! The router as a worker sees it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenon_jobqueue::LeaseToken;

use crate::ci::wire::{Assignment, Beat, Done, Held, Leave, LogAt, Me, Pull, RunResult};

/// For calls that do not wait for work.
const SHORT: Duration = Duration::from_secs(10);
/// First pause between two tries of a call; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// One worker's calls.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    server: String,
    token: String,
    me: Me,
}

/// An answer that will not change by asking again.
#[derive(Debug)]
pub(super) enum Answer<T> {
    Done(T),
    Refused(String),
}

impl Client {
    pub(super) fn new(server: String, token: String, me: Me) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).connect_timeout(SHORT).build()?;
        Ok(Self { http, server, token, me })
    }

    pub(super) async fn pull(&self, tags: &[String], wait: Duration) -> Result<Vec<Assignment>> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let ask = Pull { me: self.me.clone(), tags: tags.to_vec(), wait_ms };
        match self.post("pull", &ask, wait + SHORT).await? {
            Answer::Done(jobs) => Ok(jobs),
            Answer::Refused(why) => anyhow::bail!("{why}"),
        }
    }

    pub(super) async fn ack(&self, lease: &LeaseToken) -> Result<Answer<Beat>> {
        self.post("ack", &self.held(lease), SHORT).await
    }

    pub(super) async fn heartbeat(&self, lease: &LeaseToken) -> Result<Answer<Beat>> {
        self.post("heartbeat", &self.held(lease), SHORT).await
    }

    /// Reports until the router has answered, for at most `patience`.
    pub(super) async fn report(
        &self,
        lease: &LeaseToken,
        result: &RunResult,
        patience: Duration,
    ) -> Result<Answer<()>> {
        let done = Done { me: self.me.clone(), lease: *lease, result: result.clone() };
        let until = tokio::time::Instant::now() + patience;
        let mut pause = PAUSE_FIRST;
        loop {
            match self.post("report", &done, SHORT).await {
                Err(e) if tokio::time::Instant::now() + pause < until => {
                    tracing::debug!("the report is not taken yet: {e:#}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MOST);
                }
                answered => return answered,
            }
        }
    }

    pub(super) async fn log(&self, lease: &LeaseToken, offset: u64, part: Bytes) -> Result<()> {
        let key = lease.key;
        let url = format!("{}/internal/ci/log?job={}&attempt={}&offset={offset}", self.server, key.job, key.attempt);
        let reply = self.http.post(url).bearer_auth(&self.token).timeout(SHORT).body(part).send().await?;
        let _at: LogAt = reply.error_for_status()?.json().await?;
        Ok(())
    }

    pub(super) async fn leave(&self) -> Result<()> {
        let _gone: Answer<()> = self.post("leave", &Leave { me: self.me.clone() }, SHORT).await?;
        Ok(())
    }

    fn held(&self, lease: &LeaseToken) -> Held {
        Held { me: self.me.clone(), lease: *lease }
    }

    async fn post<T: DeserializeOwned>(&self, what: &str, ask: &impl Serialize, limit: Duration) -> Result<Answer<T>> {
        let url = format!("{}/internal/ci/{what}", self.server);
        let reply = self.http.post(url).bearer_auth(&self.token).timeout(limit).json(ask).send().await?;
        match reply.status() {
            StatusCode::CONFLICT => Ok(Answer::Refused(reply.text().await?.trim().to_owned())),
            status if status.is_success() => Ok(Answer::Done(reply.json().await.context("not the router's answer")?)),
            status => anyhow::bail!("{status}: {}", reply.text().await.unwrap_or_default().trim()),
        }
    }
}

//! The commands that talk to a running router, and what they print.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::home;
use crate::router::{
    Branch, Compacted, Inspected, Inspection, Listed, Moved, Named, NewName, NodeStatus, Protect, Recovered, Replaced,
    ReplicaStatus, RepoStatus, Status, SweptNodes,
};

/// A running router's API.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    /// The router at `server`, or the one that serves the folder `data`.
    pub(crate) fn new(server: Option<String>, data: &Path, token: Option<String>) -> Result<Self> {
        let url = match server {
            Some(url) => url,
            None => home::published_address(data)?,
        };
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().build()?,
            url: url.trim_end_matches('/').to_owned(),
            token,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) async fn create(&self, name: &str) -> Result<Listed> {
        self.call(Method::POST, "/api/repos", Some(&Named { name: name.to_owned() })).await
    }

    pub(crate) async fn status(&self) -> Result<Status> {
        self.call(Method::GET, "/api/status", None::<&()>).await
    }

    pub(crate) async fn inspect(&self, name: &str) -> Result<Inspection> {
        self.call(Method::GET, &format!("/api/repos/{}/inspect", part(name)), None::<&()>).await
    }

    pub(crate) async fn compact(&self, name: &str) -> Result<Compacted> {
        self.call(Method::POST, &format!("/api/repos/{}/compact", part(name)), None::<&()>).await
    }

    /// Throws a replica away and waits until it is built again; answers with its version.
    pub(crate) async fn rebuild(&self, name: &str, node: u32) -> Result<u64> {
        let path = format!("/api/repos/{}/rebuild/{node}", part(name));
        let answer: serde_json::Value = self.call(Method::POST, &path, None::<&()>).await?;
        answer.get("version").and_then(serde_json::Value::as_u64).context("no version in the answer")
    }

    /// `start`, `stop` or `kill`.
    pub(crate) async fn order(&self, node: u32, order: &str) -> Result<()> {
        self.send(Method::POST, &format!("/api/nodes/{node}/{order}"), None::<&()>).await.map(|_| ())
    }

    /// Gives a node that came back empty its places again.
    pub(crate) async fn replace(&self, node: u32) -> Result<Replaced> {
        self.call(Method::POST, &format!("/api/nodes/{node}/replace"), None::<&()>).await
    }

    /// Moves a repository to a shard.
    pub(crate) async fn migrate(&self, name: &str, shard: u32) -> Result<Moved> {
        self.call(Method::POST, &format!("/api/repos/{}/migrate/{shard}", part(name)), None::<&()>).await
    }

    /// Has every repository of a restored store recovered.
    pub(crate) async fn recover(&self) -> Result<Recovered> {
        self.call(Method::POST, "/api/store/recover", None::<&()>).await
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.send(Method::DELETE, &format!("/api/repos/{}", part(name)), None::<&()>).await.map(|_| ())
    }

    pub(crate) async fn rename(&self, name: &str, new: &str) -> Result<Listed> {
        let new = NewName { name: new.to_owned() };
        self.call(Method::POST, &format!("/api/repos/{}/rename", part(name)), Some(&new)).await
    }

    pub(crate) async fn fork(&self, name: &str, new: &str) -> Result<Listed> {
        let new = NewName { name: new.to_owned() };
        self.call(Method::POST, &format!("/api/repos/{}/fork", part(name)), Some(&new)).await
    }

    /// The default branch, which becomes `branch` if one is named.
    pub(crate) async fn default_branch(&self, name: &str, branch: Option<String>) -> Result<Branch> {
        let path = format!("/api/repos/{}/default-branch", part(name));
        match branch {
            None => self.call(Method::GET, &path, None::<&()>).await,
            Some(branch) => self.call(Method::POST, &path, Some(&Branch { branch })).await,
        }
    }

    /// The protected branches, once `branch` is one if `on`, or none any more.
    pub(crate) async fn protect(&self, name: &str, branch: Option<String>, on: bool) -> Result<Vec<String>> {
        let path = format!("/api/repos/{}/protected", part(name));
        match branch {
            None => self.call(Method::GET, &path, None::<&()>).await,
            Some(branch) => self.call(Method::POST, &path, Some(&Protect { branch, on })).await,
        }
    }

    pub(crate) async fn sweep(&self, name: &str) -> Result<SweptNodes> {
        self.call(Method::POST, &format!("/api/repos/{}/sweep", part(name)), None::<&()>).await
    }

    /// The names of all repositories.
    pub(crate) async fn names(&self) -> Result<Vec<Listed>> {
        self.call(Method::GET, "/api/repos", None::<&()>).await
    }

    /// All of a repository, to be kept.
    pub(crate) async fn export(&self, name: &str) -> Result<Response> {
        self.send(Method::GET, &format!("/api/repos/{}/export", part(name)), None::<&()>).await
    }

    /// Makes a repository of what was exported.
    pub(crate) async fn import(&self, name: &str, body: reqwest::Body) -> Result<Listed> {
        let url = format!("{}/api/repos/{}/import", self.url, part(name));
        let mut request = self.http.post(url).header("content-type", "application/x-forge-repository").body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let reply = request.send().await.with_context(|| format!("no forge answers at {}", self.url))?;
        if reply.status().is_success() {
            return Ok(reply.json().await?);
        }
        bail!("{}", reply.text().await.unwrap_or_default().trim())
    }

    /// The path of a link that logs a browser in; none where everybody is let in.
    pub(crate) async fn login(&self) -> Result<Option<String>> {
        let link: crate::router::Link = self.call(Method::POST, "/api/login", None::<&()>).await?;
        Ok(link.path)
    }

    /// What the API says under a path.
    pub(crate) async fn get(&self, path: &str) -> Result<serde_json::Value> {
        self.call(Method::GET, path, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<T> {
        Ok(self.send(method, path, body).await?.json().await?)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request
            .send()
            .await
            .with_context(|| format!("no forge answers at {}: is it running? start it with `forge`", self.url))?;
        if reply.status().is_success() {
            return Ok(reply);
        }
        let status = reply.status();
        bail!("{} ({status})", reply.text().await.unwrap_or_default().trim())
    }
}

/// A name as one part of a path.
fn part(name: &str) -> String {
    name.replace('/', "%2F")
}

impl Status {
    /// As people read it.
    pub(crate) fn table(&self) -> String {
        let node = |n: &NodeStatus| {
            let pid = n.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let state = if n.up { "up" } else { "down" };
            let url = n.url.as_deref().unwrap_or("-");
            format!("{:<5} dc-{:<8} {state:<6} {pid:<8} {url}\n", n.node, n.datacentre)
        };
        let repo = |r: &RepoStatus| {
            let replicas: Vec<String> = r.replicas.iter().map(ReplicaStatus::words).collect();
            let digest = r.digest.get(..16).unwrap_or(&r.digest);
            format!("{:<21} {:<6} {:<8} {digest}  {}\n", r.name, r.shard, r.version, replicas.join(", "))
        };
        let nodes: String = self.nodes.iter().map(node).collect();
        let repos: String = self.repos.iter().map(repo).collect();
        format!(
            "{}  quorum {} (nodes/to read/to write)\n\n\
             NODE  DATACENTRE  STATE  PID      ADDRESS\n{nodes}\n\
             REPOSITORY            SHARD  VERSION  DIGEST            REPLICAS\n{}",
            self.url,
            self.quorum,
            if repos.is_empty() { "(none yet)\n" } else { &repos }
        )
    }
}

impl ReplicaStatus {
    fn words(&self) -> String {
        match self.lag {
            Some(lag) if lag > 0 => format!("{} {} by {lag}", self.node, self.standing),
            Some(_) | None => format!("{} {}", self.node, self.standing),
        }
    }
}

impl Inspection {
    /// As people read it.
    pub(crate) fn table(&self) -> String {
        let replica = |r: &Inspected| {
            let version = r.version.map_or_else(|| "-".to_owned(), |v| v.to_string());
            let refs = r.refs.as_ref().map_or_else(|| "-".to_owned(), |refs| refs.lines().count().to_string());
            let digest = r.digest.as_deref().or(r.error.as_deref()).unwrap_or_default();
            format!("{:<5} {version:<8} {refs:<5} {digest}\n", r.node)
        };
        let replicas: String = self.replicas.iter().map(replica).collect();
        format!(
            "newest: version {}, digest {}\n\nNODE  VERSION  REFS  DIGEST OF THE REFS GIT LISTS\n{replicas}\n\
             all replicas are {}\n",
            self.version,
            self.digest,
            if self.alike { "alike" } else { "NOT alike" }
        )
    }
}

impl Compacted {
    /// As people read it.
    pub(crate) fn line(&self) -> String {
        let Self { newest, folded, records, segments, snapshot, bytes_before, bytes } = self;
        let snapshot = snapshot.map_or_else(String::new, |version| format!("a snapshot of version {version}, "));
        format!(
            "folded {folded} records of {newest} versions: the log is now {snapshot}{segments} segments and \
             {records} records, {bytes} bytes instead of {bytes_before}"
        )
    }
}

impl Replaced {
    /// As people read it.
    pub(crate) fn lines(&self, node: u32) -> String {
        let failed = self.failed.iter().map(|(name, why)| format!("{name}: {why}\n"));
        let failed: String = failed.collect();
        format!("node {node} learned {} repositories anew; {} knew it as it is\n{failed}", self.taken, self.unchanged)
    }
}

impl Recovered {
    /// As people read it.
    pub(crate) fn lines(&self) -> String {
        let done = self.done.iter().map(|(name, version)| format!("{name}: version {version} is the newest\n"));
        let failed = self.failed.iter().map(|(name, why)| format!("{name}: {why}\n"));
        let counts = format!("recovered {}, needed nothing {}\n", self.done.len(), self.unchanged);
        done.chain(failed).chain([counts]).collect()
    }
}

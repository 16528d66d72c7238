//! One user who pushes as long as the demo lasts, and knows what must be on the server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::git::Client;

/// What a user did and saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Refs of this user that the server acknowledged, with their ids; what was deleted is not there.
    pub(super) refs: BTreeMap<String, String>,
    /// Commits whose push to the branch that all share was acknowledged.
    pub(super) shared: Vec<String>,
    /// When each push was sent, and how long it took until it was acknowledged.
    pub(super) pushes: Vec<(Instant, Duration)>,
    /// Pushes to the shared branch that came second, and were told so.
    pub(super) lost_races: usize,
    /// Pushes that failed otherwise, and what the user was told.
    pub(super) failed: Vec<String>,
    /// Reads right after an acknowledged push.
    pub(super) reads: usize,
    /// Reads that did not show what had been acknowledged.
    pub(super) stale: Vec<String>,
}

/// Pushes until told to stop.
pub(super) async fn push_on(
    client: Client,
    progress: watch::Sender<usize>,
    stop: watch::Receiver<bool>,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut round = 0;
    while !*stop.borrow() {
        own_refs(&client, &mut seen, round).await?;
        shared_branch(&client, &mut seen, round).await?;
        round += 1;
        progress.send_replace(seen.pushes.len());
    }
    Ok(seen)
}

/// New branches and tags, one that moves by force, and one that goes: in one push.
async fn own_refs(client: &Client, seen: &mut Seen, round: usize) -> Result<()> {
    let me = client.name();
    let id = client.commit(&format!("own-{round}")).await?;
    let mut change = vec![
        (format!("refs/heads/{me}/topic-{round}"), Some(id.clone())),
        (format!("refs/heads/{me}/moving"), Some(id.clone())),
    ];
    if round.is_multiple_of(3) {
        let tag = format!("{me}-v{round}");
        client.run(&["tag", "-a", "-m", "a release", &tag]).await?;
        let tag = format!("refs/tags/{tag}");
        change.push((tag.clone(), Some(client.run(&["rev-parse", &tag]).await?)));
    }
    let oldest = seen.refs.keys().find(|name| name.contains("/topic-")).cloned();
    if let Some(oldest) = oldest.filter(|_| round % 4 == 3) {
        change.push((oldest, None));
    }
    let refspecs: Vec<String> =
        change.iter().map(|(name, id)| format!("+{}:{name}", id.as_deref().unwrap_or_default())).collect();
    let mut args = vec!["push", "-q", "origin"];
    // A deletion is `:NAME`, without the plus that forces.
    args.extend(refspecs.iter().map(|spec| if spec.starts_with("+:") { &spec[1..] } else { spec }));
    let sent = Instant::now();
    match client.run(&args).await {
        Ok(_) => {
            seen.pushes.push((sent, sent.elapsed()));
            for (name, id) in change {
                match id {
                    Some(id) => seen.refs.insert(name, id),
                    None => seen.refs.remove(&name),
                };
            }
        }
        Err(e) => {
            seen.failed.push(format!("{e:#}"));
            settle(client, seen, change).await?;
        }
    }
    read_back(client, seen).await
}

/// A push that was not acknowledged may have happened or not, but whole.
async fn settle(client: &Client, seen: &mut Seen, change: Vec<(String, Option<String>)>) -> Result<()> {
    let there: BTreeMap<String, String> = client.remote_refs("*").await?.into_iter().collect();
    let happened = change.iter().filter(|(name, id)| there.get(name) == id.as_ref()).count();
    if happened == change.len() {
        for (name, id) in change {
            match id {
                Some(id) => seen.refs.insert(name, id),
                None => seen.refs.remove(&name),
            };
        }
    } else if change.iter().any(|(name, _)| there.get(name) != seen.refs.get(name)) {
        bail!("a push of {} that failed was taken in part: {there:?}", client.name());
    }
    Ok(())
}

/// Whoever was told of a push sees it.
async fn read_back(client: &Client, seen: &mut Seen) -> Result<()> {
    let there = client.remote_refs(&format!("refs/heads/{}/*", client.name())).await?;
    seen.reads += 1;
    let own = |(name, _): &(&String, &String)| name.starts_with("refs/heads/");
    let want: Vec<(String, String)> =
        seen.refs.iter().filter(own).map(|(name, id)| (name.clone(), id.clone())).collect();
    if there != want {
        seen.stale.push(format!("{} read {there:?} after {want:?} was acknowledged", client.name()));
    }
    Ok(())
}

/// One more commit on the branch that all users push to without force: who comes second is refused.
async fn shared_branch(client: &Client, seen: &mut Seen, round: usize) -> Result<()> {
    let tip = client.remote_refs("refs/heads/main").await?;
    let parent = match tip.first() {
        Some((_, id)) => {
            client.run(&["fetch", "-q", "origin", "refs/heads/main"]).await?;
            Some(id.clone())
        }
        None => None,
    };
    let tree = client.run(&["rev-parse", "HEAD^{tree}"]).await?;
    let message = format!("main {round} by {}", client.name());
    let mut args = vec!["commit-tree", "-m", &message, &tree];
    if let Some(parent) = &parent {
        args.extend(["-p", parent]);
    }
    let id = client.run(&args).await?;
    let sent = Instant::now();
    match client.run(&["push", "-q", "origin", &format!("{id}:refs/heads/main")]).await {
        Ok(_) => {
            seen.pushes.push((sent, sent.elapsed()));
            seen.shared.push(id);
        }
        Err(e) => {
            let told = format!("{e:#}");
            if told.contains("rejected]") {
                seen.lost_races += 1;
            } else {
                seen.failed.push(told);
            }
        }
    }
    Ok(())
}

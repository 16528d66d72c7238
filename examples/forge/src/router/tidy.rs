//! What grows is kept in bounds: unreachable objects are swept out, old pipelines, logs and rows of feeds are forgotten.

use std::time::Duration;

use clap::Args;
use tenon_quorum::RepoId;
use tracing::{info, warn};

use super::{Host, admin};
use crate::ci::logs::Logs;

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_mins(10);
/// The first look comes this long after the start.
const FIRST: Duration = Duration::from_secs(30);

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "What is kept")]
pub(crate) struct Retention {
    /// Objects that no ref reaches are swept out so often, in hours; 0 for never (then: forge gc NAME).
    #[arg(long, default_value_t = 24)]
    pub(crate) sweep_hours: u64,
    /// Ended pipelines and their logs are kept for so many days; 0 for ever.
    #[arg(long, default_value_t = 90)]
    pub(crate) keep_days: u64,
    /// And so many of each repository, however old.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_pipelines: u32,
    /// Rows of each repository's feed of changes that are kept once they are followed and folded into its log.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_changes: u32,
}

impl Retention {
    /// The defaults, for a forge that is not started by the command line.
    pub(crate) fn usual() -> Self {
        Self { sweep_hours: 24, keep_days: 90, keep_pipelines: 100, keep_changes: 1000 }
    }
}

/// Tidies up, for ever.
pub(super) async fn run(host: Host) {
    tokio::time::sleep(FIRST).await;
    loop {
        if let Err(e) = forget(&host).await {
            warn!("what is old could not be forgotten: {e}");
        }
        sweep(&host).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// Forgets what is old.
///
/// # Errors
/// The store could not be changed; it is tried again.
pub(super) async fn forget(host: &Host) -> Result<(), super::Failure> {
    let keep = host.retention;
    let now = super::driver::now().as_millis();
    let age = keep.keep_days.saturating_mul(24 * 60 * 60 * 1000);
    if age > 0 {
        let before = now.saturating_sub(age);
        let gone = crate::ci::show::stored(&host.ci.centre, move |centre| {
            let gone = centre.store.forget(before, keep.keep_pipelines)?;
            remove_logs(&centre.logs, &gone);
            Ok(gone.len())
        });
        let gone = gone.await?;
        if gone > 0 {
            info!(jobs = gone, "old pipelines are forgotten");
        }
    }
    for (repo, _) in host.driver.stored(|store| store.names()).await? {
        let followed = host.ci.followed(repo).await?;
        host.driver.stored(move |store| store.shorten_feed(repo, followed, keep.keep_changes)).await?;
    }
    Ok(())
}

fn remove_logs(logs: &Logs, gone: &[tenon_jobqueue::JobKey]) {
    for key in gone {
        if let Err(e) = logs.remove(*key) {
            warn!(?key, "its log stays: {e}");
        }
    }
}

/// Sweeps every repository that has changed since it was swept last, if that is long enough ago.
async fn sweep(host: &Host) {
    let pause = host.retention.sweep_hours.saturating_mul(60 * 60 * 1000);
    if pause == 0 {
        return;
    }
    let names = match host.driver.stored(|store| store.names()).await {
        Ok(names) => names,
        Err(e) => return warn!("the repositories cannot be listed: {e}"),
    };
    for (repo, name) in names {
        let due = async {
            if host.survey(RepoId(repo)).await.is_err() {
                return Ok(None);
            }
            let version = host.driver.view(|core| core.router.row_of(RepoId(repo)).map(|row| row.newest.version.0));
            let now = super::driver::now().as_millis();
            let last = host.driver.stored(move |store| store.swept(repo, version, now)).await?;
            let due = last.is_some_and(|(swept, at)| version != Some(swept) && now.saturating_sub(at) >= pause);
            Ok::<_, super::Failure>(version.filter(|_| due))
        };
        let version = match due.await {
            Ok(Some(version)) => version,
            Ok(None) => continue,
            Err(e) => return warn!("what was swept cannot be read: {e}"),
        };
        match admin::sweep_all(host, RepoId(repo)).await {
            Ok(nodes) if nodes.iter().all(|(_, swept)| swept.is_ok()) => {
                let now = super::driver::now().as_millis();
                let noted = host.driver.stored(move |store| store.set_swept(repo, version, now)).await;
                info!(name, noted = noted.is_ok(), "swept");
            }
            Ok(_) => info!(name, "not swept on every node; tried again"),
            Err(e) => warn!(name, "not swept: {e}"),
        }
    }
}

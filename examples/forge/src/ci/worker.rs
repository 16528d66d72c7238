//! The worker: a process that pulls jobs, runs them apart from the machine, and reports.

mod client;
mod execute;
pub(crate) mod guard;
mod log;
mod process;

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::Jobs;
use super::wire::{Assignment, Me, Order, RunResult};
use client::{Answer, Client};
use execute::Shop;
use process::Guard;

/// How long one pull waits for work.
const PULL: Duration = Duration::from_secs(20);
/// Pauses after pulls that fail: the router is down, or not there yet.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a report is tried for, and by a worker that has to end.
const REPORT: Duration = Duration::from_mins(2);
const LAST_WORD: Duration = Duration::from_secs(2);
/// How many parts of output may wait for the router.
const OUTPUT: usize = 256;

/// How a worker is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) token: String,
    pub(crate) tags: Vec<String>,
    pub(crate) folder: PathBuf,
    pub(crate) jobs: Jobs,
    pub(crate) life: Life,
}

/// When a worker ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// On SIGTERM and SIGINT.
    OwnMaster,
    /// Also when its standard input ends, that is with the process that started it.
    WithParent,
}

/// What a worker has been told about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    /// Finish the job in hand, take no other.
    Leave,
    /// Kill the job in hand.
    Stop,
}

/// Works until it is told to leave.
///
/// # Errors
/// The worker could not begin.
pub(crate) async fn run(options: Options) -> Result<()> {
    let incarnation = crate::home::random()?;
    let me = Me { name: options.name.clone(), incarnation };
    let client = Client::new(options.server.clone(), options.token.clone(), me)?;
    let shop = Shop {
        guard: Guard::of_this_program()?,
        folder: options.folder.clone(),
        server: options.server.clone(),
        token: options.token.clone(),
        jobs: options.jobs.clone(),
    };
    shop.open().with_context(|| format!("cannot use the folder {}", options.folder.display()))?;
    let told = listen(options.life)?;
    tracing::info!(name = options.name, tags = ?options.tags, "a worker");
    work(&client, &shop, &options.tags, told).await;
    tracing::info!(name = options.name, "leaves");
    Ok(())
}

/// Signals, and the parent's end, as one value that only grows.
fn listen(life: Life) -> Result<watch::Receiver<Told>> {
    let (tell, told) = watch::channel(Told::Nothing);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let (with_parent, mut parent) = oneshot::channel::<()>();
    let mut held = Some(with_parent);
    if life == Life::WithParent {
        let with_parent = held.take();
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
            drop(with_parent);
        });
    }
    tokio::spawn(async move {
        let _held = held;
        loop {
            tokio::select! {
                _ = term.recv() => tell.send_modify(|told| *told = (*told).max(Told::Leave)),
                // The first Ctrl-C lets the job end, the second does not.
                _ = int.recv() => tell.send_modify(|told| *told = if *told == Told::Nothing { Told::Leave } else { Told::Stop }),
                _ = &mut parent => {
                    tell.send_replace(Told::Stop);
                    return;
                }
            }
        }
    });
    Ok(told)
}

async fn work(client: &Client, shop: &Shop, tags: &[String], mut told: watch::Receiver<Told>) {
    while *told.borrow_and_update() == Told::Nothing {
        let pulled = tokio::select! {
            pulled = client.pull(tags, PULL) => pulled,
            () = left(client, told.clone()) => return,
        };
        match pulled {
            Ok(jobs) => {
                for job in jobs {
                    hold(client, shop, job, told.clone()).await;
                }
            }
            Err(e) => {
                tracing::debug!("no work: {e:#}");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = told.wait_for(|told| *told > Told::Nothing) => return,
                }
            }
        }
    }
}

/// Told to end while a pull waits: the router answers it at once, with the last job or with none. Ends, and with
/// it the pull, only when nobody can be waited for.
async fn left(client: &Client, mut told: watch::Receiver<Told>) {
    let _ = told.wait_for(|told| *told > Told::Nothing).await;
    if let Err(e) = client.leave().await {
        tracing::debug!("cannot say that it leaves: {e:#}");
        return;
    }
    let _ = told.wait_for(|told| *told == Told::Stop).await;
}

/// One delivery: acknowledged, run, reported.
async fn hold(client: &Client, shop: &Shop, job: Assignment, told: watch::Receiver<Told>) {
    match acknowledge(client, &job).await {
        Some(Order::Go) => {}
        Some(Order::Stop) => {
            report(client, &job, &RunResult::Stopped, &told).await;
            return;
        }
        None => return,
    }
    tracing::info!(job = %job.lease.key.job, title = job.title, "runs");
    let (halt, mut halted) = watch::channel(false);
    let (output, lines) = mpsc::channel(OUTPUT);
    let shipped = tokio::spawn(log::ship(client.clone(), job.clone(), lines));
    let result = {
        let watch = keep_lease(client, &job, told.clone(), &halt);
        let run = shop.run(&job, &output, &mut halted);
        tokio::pin!(watch, run);
        tokio::select! {
            result = &mut run => Some(result),
            kept = &mut watch => {
                // Stopped: the run ends soon, and is reported only if the lease still holds.
                let result = run.await;
                (kept == Kept::Stopped).then_some(result)
            }
        }
    };
    drop(output);
    let _log_is_out = tokio::time::timeout(Duration::from_secs(15), shipped).await;
    if let Some(result) = result {
        report(client, &job, &result, &told).await;
    } else {
        tracing::warn!(job = %job.lease.key.job, "its lease is lost: another worker runs it");
    }
}

async fn acknowledge(client: &Client, job: &Assignment) -> Option<Order> {
    let until = Instant::now() + Duration::from_millis(job.lease_ms);
    while Instant::now() < until {
        match client.ack(&job.lease).await {
            Ok(Answer::Done(beat)) => return Some(beat.order),
            Ok(Answer::Refused(why)) => {
                tracing::info!(job = %job.lease.key.job, "not ours any more: {why}");
                return None;
            }
            Err(e) => {
                tracing::debug!("no answer to an ack: {e:#}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// The run was told to stop; its lease holds.
    Stopped,
    /// The lease is lost.
    Lost,
}

/// Says that the worker lives, until the run has to stop.
async fn keep_lease(
    client: &Client,
    job: &Assignment,
    mut told: watch::Receiver<Told>,
    stop: &watch::Sender<bool>,
) -> Kept {
    let mut beat = tokio::time::interval(Duration::from_millis(job.heartbeat_ms.max(1)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lease = Duration::from_millis(job.lease_ms);
    let mut heard = Instant::now();
    let kept = loop {
        tokio::select! {
            _ = beat.tick() => {}
            _ = told.wait_for(|told| *told == Told::Stop) => break Kept::Stopped,
        }
        // An answer that takes longer than the lease is none.
        match tokio::time::timeout_at(heard + lease, client.heartbeat(&job.lease)).await {
            Ok(Ok(Answer::Done(beat))) if beat.order == Order::Stop => break Kept::Stopped,
            Ok(Ok(Answer::Done(_))) => heard = Instant::now(),
            Ok(Ok(Answer::Refused(why))) => {
                tracing::info!(job = %job.lease.key.job, "not ours any more: {why}");
                break Kept::Lost;
            }
            Ok(Err(e)) => tracing::debug!("no answer to a heartbeat: {e:#}"),
            Err(_) => break Kept::Lost,
        }
    };
    stop.send_replace(true);
    kept
}

async fn report(client: &Client, job: &Assignment, result: &RunResult, told: &watch::Receiver<Told>) {
    let id = job.lease.key.job;
    let patience = if *told.borrow() == Told::Stop { LAST_WORD } else { REPORT };
    match client.report(&job.lease, result, patience).await {
        Ok(Answer::Done(())) => tracing::info!(job = %id, ?result, "reported"),
        Ok(Answer::Refused(why)) => tracing::info!(job = %id, ?result, "the report came too late: {why}"),
        Err(e) => tracing::warn!(job = %id, ?result, "the report was not taken: {e:#}"),
    }
}

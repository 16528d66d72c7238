//! A worker: pulls, runs the command, says that it lives, reports.
//!
//! It never runs a command that the database does not know as its own: it starts only on the answer to its
//! acknowledgement, and only soon after it pulled; and it stops by itself when no heartbeat was answered for long,
//! since then the job may be another's.

use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tenon_jobqueue::{Act, Answer, LeaseToken, Outcome, State, Worker};

use crate::centre::{Answered, Ask, Desk, LEASE};

/// For so long after its last word a worker takes its job for its own: it lets go well before the lease ends.
const SURE: Duration = LEASE.saturating_sub(Duration::from_secs(1));
const HEARTBEAT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Runs jobs until the centre ends.
pub(crate) fn work(desk: &Desk, me: Worker) {
    loop {
        let pulled = Instant::now();
        let Ok(answered) = desk.ask(Ask::Pull(me)).recv() else { return };
        let Some((job, command)) = answered.job else {
            sleep(Duration::from_millis(50));
            continue;
        };
        let left = || SURE.saturating_sub(pulled.elapsed());
        let acked = desk.ask(Ask::Word(me, job.token, Act::Ack));
        match acked.recv_timeout(left()) {
            Ok(answered) if may_run(&answered) && !left().is_zero() => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(_) | Err(RecvTimeoutError::Timeout) => continue,
        }
        let outcome = match run(&command) {
            Ok(mut child) => watch(desk, (me, job.token), &mut child, pulled),
            Err(why) => {
                eprintln!("job {} cannot be started: {why}", job.token.key.job);
                Some(Outcome::Failed { code: -1 })
            }
        };
        // A job that was let go of is no longer this worker's to report.
        if let Some(outcome) = outcome
            && desk.ask(Ask::Word(me, job.token, Act::Report(outcome))).recv().is_err()
        {
            return;
        }
    }
}

fn run(command: &str) -> std::io::Result<Child> {
    Command::new("sh").args(["-c", command]).spawn()
}

const fn may_run(answered: &Answered) -> bool {
    matches!(answered.answer, Answer::Done { state: State::Running, .. })
}

/// Waits for the command's end, and stops it when the job is to be stopped or may be another's. `None`: it may be.
fn watch(desk: &Desk, (me, token): (Worker, LeaseToken), child: &mut Child, pulled: Instant) -> Option<Outcome> {
    let (mut known, mut asked): (Instant, Option<(Instant, Receiver<Answered>)>) = (pulled, None);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(outcome(status)),
            Ok(None) => {}
            Err(_) => return stopped(child, Some(Outcome::Failed { code: -1 })),
        }
        match asked.as_ref().map(|(at, answered)| (*at, answered.try_recv())) {
            Some((at, Ok(answered))) => {
                if !may_run(&answered) {
                    let stops = matches!(answered.answer, Answer::Done { state: State::Aborting, .. });
                    return stopped(child, stops.then_some(Outcome::Failed { code: -1 }));
                }
                (known, asked) = (at, None);
            }
            Some((_, Err(TryRecvError::Disconnected))) => return stopped(child, None),
            None if known.elapsed() >= HEARTBEAT => {
                asked = Some((Instant::now(), desk.ask(Ask::Word(me, token, Act::Heartbeat))));
            }
            Some((_, Err(TryRecvError::Empty))) | None => {}
        }
        if known.elapsed() > SURE {
            return stopped(child, None);
        }
        sleep(LOOK);
    }
}

fn stopped(child: &mut Child, outcome: Option<Outcome>) -> Option<Outcome> {
    // It has ended by itself if it cannot be killed.
    let _ended = child.kill();
    let _reaped = child.wait();
    outcome
}

fn outcome(status: ExitStatus) -> Outcome {
    if status.success() { Outcome::Succeeded } else { Outcome::Failed { code: status.code().unwrap_or(-1) } }
}

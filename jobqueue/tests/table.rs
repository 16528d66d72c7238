//! The published table against the function: every state, every event.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tenon_jobqueue::table::{Cell, Rule, cell, graphviz, markdown};
use tenon_jobqueue::{
    Act, Attempt, CallId, Delivery, Entry, Event, EventKind, Incarnation, Job, JobId, JobKey, JobSpec, Late,
    LeaseToken, Outcome, PipelineId, PoolId, Reason, Refused, Stamp, State, Stopper, Tag, Tally, Ticket, Timestamp,
    Verdict, Version, Worker, WorkerName, WriteId, transition,
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn worker() -> Worker {
    Worker { name: WorkerName::new(7), incarnation: Incarnation::new(1) }
}

fn write(ticket: u64) -> WriteId {
    WriteId { engine: Incarnation::new(1), ticket: Ticket::new(ticket) }
}

/// A row as it is found in `state`; its deadline has just passed if it has one.
fn row(state: State) -> Job {
    let held = state.is_leased() || matches!(state, State::Polling | State::Suspended);
    let delivery = Delivery {
        worker: worker(),
        pool: PoolId::new(1),
        pull: CallId::new(3),
        version: Version::new(3),
        write: write(3),
    };
    let job = Job {
        key: JobKey { job: JobId::new(1), attempt: Attempt::FIRST },
        pipeline: PipelineId::new(1),
        version: Version::new(5),
        write: write(5),
        spec: JobSpec::default(),
        tag: Tag::OTHER,
        priority: 0,
        state,
        reason: if state == State::Suspended { Reason::Callback } else { Reason::Submitted },
        since: Timestamp::ZERO,
        until: NOW,
        timeout_at: Timestamp::MAX,
        sequence: 1,
        delivery: held.then_some(delivery),
        entry: Entry::Run,
        tally: Tally::default(),
        outcome: None,
        start_by: Timestamp::MAX,
        finish_by: Timestamp::MAX,
    };
    assert!(job.check(), "{state:?}");
    job
}

fn token(job: &Job) -> LeaseToken {
    job.token().unwrap_or(LeaseToken { key: job.key, version: Version::new(3), write: write(3) })
}

/// Every event there is, with data that fits `job`; kinds with several outcomes come several times.
fn events(job: &Job) -> Vec<Event> {
    let later = NOW.after_millis(5_000);
    let work = |act| Event::Work { worker: worker(), token: token(job), act };
    let acts = [
        Act::Ack,
        Act::Nack,
        Act::Heartbeat,
        Act::Pause(later),
        Act::Resume,
        Act::Snooze(later),
        Act::Suspend(later),
        Act::Poll(later),
        Act::Report(Outcome::Succeeded),
        Act::Report(Outcome::Failed { code: 1 }),
        Act::Report(Outcome::FailedForGood { code: 1 }),
    ];
    let mut events: Vec<Event> = acts.into_iter().map(work).collect();
    events.extend([
        Event::Decide(Verdict::Enqueue(Reason::Batch { order: 1 })),
        Event::Decide(Verdict::Delay(later, Reason::StartAt { at: later })),
        Event::Decide(Verdict::Await(later, Reason::Approval)),
        Event::Decide(Verdict::Skip(Reason::NotWanted { failed: 1 })),
        Event::Decide(Verdict::Reuse(Reason::Unchanged { result_of: JobId::new(9) })),
        Event::Deliver { worker: worker(), pool: PoolId::new(1), pull: CallId::new(4) },
        Event::Callback { token: token(job) },
        Event::Approve,
        Event::Supersede { by: JobId::new(2) },
        Event::Expire,
        Event::Abort(Stopper::User),
        Event::Retry,
        Event::Gone { worker: worker() },
    ]);
    events
}

/// The variants of `state`'s row that matter to some event.
fn variants(state: State) -> Vec<Job> {
    let base = row(state);
    let mut over = base;
    over.timeout_at = NOW;
    let mut approval = base;
    approval.reason = Reason::Approval;
    let mut held = base;
    held.reason = Reason::Held { filter: 1, until: NOW };
    let mut overtime = base;
    overtime.reason = Reason::OverTime { due: NOW };
    let mut brittle = base;
    brittle.spec.policy.max_crashes = 1;
    brittle.spec.policy.max_nacks = 1;
    brittle.spec.policy.max_unacked = 1;
    let mut retried = base;
    retried.spec.policy.max_attempts = 2;
    let mut unfinished = base;
    unfinished.finish_by = NOW;
    let mut waited = base;
    waited.start_by = NOW;
    let mut optional = waited;
    optional.spec.policy.late = Late::IsSkipped;
    vec![base, over, approval, held, overtime, brittle, retried, unfinished, waited, optional]
}

#[test]
fn every_pair_moves_as_the_table_says_or_is_refused_with_its_rule() {
    let stamp = Stamp { write: write(6), chance: 11 };
    let (mut moved, mut refused) = (0, 0);
    for state in State::ALL {
        for job in variants(state) {
            for event in events(&job) {
                let said = transition(NOW, &job, &event, &stamp);
                match (cell(state, event.kind()), said) {
                    (Cell::To(states), Ok(change)) => {
                        assert!(states.contains(&change.row.state), "{state:?} {event:?}");
                        assert!(change.row.check(), "{state:?} {event:?}: {:?}", change.row);
                        if change.changes(&job) {
                            assert_eq!(change.row.version, job.version.next());
                            assert_eq!(change.row.write, stamp.write);
                        } else {
                            assert_eq!(change.row, job, "the same version, another row");
                        }
                        if let Some(next) = change.next {
                            assert!(change.row.state.is_terminal(), "two attempts at once");
                            assert!(next.check() && next.version == Version::FIRST);
                        }
                        moved += 1;
                    }
                    (Cell::New, Ok(change)) => {
                        assert_eq!(change.row, job);
                        assert_eq!(change.next.unwrap().key.attempt, job.key.attempt.next());
                        moved += 1;
                    }
                    (Cell::No(rule), Err(why)) => {
                        let expected = match rule {
                            Rule::Terminal => Refused::Terminal(state),
                            Rule::StaleLease => Refused::StaleLease,
                            Rule::WrongState => Refused::WrongState(state),
                            Rule::NotDue => Refused::NotDue,
                            Rule::StillOpen => Refused::StillOpen(state),
                        };
                        assert_eq!(why, expected, "{state:?} {event:?}");
                        refused += 1;
                    }
                    // An approval is for what waits for one.
                    (Cell::To(_), Err(Refused::WrongState(State::Suspended))) => {
                        assert_eq!(event, Event::Approve);
                        refused += 1;
                    }
                    // What waits in a queue has a deadline only if its policy gives it one.
                    (Cell::To(_), Err(Refused::NotDue)) if state == State::Pending => refused += 1,
                    (expected, said) => panic!("{state:?} {event:?}: {expected:?}, {said:?}"),
                }
            }
        }
    }
    assert!(moved > 200 && refused > 800, "{moved} moved, {refused} refused");
}

#[test]
fn every_state_named_in_a_cell_is_reached() {
    let stamp = Stamp { write: write(6), chance: 11 };
    for state in State::ALL {
        for kind in EventKind::ALL {
            let Cell::To(states) = cell(state, kind) else { continue };
            for wanted in states {
                let reached = variants(state).iter().any(|job| {
                    events(job)
                        .iter()
                        .filter(|event| event.kind() == kind)
                        .any(|event| transition(NOW, job, event, &stamp).is_ok_and(|t| t.row.state == *wanted))
                });
                assert!(reached, "{state:?} + {kind:?} never becomes {wanted:?}");
            }
        }
    }
}

#[test]
fn no_event_leaves_a_terminal_state() {
    for state in State::ALL.into_iter().filter(|state| state.is_terminal()) {
        for kind in EventKind::ALL {
            match cell(state, kind) {
                Cell::No(Rule::Terminal) => {}
                Cell::New => assert_eq!(kind, EventKind::Retry),
                other @ (Cell::To(_) | Cell::No(_)) => panic!("{state:?} {kind:?} {other:?}"),
            }
        }
    }
}

#[test]
fn nothing_expires_before_its_deadline() {
    let early = Timestamp::from_millis(NOW.as_millis() - 1);
    let mut timed = 0;
    for job in State::ALL.into_iter().flat_map(variants).filter(|job| job.due() == Some(NOW)) {
        let told = transition(early, &job, &Event::Expire, &Stamp::default());
        assert_eq!(told.err(), Some(Refused::NotDue), "{:?}", job.state);
        assert!(transition(NOW, &job, &Event::Expire, &Stamp::default()).is_ok(), "{:?}", job.state);
        timed += 1;
    }
    assert!(timed > 20, "only {timed} rows with a deadline");
}

#[test]
fn a_token_speaks_for_one_delivery_and_one_life_of_a_worker() {
    let stamp = Stamp { write: write(6), chance: 11 };
    let job = row(State::Running);
    let say = |worker, token| {
        let event = Event::Work { worker, token, act: Act::Heartbeat };
        transition(NOW, &job, &event, &stamp).map(|_| ())
    };
    let good = token(&job);
    assert_eq!(say(worker(), good), Ok(()));
    let reborn = Worker { incarnation: Incarnation::new(2), ..worker() };
    assert_eq!(say(reborn, good), Err(Refused::NotOwner));
    // Two engines that proposed from the same base: same version, another write.
    let other = LeaseToken { write: write(4), ..good };
    assert_eq!(say(worker(), other), Err(Refused::StaleLease));
    let earlier = LeaseToken { version: Version::new(2), ..good };
    assert_eq!(say(worker(), earlier), Err(Refused::StaleLease));
    let unknown = JobKey { job: JobId::new(1), attempt: Attempt::new(2) };
    assert_eq!(say(worker(), LeaseToken { key: unknown, ..good }), Err(Refused::Unknown));
    let mut second = job;
    second.key.attempt = Attempt::new(2);
    let event = Event::Work { worker: worker(), token: good, act: Act::Report(Outcome::Succeeded) };
    assert_eq!(transition(NOW, &second, &event, &stamp), Err(Refused::StaleLease), "the first attempt ends the second");
}

#[test]
fn a_dead_worker_loses_what_it_held_in_that_life_and_nothing_else() {
    let stamp = Stamp { write: write(6), chance: 11 };
    for state in [State::Scheduled, State::Running, State::Aborting] {
        let gone = |worker| transition(NOW, &row(state), &Event::Gone { worker }, &stamp);
        assert!(gone(worker()).is_ok());
        for other in
            [Worker { incarnation: Incarnation::new(2), ..worker() }, Worker { name: WorkerName::new(8), ..worker() }]
        {
            assert_eq!(gone(other), Err(Refused::NotOwner), "{state:?}");
        }
    }
}

#[test]
fn the_table_prints_as_text_and_as_a_graph() {
    let text = markdown();
    assert!(text.contains("| Pending | Deliver | Scheduled |"), "{text}");
    assert!(text.contains("| Dead | Retry | a new attempt |"));
    assert!(graphviz().contains("Scheduled -> Pending [label=\"Expire, Gone\"]"));
}

#[test]
fn codes_are_stable_and_states_round_trip() {
    for state in State::ALL {
        assert_eq!(State::from_code(state.code()), Some(state));
    }
    assert_eq!(State::from_code(16), None);
    assert_eq!(Refused::StaleLease.code(), 101);
    assert_eq!(Reason::Approved.code(), 22);
}

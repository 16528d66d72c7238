//! The template of a worker: every phase, every event.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tenon_jobqueue::component::{Happened, Lifecycle, Phase, Step};
use tenon_jobqueue::{Act, Entry, Outcome, Timestamp};

const LATER: Timestamp = Timestamp::from_millis(9);
const GOOD: Outcome = Outcome::Succeeded;

fn all() -> [Happened; 13] {
    [
        Happened::Delivered(Entry::Run),
        Happened::Delivered(Entry::Callback),
        Happened::Delivered(Entry::Resume),
        Happened::Initialised,
        Happened::Ended(GOOD),
        Happened::Ended(Outcome::Failed { code: 3 }),
        Happened::Awaits(LATER),
        Happened::Elsewhere(LATER),
        Happened::PollDue,
        Happened::Uploaded,
        Happened::AbortAsked,
        Happened::Stopped,
        Happened::Broke(7),
    ]
}

/// Where a list of events leads, and the steps on the way.
fn walk(events: &[Happened]) -> (Lifecycle, Vec<Step>) {
    let mut steps = Vec::new();
    let mut component = Lifecycle::default();
    for event in events {
        let (next, step) = component.advance(*event).unwrap();
        component = next;
        steps.push(step);
    }
    (component, steps)
}

#[test]
fn the_ways_through() {
    use Happened as H;
    let done = Step::Say(Act::Report(GOOD));
    let run = H::Delivered(Entry::Run);
    let cases: [(&[Happened], &[Step]); 5] = [
        (&[run, H::Initialised, H::Ended(GOOD), H::Uploaded], &[Step::Init, Step::Run, Step::Upload, done]),
        (
            &[run, H::Initialised, H::Awaits(LATER), H::Delivered(Entry::Callback), H::Ended(GOOD), H::Uploaded],
            &[Step::Init, Step::Run, Step::Say(Act::Suspend(LATER)), Step::Query, Step::Upload, done],
        ),
        (
            &[run, H::Initialised, H::Elsewhere(LATER), H::PollDue, H::Elsewhere(LATER), H::PollDue, H::Ended(GOOD)],
            &[
                Step::Init,
                Step::Run,
                Step::Say(Act::Poll(LATER)),
                Step::Query,
                Step::Say(Act::Poll(LATER)),
                Step::Query,
                Step::Upload,
            ],
        ),
        (
            &[run, H::Initialised, H::AbortAsked, H::Stopped],
            &[Step::Init, Step::Run, Step::Stop, Step::Say(Act::Report(Outcome::FailedForGood { code: -1 }))],
        ),
        (
            &[run, H::Initialised, H::Ended(GOOD), H::Broke(4)],
            &[Step::Init, Step::Run, Step::Upload, Step::Say(Act::Report(Outcome::Failed { code: 4 }))],
        ),
    ];
    for (events, steps) in cases {
        assert_eq!(walk(events).1, steps, "{events:?}");
    }
}

#[test]
fn a_restart_anywhere_goes_on_and_never_initialises_twice() {
    // Every history of five events; at each point the worker dies and comes back.
    let mut open = vec![(Lifecycle::default(), 0_u32)];
    for _ in 0..5 {
        let mut next = Vec::new();
        for (component, inits) in open {
            assert_eq!(component.resume(), component.resume());
            assert!(component.phase() == Phase::Init || component.resume() != Step::Init);
            for event in all() {
                let Ok((after, step)) = component.advance(event) else { continue };
                let begins = after.phase() == Phase::Init && component.phase() != Phase::Init;
                assert!(!begins || inits == 0, "{component:?} {event:?}");
                assert!(step != Step::Init || after.phase() == Phase::Init);
                next.push((after, inits + u32::from(begins)));
            }
        }
        next.sort_unstable();
        next.dedup();
        open = next;
    }
    assert!(open.iter().any(|(component, _)| component.phase() == Phase::Done));
}

#[test]
fn nothing_follows_the_end_and_an_abort_is_heard_everywhere_before() {
    let done = walk(&[Happened::AbortAsked]).0;
    assert_eq!(done.phase(), Phase::Done);
    for event in all() {
        assert!(done.advance(event).is_err(), "{event:?}");
    }
    let mut seen = vec![Lifecycle::default()];
    for _ in 0..6 {
        let more: Vec<Lifecycle> =
            seen.iter().flat_map(|c| all().into_iter().filter_map(|e| Some(c.advance(e).ok()?.0))).collect();
        seen.extend(more);
        seen.sort_unstable();
        seen.dedup();
    }
    for component in seen.iter().filter(|c| !matches!(c.phase(), Phase::Done | Phase::Stop)) {
        assert!(component.advance(Happened::AbortAsked).is_ok(), "{component:?}");
    }
}

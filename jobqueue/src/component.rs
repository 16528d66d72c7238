//! The template that a worker follows with one job: `init → run → (await | poll) → query → upload → done`.
//!
//! It is a value of the worker's, not of the engine's. Persist what [`Lifecycle::advance`] returns before you do its
//! step: then a restarted worker goes on where it was ([`Lifecycle::resume`]), and never initialises twice. What a shell
//! command or an HTTP call is, adapters know.

use crate::event::Act;
use crate::job::{Entry, Outcome};
use crate::time::Timestamp;

/// How far a component has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Phase {
    /// Nothing was done.
    #[default]
    New,
    /// Its environment is being made.
    Init,
    /// It runs.
    Run,
    /// It waits for a callback; the resource is free.
    Await,
    /// It waits to ask for an external result; the resource is free.
    Poll,
    /// It asks for the result.
    Query,
    /// It hands over what it made.
    Upload,
    /// It is being stopped.
    Stop,
    /// It has reported.
    Done,
}

/// What happened to a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Happened {
    /// The job was delivered, and its ack answered.
    Delivered(Entry),
    /// Its environment is made.
    Initialised,
    /// It has run, or what it found out has come to an end.
    Ended(Outcome),
    /// It has run and waits for a callback, at most until this time.
    Awaits(Timestamp),
    /// Its result is elsewhere, and is to be asked for at this time.
    Elsewhere(Timestamp),
    /// It is time to ask.
    PollDue,
    /// What it made is handed over.
    Uploaded,
    /// It shall stop.
    AbortAsked,
    /// It has stopped.
    Stopped,
    /// What was being done went wrong, with this code.
    Broke(i32),
}

/// What the worker does next.
#[must_use = "a step that is not done leaves the component where it is"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Step {
    /// Make the environment.
    Init,
    /// Run.
    Run,
    /// Ask for the result.
    Query,
    /// Hand over what was made.
    Upload,
    /// Stop whatever runs.
    Stop,
    /// Say this to the engine.
    Say(Act),
    /// Nothing, until something happens.
    Wait,
}

/// What happened cannot happen now; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{happened:?} cannot happen in phase {phase:?}")]
pub struct OutOfPhase {
    /// How far the component has come.
    pub phase: Phase,
    /// What was said to have happened.
    pub happened: Happened,
}

/// One job at its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lifecycle {
    phase: Phase,
    /// What will be reported.
    outcome: Option<Outcome>,
    /// When what it waits for is due.
    until: Timestamp,
}

impl Lifecycle {
    /// How far it has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// What it becomes, and what is to be done then. Persist the first, then do the second.
    ///
    /// # Errors
    ///
    /// [`OutOfPhase`] if that cannot happen now; late and repeated events are such, and may be ignored.
    pub fn advance(self, happened: Happened) -> Result<(Self, Step), OutOfPhase> {
        use Happened as H;
        use Phase as P;
        let next = match (self.phase, happened) {
            (P::New, H::Delivered(_)) => Self { phase: P::Init, ..self },
            // Delivered again: it goes on, and does not begin again.
            (P::Init | P::Run | P::Query | P::Upload | P::Stop, H::Delivered(_)) => self,
            (P::Init, H::Initialised) => Self { phase: P::Run, ..self },
            (P::Run, H::Awaits(until)) => Self { phase: P::Await, until, ..self },
            (P::Run | P::Query, H::Elsewhere(until)) => Self { phase: P::Poll, until, ..self },
            (P::Await | P::Poll, H::Delivered(_)) | (P::Poll, H::PollDue) => Self { phase: P::Query, ..self },
            (P::Run | P::Query, H::Ended(outcome)) => self.ends(P::Upload, outcome),
            (P::Init | P::Run | P::Query, H::Broke(code)) => self.ends(P::Upload, Outcome::Failed { code }),
            (P::Upload, H::Uploaded) | (P::Stop, H::Stopped | H::Broke(_)) => Self { phase: P::Done, ..self },
            // What cannot be handed over is not a success.
            (P::Upload, H::Broke(code)) => self.ends(P::Done, Outcome::Failed { code }),
            (P::New | P::Await | P::Poll, H::AbortAsked) => self.ends(P::Done, STOPPED),
            (P::Init | P::Run | P::Query | P::Upload, H::AbortAsked) => self.ends(P::Stop, STOPPED),
            (phase, happened) => return Err(OutOfPhase { phase, happened }),
        };
        let step = match (next.phase, happened) {
            (P::Await, H::Awaits(until)) => Step::Say(Act::Suspend(until)),
            (P::Poll, H::Elsewhere(until)) => Step::Say(Act::Poll(until)),
            _ => next.resume(),
        };
        Ok((next, step))
    }

    const fn ends(self, phase: Phase, outcome: Outcome) -> Self {
        Self { phase, outcome: Some(outcome), ..self }
    }

    /// What a restarted worker does with a component that it finds in its store. What was under way is done again,
    /// except what was said to be finished; a result that was being waited for is asked for.
    pub const fn resume(self) -> Step {
        match (self.phase, self.outcome) {
            (Phase::New | Phase::Await, _) | (Phase::Done, None) => Step::Wait,
            (Phase::Init, _) => Step::Init,
            (Phase::Run, _) => Step::Run,
            (Phase::Poll | Phase::Query, _) => Step::Query,
            (Phase::Upload, _) => Step::Upload,
            (Phase::Stop, _) => Step::Stop,
            (Phase::Done, Some(outcome)) => Step::Say(Act::Report(outcome)),
        }
    }
}

/// What a stopped component reports; the engine has its own word for it.
const STOPPED: Outcome = Outcome::FailedForGood { code: -1 };

//! The template that a worker follows with one job: `init → run → (await | poll) → query → upload → done`.
//!
//! It is a value of the worker's, not of the engine's. Persist what [`Lifecycle::advance`] returns before you do its
//! step: then a restarted worker goes on where it was ([`Lifecycle::resume`]), and never initialises twice. What a shell
//! command or an HTTP call is, adapters know.

use crate::event::Act;
use crate::job::{Entry, Outcome};
use crate::time::Timestamp;

/// The phase of a component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Phase {
    /// Nothing was done yet.
    #[default]
    New,
    /// The environment is being made.
    Init,
    /// The job runs.
    Run,
    /// The job waits for a callback. The resource is free.
    Await,
    /// The job waits to ask for an external result. The resource is free.
    Poll,
    /// The worker asks for the external result.
    Query,
    /// The worker uploads what the job made.
    Upload,
    /// The job is being stopped.
    Stop,
    /// The worker has reported the end.
    Done,
}

/// An event at a component's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Happened {
    /// The job was delivered, and its ack answered.
    Delivered(Entry),
    /// The environment is made.
    Initialised,
    /// The run has ended, or the external result shows the end.
    Ended(Outcome),
    /// The run has ended, and the job waits for a callback, at most until this time.
    Awaits(Timestamp),
    /// The run has ended, and the external result is to be asked for at this time.
    Elsewhere(Timestamp),
    /// The time to ask for the external result has come.
    PollDue,
    /// The upload is complete.
    Uploaded,
    /// The engine asked to stop the job.
    AbortAsked,
    /// The job has stopped.
    Stopped,
    /// The step under way failed, with this code.
    Broke(i32),
}

/// The next step of a worker.
#[must_use = "a step that is not done leaves the component where it is"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Step {
    /// Make the environment.
    Init,
    /// Run the job.
    Run,
    /// Ask for the external result.
    Query,
    /// Upload what the job made.
    Upload,
    /// Stop whatever runs.
    Stop,
    /// Send this message to the engine.
    Say(Act),
    /// Do nothing until the next event.
    Wait,
}

/// An event that is impossible in the present phase. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{happened:?} is impossible in phase {phase:?}")]
pub struct OutOfPhase {
    /// The phase of the component.
    pub phase: Phase,
    /// The event that is impossible.
    pub happened: Happened,
}

/// The state of one job at its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lifecycle {
    phase: Phase,
    /// The outcome to report.
    outcome: Option<Outcome>,
    /// The time when the awaited event is due.
    until: Timestamp,
}

impl Lifecycle {
    /// The phase of the component.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The next state, with the step to take then. Persist the state first, then take the step.
    ///
    /// ```
    /// use tenon_jobqueue::component::{Happened, Lifecycle, Phase, Step};
    /// use tenon_jobqueue::Entry;
    ///
    /// let (job, step) = Lifecycle::default().advance(Happened::Delivered(Entry::Run))?; // persist `job`
    /// assert_eq!((job.phase(), step), (Phase::Init, Step::Init));
    /// assert!(job.advance(Happened::Uploaded).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`OutOfPhase`] if the event is impossible now. Late and repeated events are such, and may be ignored.
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

    /// The step of a restarted worker for a component that it finds in its store.
    ///
    /// A step that was under way is done again, except one that was reported finished; an external result that was
    /// awaited is asked for.
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

/// The outcome that a stopped component reports. The engine records its own reason.
const STOPPED: Outcome = Outcome::FailedForGood { code: -1 };

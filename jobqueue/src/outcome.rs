//! Outcomes: the class of each job of a pipeline, in four bits a job.

use alloc::boxed::Box;

use crate::job::{Job, OnFailure, Start, State};
use crate::reason::Reason;

/// The class of a job: its state as far as the jobs that wait for it are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum JobClass {
    /// Undecided: no decision was made about the job.
    #[default]
    Undecided = 0,
    /// Active: the job is in progress, or waits for an approval that the pipeline waits for.
    Active = 1,
    /// Ignored: the job waits for an approval that the pipeline does not wait for.
    Ignored = 2,
    /// Good: the job succeeded, reuses an earlier result, was skipped by a filter, or failed and may fail.
    Good = 3,
    /// Failed: the job failed and may not fail.
    Failed = 4,
    /// Skipped: the job was skipped because of the jobs that it waits for.
    Skipped = 5,
    /// Stopped: the job was stopped or superseded, and may not be.
    Stopped = 6,
}

impl JobClass {
    /// The class of a job's row.
    #[must_use]
    pub const fn of(job: &Job) -> Self {
        let required = matches!(job.spec.on_failure, OnFailure::Fails);
        match job.state {
            State::Unstart => Self::Undecided,
            State::Suspended
                if !required && matches!(job.spec.start, Start::Manual) && matches!(job.reason, Reason::Approval) =>
            {
                Self::Ignored
            }
            State::Pending
            | State::Scheduled
            | State::Running
            | State::Suspended
            | State::Delayed
            | State::Polling
            | State::Aborting => Self::Active,
            State::Failed | State::TimedOut | State::Dead if required => Self::Failed,
            State::Aborted | State::Superseded if required => Self::Stopped,
            State::Skipped if matches!(job.reason, Reason::NotWanted { .. } | Reason::NeedNotRun { .. }) => {
                Self::Skipped
            }
            State::Failed
            | State::TimedOut
            | State::Dead
            | State::Aborted
            | State::Superseded
            | State::Succeeded
            | State::Skipped
            | State::Reused => Self::Good,
        }
    }

    /// All classes, by number.
    pub const ALL: [Self; 7] =
        [Self::Undecided, Self::Active, Self::Ignored, Self::Good, Self::Failed, Self::Skipped, Self::Stopped];
}

/// The class of each job of a pipeline, by the job's place in the [`Plan`](crate::Plan).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Outcomes(Box<[u8]>);

impl Outcomes {
    /// Outcomes of this many jobs, all undecided.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Self(alloc::vec![0; jobs.div_ceil(2)].into())
    }

    /// The outcomes with these bytes: two jobs a byte, the first in the lower bits.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the outcomes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are no outcomes: the pipeline has no plan.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The class of the job at this place; `Undecided` beyond the end.
    #[must_use]
    pub fn get(&self, place: usize) -> JobClass {
        let byte = self.0.get(place / 2).copied().unwrap_or(0);
        let code = if place.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        JobClass::ALL.get(usize::from(code)).copied().unwrap_or_default()
    }

    /// Sets the class of the job at this place. Does nothing beyond the end.
    ///
    /// ```
    /// use tenon_jobqueue::{JobClass, Outcomes};
    ///
    /// let mut outcomes = Outcomes::new(3);
    /// outcomes.set(1, JobClass::Good);
    /// assert_eq!((outcomes.get(0), outcomes.get(1)), (JobClass::Undecided, JobClass::Good));
    /// ```
    pub fn set(&mut self, place: usize, class: JobClass) {
        if let Some(byte) = self.0.get_mut(place / 2) {
            let code = class as u8;
            *byte = if place.is_multiple_of(2) { *byte & 0xf0 | code } else { *byte & 0x0f | code << 4 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_has_its_four_bits() {
        let mut all = Outcomes::new(1_001);
        assert_eq!(all.as_bytes().len(), 501);
        for place in 0..1_001 {
            all.set(place, JobClass::ALL[place % 7]);
        }
        all.set(5_000, JobClass::Failed);
        assert!((0..1_001).all(|place| all.get(place) == JobClass::ALL[place % 7]));
        assert_eq!(all.get(5_000), JobClass::Undecided);
        assert_eq!(Outcomes::from_bytes(all.as_bytes()), all);
    }
}

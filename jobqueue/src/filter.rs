//! Filters: the chain that a job passes when its batch opens, the system's filters first, then the user's.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::event::Verdict;
use crate::id::{Class, Component, JobId};
use crate::job::{Condition, Job, ResultKey, Start, When};
use crate::pipeline::Pipeline;
use crate::reason::Reason;
use crate::time::Timestamp;

/// A window in which matching jobs are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hold {
    /// The number of the filter, which the reasons of held jobs carry.
    pub filter: u32,
    /// The class of the pipelines to hold; `None` for any.
    pub class: Option<Class>,
    /// The component of the jobs to hold; `None` for any.
    pub component: Option<Component>,
    /// The time when the window begins.
    pub from: Timestamp,
    /// The time when the window ends. Held jobs then go to their queues.
    pub until: Timestamp,
}

/// The judgement of a host's own filter, or of the user's condition, on a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Judgement {
    /// Pass: there is no objection.
    Pass,
    /// Skip the job in this run.
    Skip {
        /// The number of the filter.
        filter: u32,
    },
    /// Reuse the result of another job in place of this one.
    Reuse {
        /// The job whose result is reused.
        result_of: JobId,
    },
    /// Hold the job until this time.
    Hold {
        /// The number of the filter.
        filter: u32,
        /// The time when the hold ends.
        until: Timestamp,
    },
}

/// The declared filters, and the results known for reuse.
///
/// An engine owns one; a host that decides by itself keeps its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Filters {
    degraded: BTreeSet<Component>,
    holds: BTreeMap<u32, Hold>,
    results: BTreeMap<ResultKey, JobId>,
    /// The keys of `results`, oldest first.
    ages: VecDeque<ResultKey>,
    judgements: BTreeMap<JobId, Judgement>,
}

impl Filters {
    /// Switches a component off: while it is off, its jobs are skipped. Returns whether that changed anything.
    ///
    /// ```
    /// use tenon_jobqueue::{Component, Filters};
    ///
    /// let mut filters = Filters::default();
    /// assert!(filters.degrade(Component::new(3)));
    /// assert_eq!(filters.len(), 1);
    /// assert!(filters.restore(Component::new(3)));
    /// ```
    pub fn degrade(&mut self, component: Component) -> bool {
        self.degraded.insert(component)
    }

    /// Switches a component on again.
    pub fn restore(&mut self, component: Component) -> bool {
        self.degraded.remove(&component)
    }

    /// Declares a window, or replaces one with the same number.
    pub fn hold(&mut self, hold: Hold) {
        self.holds.insert(hold.filter, hold);
    }

    /// Removes a window. Jobs that it holds stay held until its end, or until they are released.
    pub fn unhold(&mut self, filter: u32) -> bool {
        self.holds.remove(&filter).is_some()
    }

    /// The number of switched-off components and declared windows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.degraded.len() + self.holds.len()
    }

    /// Whether no component is switched off and no window is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers that `job` succeeded with these inputs. Of more than `limit` results the oldest is forgotten.
    pub fn remember(&mut self, key: ResultKey, job: JobId, limit: u32) {
        if self.results.insert(key, job).is_none() {
            self.ages.push_back(key);
        }
        while self.ages.len() > limit as usize {
            let Some(oldest) = self.ages.pop_front() else { return };
            self.results.remove(&oldest);
        }
    }

    /// Takes in the host's judgement on a job.
    pub fn tell(&mut self, job: JobId, judgement: Judgement) {
        self.judgements.insert(job, judgement);
    }

    /// Forgets the host's judgement on a job that was decided.
    pub fn forget(&mut self, job: JobId) {
        if !self.judgements.is_empty() {
            self.judgements.remove(&job);
        }
    }

    /// The verdict of the chain on a job whose batch opens; `None` if the host must be asked first.
    ///
    /// `unwanted` is the reason why the jobs that it waits for do not want it, if so.
    ///
    /// The system's filters come first: degraded, held, unchanged. Then the user's: what it waits for, the condition, the
    /// start.
    #[must_use]
    pub fn judge(&self, now: Timestamp, pipeline: &Pipeline, job: &Job, unwanted: Option<Reason>) -> Option<Verdict> {
        let component = job.spec.component;
        if self.degraded.contains(&component) {
            return Some(Verdict::Skip(Reason::Degraded { component }));
        }
        if let Some(reason) = unwanted {
            return Some(Verdict::Skip(reason));
        }
        if let Some(hold) = self.holds.values().find(|hold| holds(hold, now, pipeline, job)) {
            return Some(held(hold.filter, hold.until));
        }
        let result = job.spec.unchanged.and_then(|key| self.results.get(&key));
        if let Some(result_of) = result.copied() {
            return Some(Verdict::Reuse(Reason::Unchanged { result_of }));
        }
        if job.spec.condition == Condition::Ask {
            match *self.judgements.get(&job.id())? {
                Judgement::Pass => {}
                Judgement::Skip { filter } => return Some(Verdict::Skip(Reason::Condition { filter })),
                Judgement::Reuse { result_of } => return Some(Verdict::Reuse(Reason::Unchanged { result_of })),
                Judgement::Hold { filter, until } => return Some(held(filter, until)),
            }
        }
        Some(match job.spec.start {
            Start::Auto => Verdict::Enqueue(Reason::Batch { order: job.spec.order }),
            Start::Manual => Verdict::Await(Timestamp::MAX, Reason::Approval),
            Start::After(ms) => {
                let at = now.after_millis(u64::from(ms));
                Verdict::Delay(at, Reason::StartAt { at })
            }
        })
    }
}

/// Why a job is not wanted in the pipeline as it is, if nothing else is named that it waits for.
pub(crate) fn weather(pipeline: &Pipeline, job: &Job) -> Option<Reason> {
    let failed = pipeline.failed.saturating_add(pipeline.stopped);
    let wanted = match job.spec.when {
        When::OnSuccess => failed == 0,
        When::OnFailure => failed > 0,
        When::Always => true,
    };
    (!wanted).then_some(Reason::NotWanted { failed })
}

fn held(filter: u32, until: Timestamp) -> Verdict {
    Verdict::Await(until, Reason::Held { filter, until })
}

fn holds(hold: &Hold, now: Timestamp, pipeline: &Pipeline, job: &Job) -> bool {
    (hold.from..hold.until).contains(&now)
        && hold.class.is_none_or(|class| class == pipeline.class)
        && hold.component.is_none_or(|component| component == job.spec.component)
}

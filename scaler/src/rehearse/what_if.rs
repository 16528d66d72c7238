//! What-if: two sets of rules on the same days.

use alloc::vec::Vec;

use super::{Rehearsal, Report, World};
use crate::engine::Engine;
use crate::error::Refused;
use crate::group::{Policy, Traffic};

/// The reports of the present and of changed rules on the same days.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct WhatIf {
    /// The report with the rules in force.
    pub now: Report,
    /// The report with the changed rules.
    pub then: Report,
}

impl WhatIf {
    /// The additional cost of the changed rules, in thousandths of the host's currency; below 0 if they cost less.
    #[must_use]
    pub fn cost(&self) -> i128 {
        let cost = |report: &Report| i128::try_from(report.cost()).unwrap_or(i128::MAX);
        cost(&self.then) - cost(&self.now)
    }

    /// The additional time with a shortage under the changed rules, in ms; below 0 if it is less.
    #[must_use]
    pub fn shortage_ms(&self) -> i64 {
        let shortage = |report: &Report| i64::try_from(report.shortage_ms).unwrap_or(i64::MAX);
        shortage(&self.then) - shortage(&self.now)
    }
}

impl Engine {
    /// Rehearses the rules in force, and then the same days with `changes`: groups that are changed or new.
    ///
    /// This engine does not change; `world` is asked the same twice.
    ///
    /// # Errors
    /// As [`Engine::put_group`], for the first change that would be refused; nothing is rehearsed then.
    pub fn what_if<W: World>(
        &self,
        run: Rehearsal,
        changes: impl IntoIterator<Item = (Traffic, Policy)>,
        world: &mut W,
    ) -> Result<WhatIf, Refused> {
        let mut other = self.clone();
        for (traffic, policy) in changes.into_iter().collect::<Vec<_>>() {
            other.put_group(self.now, traffic, policy)?;
        }
        Ok(WhatIf { now: self.rehearse(run, world), then: other.rehearse(run, world) })
    }
}

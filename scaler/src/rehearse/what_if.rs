//! Two sets of rules on the same days.

use alloc::vec::Vec;

use super::{Rehearsal, Report, World};
use crate::engine::Engine;
use crate::error::Refused;
use crate::group::{Policy, Traffic};

/// What the rules in force and other ones come to on the same days.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct WhatIf {
    /// With the rules in force.
    pub now: Report,
    /// With the others.
    pub then: Report,
}

impl WhatIf {
    /// What the others would cost more, in thousandths of the host's currency; below 0 where they cost less.
    #[must_use]
    pub fn cost(&self) -> i128 {
        let cost = |report: &Report| i128::try_from(report.cost()).unwrap_or(i128::MAX);
        cost(&self.then) - cost(&self.now)
    }

    /// For how much longer fewer instances than needed would serve with the others, in ms; below 0 where for less.
    #[must_use]
    pub fn shortage_ms(&self) -> i64 {
        let shortage = |report: &Report| i64::try_from(report.shortage_ms).unwrap_or(i64::MAX);
        shortage(&self.then) - shortage(&self.now)
    }
}

impl Engine {
    /// Rehearses the rules in force, and then the same days with `changes` made: groups that are changed or new. This
    /// engine does not change; `world` is asked the same twice.
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

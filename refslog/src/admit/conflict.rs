//! No ref where a directory must be: `a` stands in the way of `a/b`.

use alloc::vec::Vec;

use super::{Admission, Source};
use crate::codec::run::common_prefix;
use crate::config::DfPolicy;
use crate::name::RefName;
use crate::transaction::Action;
use crate::verdict::Reason;

impl<S: Source> Admission<'_, S> {
    /// No directory where a file is: every proper prefix, and everything from `name/` up to `name0` ('0' follows '/').
    pub(super) fn refuse_conflicts(&mut self) -> Result<(), S::Error> {
        let mut refusals = Vec::new();
        let mut known = Parents::default();
        // Names that the current one starts with. Not only the neighbour: `a-b` stands between `a` and `a/b`.
        let mut leads: Vec<(&RefName, &[(RefName, usize)])> = Vec::new();
        for group in self.touched.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((name, _)) = group.first() else { continue };
            while leads.pop_if(|(lead, _)| !name.as_bytes().starts_with(lead.as_bytes())).is_some() {}
            let mut refuse = |group: &[(RefName, usize)], reason: &Reason| {
                refusals.extend(group.iter().map(|(_, at)| (*at, reason.clone())));
            };
            if let Some(reason) = self.conflict_with_existing(name, &mut known)? {
                refuse(group, &reason);
            }
            for (lead, others) in &leads {
                if name.as_bytes().get(lead.as_bytes().len()) == Some(&b'/') && self.exclude_each_other(lead, name) {
                    if self.counts_as_new(name)? {
                        refuse(group, &Reason::ConflictWithin { with: (*lead).clone() });
                    }
                    if self.counts_as_new(lead)? {
                        refuse(others, &Reason::ConflictWithin { with: name.clone() });
                    }
                }
            }
            leads.push((name, group));
        }
        for (at, reason) in refusals {
            self.refuse(at, reason);
        }
        Ok(())
    }

    /// Git checks each touched name that does not exist, whatever is to become of it; the other policy what is made.
    fn counts_as_new(&self, name: &RefName) -> Result<bool, S::Error> {
        match self.source.config().df {
            DfPolicy::GitCompat => self.source.contains(name.as_bytes()).map(|exists| !exists),
            DfPolicy::FinalState => Ok(self.makes(name)),
        }
    }

    /// Whether two touched names, one a directory of the other, cannot be in one transaction.
    fn exclude_each_other(&self, one: &RefName, other: &RefName) -> bool {
        match self.source.config().df {
            DfPolicy::GitCompat => true,
            DfPolicy::FinalState => self.makes(one) && self.makes(other),
        }
    }

    fn conflict_with_existing(&self, name: &RefName, known: &mut Parents) -> Result<Option<Reason>, S::Error> {
        let policy = self.source.config().df;
        if policy == DfPolicy::FinalState && !self.makes(name) {
            return Ok(None);
        }
        let around = self.source.around(name.as_bytes())?;
        if policy == DfPolicy::GitCompat && around.exists {
            return Ok(None);
        }
        let stays = |other: &[u8]| policy == DfPolicy::GitCompat || !self.drops(&RefName::store(other));
        for parent in known.unknown(name) {
            if self.source.contains(parent)? && stays(parent) {
                return Ok(Some(Reason::Conflict { with: RefName::store(parent) }));
            }
        }
        known.note(name);
        if !around.leads {
            return Ok(None);
        }
        let below = [name.as_bytes(), b"/"].concat();
        let found = self.source.first_below(&below, &mut |other| stays(other))?;
        Ok(found.map(|with| Reason::Conflict { with }))
    }

    fn action_on(&self, name: &RefName) -> Option<&Action> {
        let steps = self.touching(name).iter().filter_map(|(_, at)| self.steps.get(*at));
        Some(steps.into_iter().find(|step| step.name == *name)?.command.action())
    }

    fn makes(&self, name: &RefName) -> bool {
        matches!(self.action_on(name), Some(Action::Set(_)))
    }

    fn drops(&self, name: &RefName) -> bool {
        matches!(self.action_on(name), Some(Action::Delete))
    }
}

/// The directories of the name that was looked at last, and was found clear: the next one in order shares most of them.
#[derive(Default)]
struct Parents {
    last: Option<RefName>,
}

impl Parents {
    /// The parents of `name` that are not among the last one's.
    fn unknown<'a>(&self, name: &'a RefName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let last = self.last.as_ref().map_or(&[][..], RefName::as_bytes);
        let common = common_prefix(last, name.as_bytes());
        name.parents().skip_while(move |parent| parent.len() < common)
    }

    fn note(&mut self, name: &RefName) {
        self.last = Some(name.clone());
    }
}

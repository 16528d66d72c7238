//! No ref where a directory must be: `a` stands in the way of `a/b`.

use alloc::vec::Vec;

use super::Admission;
use crate::codec::run::common_prefix;
use crate::config::DfPolicy;
use crate::name::RefName;
use crate::store::Place;
use crate::transaction::Action;
use crate::verdict::Reason;

impl Admission<'_> {
    /// No directory where a file is: every proper prefix, and everything from `name/` up to `name0` ('0' follows '/').
    pub(super) fn refuse_conflicts(&mut self) {
        let mut refusals = Vec::new();
        let mut known = Parents::default();
        // Names that the current one starts with. Not only the neighbour: `a-b` stands between `a` and `a/b`.
        let mut leads: Vec<(&RefName, &[(RefName, usize)])> = Vec::new();
        let mut place = Place::START;
        for group in self.touched.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((name, _)) = group.first() else { continue };
            while leads.pop_if(|(lead, _)| !name.as_bytes().starts_with(lead.as_bytes())).is_some() {}
            let mut refuse = |group: &[(RefName, usize)], reason: &Reason| {
                refusals.extend(group.iter().map(|(_, at)| (*at, reason.clone())));
            };
            let found = self.refs.map.find_near(place.leaf, name.as_bytes());
            place = found.unwrap_or_else(|place| place);
            if let Some(reason) = self.conflict_with_existing(name, found, &mut known) {
                refuse(group, &reason);
            }
            for (lead, others) in &leads {
                if name.as_bytes().get(lead.as_bytes().len()) == Some(&b'/') && self.exclude_each_other(lead, name) {
                    if self.counts_as_new(name) {
                        refuse(group, &Reason::ConflictWithin { with: (*lead).clone() });
                    }
                    if self.counts_as_new(lead) {
                        refuse(others, &Reason::ConflictWithin { with: name.clone() });
                    }
                }
            }
            leads.push((name, group));
        }
        for (at, reason) in refusals {
            self.refuse(at, reason);
        }
    }

    /// Git checks each touched name that does not exist, whatever is to become of it; the other policy what is made.
    fn counts_as_new(&self, name: &RefName) -> bool {
        match self.refs.config.df {
            DfPolicy::GitCompat => !self.refs.map.contains(name.as_bytes()),
            DfPolicy::FinalState => self.makes(name),
        }
    }

    /// Whether two touched names, one a directory of the other, cannot be in one transaction.
    fn exclude_each_other(&self, one: &RefName, other: &RefName) -> bool {
        match self.refs.config.df {
            DfPolicy::GitCompat => true,
            DfPolicy::FinalState => self.makes(one) && self.makes(other),
        }
    }

    fn conflict_with_existing(
        &self,
        name: &RefName,
        found: Result<Place, Place>,
        known: &mut Parents,
    ) -> Option<Reason> {
        let map = &self.refs.map;
        let stays = match self.refs.config.df {
            DfPolicy::GitCompat if found.is_ok() => return None,
            DfPolicy::GitCompat => |_: &Self, _: &[u8]| true,
            DfPolicy::FinalState if !self.makes(name) => return None,
            DfPolicy::FinalState => |it: &Self, other: &[u8]| !it.drops(&RefName::store(other)),
        };
        for parent in known.unknown(name) {
            if map.contains(parent) && stays(self, parent) {
                return Some(Reason::Conflict { with: RefName::store(parent) });
            }
        }
        known.note(name);
        let next = match found {
            Ok(place) => map.after(place),
            Err(place) => map.normal(place),
        };
        if !map.starts_with(next, name.as_bytes()) {
            return None;
        }
        let below = [name.as_bytes(), b"/"].concat();
        let mut place = map.seek(&below);
        let mut other = Vec::new();
        while map.starts_with(place, &below) && map.read_name(place, &mut other) {
            if stays(self, &other) {
                return Some(Reason::Conflict { with: RefName::store(&other) });
            }
            place = map.after(place);
        }
        None
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

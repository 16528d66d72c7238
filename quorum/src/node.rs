//! Nodes: the health of each, and how far each member is.

use core::fmt;

use crate::fence::Report;
use crate::id::{Ask, DomainId, Fence, Incarnation, Stamp};
use crate::row::{Member, Role, Row};
use crate::time::Timestamp;

/// The health of a node, as its host sees it.
///
/// Health is a preference: it never makes a stale node fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Health {
    /// Up: serves and votes.
    Up,
    /// Ailing: slow or failing now and then. It votes, and serves only where no healthy node is at the newest state.
    Ailing,
    /// Draining: being emptied, for an upgrade say. Treated as `Ailing`.
    Draining,
    /// Down: not reachable. It is used for nothing.
    Down,
}

/// The state of a node, as its host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct NodeState {
    /// The life of its disk.
    pub incarnation: Incarnation,
    /// The health of the node.
    pub health: Health,
    /// The failure domain of the node.
    pub domain: DomainId,
    /// The load of the node, in any unit that compares across nodes (requests under way, say).
    pub load: u32,
}

impl NodeState {
    /// A healthy node in domain 0, without load.
    ///
    /// ```
    /// use tenon_quorum::{DomainId, Health, Incarnation, NodeState};
    ///
    /// let state = NodeState::up(Incarnation(1)).domain(DomainId(2)).health(Health::Draining);
    /// assert_eq!((state.domain, state.health, state.load), (DomainId(2), Health::Draining, 0));
    /// ```
    #[must_use]
    pub const fn up(incarnation: Incarnation) -> Self {
        Self { incarnation, health: Health::Up, domain: DomainId(0), load: 0 }
    }

    /// Sets the health.
    #[must_use]
    pub const fn health(self, health: Health) -> Self {
        Self { health, ..self }
    }

    /// Sets the failure domain.
    #[must_use]
    pub const fn domain(self, domain: DomainId) -> Self {
        Self { domain, ..self }
    }

    /// Sets the load.
    #[must_use]
    pub const fn load(self, load: u32) -> Self {
        Self { load, ..self }
    }
}

/// How a node served a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Served {
    /// Success.
    Well,
    /// Failure: the node failed, or took too long.
    Badly,
}

/// The state of a member's replica, compared with the row that the router holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// Current: the replica holds exactly the newest state, applied, or staged and proven by the row.
    Current,
    /// Lagging: the replica holds an earlier state of the lineage.
    Lagging {
        /// The state that the replica has applied.
        applied: Stamp,
    },
    /// Divergent: the replica holds another state at the same version, or a history that the row's lineage does not
    /// contain.
    Divergent {
        /// The state that the replica has applied.
        applied: Stamp,
    },
    /// Row too old: the member reported a later state, after the row was fetched. Fetch the row again before deciding.
    RowOld,
    /// Ahead: the replica is beyond a row that was fetched after the member reported. The store does not know this
    /// state, so the member is no candidate.
    Ahead {
        /// The state that the replica has applied.
        applied: Stamp,
    },
    /// Rewound: the disk went back in time and has forgotten votes and promises.
    ///
    /// No candidate, no voter and no source, until it is cured ([`crate::Effect::Cure`]).
    Rewound {
        /// The state that the replica has applied.
        applied: Stamp,
    },
    /// Unknown: the member has not reported, or its node is in another life of its disk than the row says.
    Unknown,
}

/// The number of voters in each state.
///
/// The sum of all fields but `voters` and `ailing` is `voters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tally {
    /// All assigned voters.
    pub voters: u32,
    /// Voters at the newest state that are up.
    pub usable: u32,
    /// Voters at the newest state that are ailing or draining.
    pub ailing: u32,
    /// Voters that are down.
    pub down: u32,
    /// Voters that lag behind the newest state.
    pub lagging: u32,
    /// Voters that cannot be trusted: divergent, ahead of the store, beyond the row that the router holds, or rewound.
    pub suspect: u32,
    /// Voters of which nothing is known.
    pub unknown: u32,
}

impl Tally {
    /// The number of voters that can take part in a write now.
    #[must_use]
    pub const fn able(&self) -> u32 {
        self.usable + self.ailing
    }

    /// Whether these are all the members there are, each fit for use.
    pub(crate) fn is_all_of(&self, members: usize) -> bool {
        usize::try_from(self.usable).is_ok_and(|usable| usable == members)
    }

    pub(crate) const fn count(&mut self, verdict: Verdict, health: Health) {
        self.voters += 1;
        match (verdict, health) {
            (Verdict::Unknown, _) => self.unknown += 1,
            (_, Health::Down) => self.down += 1,
            (Verdict::Current, Health::Up) => self.usable += 1,
            (Verdict::Current, Health::Ailing | Health::Draining) => self.ailing += 1,
            (Verdict::Lagging { .. }, _) => self.lagging += 1,
            (Verdict::Divergent { .. } | Verdict::RowOld | Verdict::Ahead { .. } | Verdict::Rewound { .. }, _) => {
                self.suspect += 1;
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { voters, usable, ailing, down, lagging, suspect, unknown } = self;
        write!(f, "of {voters} voters {usable} usable, {ailing} ailing, {down} down, {lagging} lagging, ")?;
        write!(f, "{suspect} suspect, {unknown} unknown")
    }
}

/// The router's knowledge of one member of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Standing {
    pub(crate) member: Member,
    pub(crate) known: Option<Known>,
    /// The repository was at rest, and left it at that point: all that is known of the member is that it had applied
    /// this.
    pub(crate) rested: Option<(Stamp, Ask)>,
    /// Its disk went back in time.
    pub(crate) rewound: Option<Rewind>,
    /// A probe is out until then.
    pub(crate) probing: Timestamp,
    /// Copies in a row that were overtaken.
    pub(crate) rounds: u32,
}

/// A report, and when it came in the router's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Known {
    pub(crate) report: Report,
    pub(crate) seen: Ask,
}

/// A disk that went back in time, as this router found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Rewind {
    /// When: what was asked before proves nothing of the cure.
    pub(crate) found: Ask,
    /// The fence of a row that the store held after that: a higher one was raised later.
    pub(crate) floor: Option<Fence>,
    /// The highest serial that was heard before.
    pub(crate) serial: u64,
    /// An order to cure is out until then.
    pub(crate) curing: Timestamp,
}

impl Standing {
    pub(crate) const fn new(member: Member) -> Self {
        Self { member, known: None, rested: None, rewound: None, probing: Timestamp::ZERO, rounds: 0 }
    }

    pub(crate) fn is_voter(&self) -> bool {
        self.member.role == Role::Voter
    }

    /// The member's last report, if it speaks for itself: one whose disk went back in time does not.
    pub(crate) const fn report(&self) -> Option<&Report> {
        match &self.known {
            Some(known) if self.rewound.is_none() => Some(&known.report),
            Some(_) | None => None,
        }
    }

    /// The member's last report, even if its disk went back in time.
    pub(crate) const fn word(&self) -> Option<&Report> {
        match &self.known {
            Some(known) => Some(&known.report),
            None => None,
        }
    }

    /// The state that the member is known to have applied.
    pub(crate) const fn applied(&self) -> Option<Stamp> {
        match (self.report(), self.rested) {
            (Some(report), _) => Some(report.applied),
            (None, Some((applied, _))) if self.rewound.is_none() => Some(applied),
            (None, _) => None,
        }
    }

    /// Takes in what the member said at the point `seen`, to a question that was asked at `asked`.
    pub(crate) fn hear(&mut self, report: &Report, asked: Option<Ask>, seen: Ask) -> Heard {
        let later = |than: Ask| asked.is_some_and(|asked| asked >= than);
        let mut serial = report.serial;
        let mut rewound = report.rewound;
        if let Some(known) = &self.known {
            let old = &known.report;
            let before = (report.boot, report.serial) < (old.boot, old.serial);
            if before && !later(known.seen) {
                return Heard::Late;
            }
            if (report.boot, report.serial) == (old.boot, old.serial) && report != old {
                return Heard::Contradiction;
            }
            // What was said before is not on its disk any more.
            rewound |= before || (report.boot > old.boot && report.began < old.serial);
            serial = serial.max(old.serial);
        } else if let Some((applied, woken)) = self.rested
            && applied.is_beyond(report.applied)
        {
            if !later(woken) {
                return Heard::Late;
            }
            rewound = true;
        }
        self.known = Some(Known { report: *report, seen });
        self.probing = Timestamp::ZERO;
        match (&mut self.rewound, rewound) {
            (Some(rewind), true) => rewind.serial = rewind.serial.max(serial),
            (none @ None, true) => {
                *none = Some(Rewind { found: seen, floor: None, serial, curing: Timestamp::ZERO });
            }
            // Only a cure goes beyond the highest serial that was heard, and it says so.
            (Some(rewind), false) if report.began > rewind.serial => self.rewound = None,
            (Some(_) | None, false) => {}
        }
        Heard::Taken
    }

    /// Judges this member against `row`, which was fetched at `fetched`.
    pub(crate) fn judge(&self, row: &Row, fetched: Ask) -> Verdict {
        let Some(known) = &self.known else {
            return match self.rested {
                Some((applied, _)) if applied == row.newest => Verdict::Current,
                Some((applied, _)) if row.newest.is_beyond(applied) => Verdict::Lagging { applied },
                Some(_) | None => Verdict::Unknown,
            };
        };
        let (report, newest) = (&known.report, row.newest);
        let applied = report.applied;
        if self.rewound.is_some() {
            return Verdict::Rewound { applied };
        }
        if report.is_beyond(row) {
            return if known.seen > fetched { Verdict::RowOld } else { Verdict::Ahead { applied } };
        }
        let staged = applied != Stamp::BLANK && report.staged.is_some_and(|staged| staged.stamp == newest);
        if applied == newest || staged {
            return Verdict::Current;
        }
        if applied.version >= newest.version && applied != Stamp::BLANK {
            return Verdict::Divergent { applied };
        }
        Verdict::Lagging { applied }
    }
}

/// The result of taking in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Taken,
    /// The member has said something later.
    Late,
    /// The member said something else under the same serial number.
    Contradiction,
}

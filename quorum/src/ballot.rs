//! Votes: how many, for what, from where, and whether they can still be enough.

use crate::commit::Write;
use crate::fence::Report;
use crate::id::Stamp;
use crate::node::{Health, Standing};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::Proof;
use crate::state::Cell;

/// How a grant's voters have voted so far.
#[derive(Default)]
pub(crate) struct Ballot {
    /// The most votes for one state.
    pub(crate) votes: u32,
    /// That state.
    pub(crate) stamp: Option<Stamp>,
    /// Voters that may still vote.
    open: u32,
    /// Failure domains of the voters that voted so, and of these and those that may still vote.
    domains: (u32, u32),
}

impl Ballot {
    pub(crate) const fn is_won(&self, needed: u32, domains: u32) -> bool {
        self.votes >= needed && self.domains.0 >= domains
    }

    /// Why there can never be enough votes.
    pub(crate) const fn is_lost(&self, needed: u32, domains: u32) -> Option<Reason> {
        let Self { votes, open, .. } = *self;
        if votes + open < needed {
            return Some(Reason::VotesCannotAddUp { votes, open, needed });
        }
        if self.domains.1 < domains {
            return Some(Reason::TooFewDomains { domains: self.domains.1, needed: domains });
        }
        None
    }
}

impl Router {
    /// Whether there are enough votes, or can never be.
    pub(crate) fn is_decided(&self, ballot: &Ballot) -> bool {
        let (needed, domains) = (self.config.quorum.write(), self.config.ack_domains.into());
        ballot.is_won(needed, domains) || ballot.is_lost(needed, domains).is_some()
    }

    /// From how many failure domains the voters come that `counts` picks.
    pub(crate) fn domains(&self, cell: &Cell, counts: impl Fn(&Standing) -> bool) -> u32 {
        let domain = |standing: &Standing| self.state.nodes.get(standing.member.node).map(|entry| entry.state.domain);
        let counted = || cell.standings.iter().filter(|standing| standing.is_voter() && counts(standing));
        let first =
            |(at, standing): &(usize, &Standing)| counted().take(*at).all(|before| domain(before) != domain(standing));
        u32::try_from(counted().enumerate().filter(first).count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn ballot(&self, cell: &Cell, write: &Write, base: &Proof) -> Ballot {
        let mut ballot = Ballot::default();
        let voters = || cell.standings.iter().filter(|standing| standing.is_voter());
        let mut others = false;
        for standing in voters() {
            match vote(standing.report(), base) {
                None => {
                    let member = &standing.member;
                    let reachable = self.state.nodes.alive(member.node, member.incarnation);
                    let open = reachable.is_some_and(|state| state.health != Health::Down);
                    ballot.open += u32::from(open && !write.declined.contains(&member.node));
                }
                Some(stamp) if ballot.stamp.is_none_or(|first| first == stamp) => {
                    ballot.stamp = Some(stamp);
                    ballot.votes += 1;
                }
                Some(_) => others = true,
            }
        }
        // As a rule all vote for the same.
        let cast = || voters().filter_map(|standing| vote(standing.report(), base));
        for stamp in cast().filter(|_| others) {
            let alike = u32::try_from(cast().filter(|other| *other == stamp).count()).unwrap_or(u32::MAX);
            if alike > ballot.votes {
                (ballot.votes, ballot.stamp) = (alike, Some(stamp));
            }
        }
        if self.config.ack_domains > 1 {
            let may_vote = |standing: &Standing| {
                let member = &standing.member;
                let reachable = self.state.nodes.alive(member.node, member.incarnation);
                reachable.is_some_and(|s| s.health != Health::Down) && !write.declined.contains(&member.node)
            };
            let voted = |standing: &Standing| ballot.stamp.is_some() && vote(standing.report(), base) == ballot.stamp;
            let open = |standing: &Standing| vote(standing.report(), base).is_none() && may_vote(standing);
            ballot.domains = (self.domains(cell, voted), self.domains(cell, |s| voted(s) || open(s)));
        } else {
            ballot.domains = (1, 1);
        }
        ballot
    }
}

/// The state that `report` holds a vote for under the grant that `base` is: every part of it must match.
fn vote(report: Option<&Report>, base: &Proof) -> Option<Stamp> {
    let report = report?;
    let staged = report.staged?;
    let matches = staged.fence == base.fence
        && staged.revision == base.revision
        && staged.stamp.epoch == base.newest.epoch
        && staged.stamp.version == base.newest.version.next()
        && report.applied == base.newest;
    matches.then_some(staged.stamp)
}

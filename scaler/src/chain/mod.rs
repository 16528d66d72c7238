//! Chains: services that call one another, sized together, and the weakest link among them.

mod plan;

pub use plan::{ChainPlan, ChainStep, ChainTask, ChainVerdict, HeldBack};

use alloc::vec::Vec;

use crate::id::GroupId;
use crate::num::{Milli, mul_div_ceil};

/// One service of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Link {
    /// Its group.
    pub group: GroupId,
    /// What one instance carries, by load test.
    pub per_instance: Milli,
    /// What the service can carry at most, however many instances it has: its database, its lock; `None` where no limit is
    /// known.
    pub limit: Option<Milli>,
}

/// One service calls another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Call {
    /// Who calls.
    pub caller: GroupId,
    /// Who is called.
    pub callee: GroupId,
    /// How many calls follow from a thousand requests of the caller.
    pub permille: u32,
}

/// Why a topology is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// More services or calls than a chain may have.
    #[error("more than {MAX_LINKS} services, or {MAX_CALLS} calls")]
    TooMany,
    /// A service is named twice, or one call is.
    #[error("group {0} is named twice")]
    Twice(GroupId),
    /// A call names a service that the chain does not have.
    #[error("a call names group {0}, which the chain does not have")]
    Unknown(GroupId),
    /// An instance that carries nothing.
    #[error("an instance of group {0} carries nothing")]
    Carries(GroupId),
    /// Services that call one another in a circle, each the next, the last one the first.
    #[error("these groups call one another in a circle: {0:?}")]
    Cycle(Vec<GroupId>),
}

/// The most services of a chain.
pub const MAX_LINKS: usize = 4_096;
/// The most calls of a chain.
pub const MAX_CALLS: usize = 65_536;

/// A topology without circles: what is planned together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Who is called stands before who calls; among those that do not matter to one another, in the order of their ids.
    links: Vec<Link>,
    /// In the order of callers.
    calls: Vec<Call>,
}

impl Chain {
    /// Checks a topology, and puts who is called before who calls.
    ///
    /// # Errors
    /// A [`ChainError`] that names what is wrong.
    pub fn new(mut links: Vec<Link>, mut calls: Vec<Call>) -> Result<Self, ChainError> {
        if links.len() > MAX_LINKS || calls.len() > MAX_CALLS {
            return Err(ChainError::TooMany);
        }
        links.sort_by_key(|link| link.group);
        calls.sort_unstable();
        if let Some(twice) = links.windows(2).find(|two| two[0].group == two[1].group) {
            return Err(ChainError::Twice(twice[0].group));
        }
        if let Some(none) = links.iter().find(|link| link.per_instance <= Milli::ZERO) {
            return Err(ChainError::Carries(none.group));
        }
        let known = |group: GroupId| links.binary_search_by_key(&group, |link| link.group).ok();
        for call in &calls {
            for group in [call.caller, call.callee] {
                known(group).ok_or(ChainError::Unknown(group))?;
            }
        }
        if let Some(twice) =
            calls.windows(2).find(|two| (two[0].caller, two[0].callee) == (two[1].caller, two[1].callee))
        {
            return Err(ChainError::Twice(twice[0].caller));
        }
        let links = in_order(&links, &calls)?;
        Ok(Self { links, calls })
    }

    /// The services, each after those that it calls.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// What a service calls.
    pub fn calls_of(&self, caller: GroupId) -> impl Iterator<Item = &Call> {
        let from = self.calls.partition_point(|call| call.caller < caller);
        self.calls[from..].iter().take_while(move |call| call.caller == caller)
    }

    /// What reaches each service when the chain is entered with these loads, in the order of [`Chain::links`].
    #[must_use]
    pub fn loads(&self, entries: &[(GroupId, Milli)]) -> Vec<(GroupId, Milli)> {
        let mut loads: Vec<(GroupId, Milli)> = self.links.iter().map(|link| (link.group, Milli::ZERO)).collect();
        let place = |group: GroupId| self.links.iter().position(|link| link.group == group);
        for (group, load) in entries {
            if let Some(at) = place(*group) {
                loads[at].1 = add(loads[at].1, *load);
            }
        }
        // From the outermost callers inwards.
        for at in (0..loads.len()).rev() {
            let (caller, load) = loads[at];
            for call in self.calls_of(caller) {
                if let Some(callee) = place(call.callee) {
                    loads[callee].1 = add(loads[callee].1, share(load, call.permille));
                }
            }
        }
        loads
    }

    /// What each service carries with so many instances, against what reaches it when the chain is entered with `entries`;
    /// and which link is the weakest.
    pub fn assess(&self, entries: &[(GroupId, Milli)], instances: impl Fn(GroupId) -> u32) -> Assessment {
        let strength = |(link, (_, load)): (&Link, (GroupId, Milli))| {
            let count = instances(link.group);
            let carries = times(link.per_instance, count);
            let bound = link.limit.map_or(carries, |limit| limit.min(carries));
            let permille = if load > Milli::ZERO {
                mul_div_floor(bound.at_least_zero(), 1000, load.at_least_zero())
            } else {
                u32::MAX
            };
            let wanted = mul_div_ceil(load.at_least_zero(), 1, link.per_instance.at_least_zero());
            Strength { group: link.group, instances: count, carries, limit: link.limit, load, permille, wanted }
        };
        let links: Vec<Strength> = self.links.iter().zip(self.loads(entries)).map(strength).collect();
        let weakest = links.iter().min_by_key(|link| (link.permille, link.group)).map(|link| link.group);
        Assessment { links, weakest }
    }
}

/// What one link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Strength {
    /// The service.
    pub group: GroupId,
    /// Its instances.
    pub instances: u32,
    /// What these carry.
    pub carries: Milli,
    /// What it can carry at most, where that is known.
    pub limit: Option<Milli>,
    /// What reaches it.
    pub load: Milli,
    /// How many thousandths of its load it carries: above 1000 is head-room, below it is too weak; the largest number
    /// where nothing reaches it.
    pub permille: u32,
    /// How many instances its load needs.
    pub wanted: u32,
}

/// What a chain carries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Assessment {
    /// Each link, in the order of [`Chain::links`].
    pub links: Vec<Strength>,
    /// The one that gives way first; `None` for a chain without links.
    pub weakest: Option<GroupId>,
}

impl Assessment {
    /// To how many thousandths of the loads asked about the chain could go before its weakest link gives way.
    #[must_use]
    pub fn permille(&self) -> u32 {
        self.links.iter().map(|link| link.permille).min().unwrap_or(u32::MAX)
    }
}

fn add(one: Milli, other: Milli) -> Milli {
    Milli::from_thousandths(one.as_thousandths().saturating_add(other.as_thousandths()))
}

/// What follows from `load` by a call of so many thousandths.
fn share(load: Milli, permille: u32) -> Milli {
    let product = i128::from(load.as_thousandths()) * i128::from(permille) / 1000;
    Milli::from_thousandths(i64::try_from(product).unwrap_or(i64::MAX))
}

fn times(each: Milli, count: u32) -> Milli {
    Milli::from_thousandths(each.as_thousandths().saturating_mul(i64::from(count)))
}

fn mul_div_floor(a: u64, b: u64, c: u64) -> u32 {
    u32::try_from(u128::from(a) * u128::from(b) / u128::from(c.max(1))).unwrap_or(u32::MAX)
}

/// Kahn's algorithm from the innermost callees outwards, the smallest id first.
fn in_order(links: &[Link], calls: &[Call]) -> Result<Vec<Link>, ChainError> {
    let place = |group: GroupId| links.binary_search_by_key(&group, |link| link.group).unwrap_or(0);
    let mut open = alloc::vec![0_usize; links.len()];
    let mut callers: Vec<Vec<usize>> = alloc::vec![Vec::new(); links.len()];
    for call in calls {
        open[place(call.caller)] += 1;
        callers[place(call.callee)].push(place(call.caller));
    }
    let mut ready: alloc::collections::BTreeSet<usize> = (0..links.len()).filter(|at| open[*at] == 0).collect();
    let mut order = Vec::with_capacity(links.len());
    while let Some(at) = ready.pop_first() {
        order.push(links[at]);
        for caller in &callers[at] {
            open[*caller] -= 1;
            if open[*caller] == 0 {
                ready.insert(*caller);
            }
        }
    }
    let Some(start) = (0..links.len()).find(|at| open[*at] > 0) else { return Ok(order) };
    Err(ChainError::Cycle(circle(start, links, calls, &open)))
}

/// Walks along calls between services that are still open, each of which calls another such: some service comes again.
fn circle(start: usize, links: &[Link], calls: &[Call], open: &[usize]) -> Vec<GroupId> {
    let place = |group: GroupId| links.binary_search_by_key(&group, |link| link.group).unwrap_or(0);
    let mut path: Vec<usize> = Vec::new();
    let mut at = start;
    while !path.contains(&at) {
        path.push(at);
        let next = calls.iter().find(|call| place(call.caller) == at && open[place(call.callee)] > 0);
        let Some(next) = next else { break };
        at = place(next.callee);
    }
    let first = path.iter().position(|held| *held == at).unwrap_or(0);
    path[first..].iter().map(|at| links[*at].group).collect()
}

//! Chains: services that call one another, sized together, and the weakest link among them.

mod plan;

pub use plan::{ChainPlan, ChainStep, ChainTask, ChainVerdict, HeldBack};

use alloc::vec::Vec;

use crate::id::GroupId;
use crate::num::{Milli, mul_div_ceil};

/// A service of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Link {
    /// The group of the service.
    pub group: GroupId,
    /// The load that one instance carries, by load test.
    pub per_instance: Milli,
    /// The load that the service can carry at most, whatever its size: its database, its lock. `None` if no limit is
    /// known.
    pub limit: Option<Milli>,
}

/// A call of one service by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Call {
    /// The calling service.
    pub caller: GroupId,
    /// The called service.
    pub callee: GroupId,
    /// The number of calls that follow from a thousand requests of the caller.
    pub permille: u32,
}

/// Why a topology is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The chain has more services or calls than allowed.
    #[error("the chain has more than {MAX_LINKS} services, or {MAX_CALLS} calls")]
    TooMany,
    /// A service, or a call, is listed twice.
    #[error("group {0} is named twice")]
    Twice(GroupId),
    /// A call names a service that the chain does not have.
    #[error("a call names group {0}, which the chain does not have")]
    Unknown(GroupId),
    /// The load that an instance carries is zero or less.
    #[error("an instance of group {0} carries nothing")]
    Carries(GroupId),
    /// The services call one another in a circle: each calls the next, and the last the first.
    #[error("these groups call one another in a circle: {0:?}")]
    Cycle(Vec<GroupId>),
}

/// The maximum number of services of a chain.
pub const MAX_LINKS: usize = 4_096;
/// The maximum number of calls of a chain.
pub const MAX_CALLS: usize = 65_536;

/// A chain: a topology without circles, which is planned together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Who is called stands before who calls; among those that do not matter to one another, in the order of their ids.
    links: Vec<Link>,
    /// In the order of callers.
    calls: Vec<Call>,
}

impl Chain {
    /// Checks a topology, and sorts callees before their callers.
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

    /// The calls that a service makes.
    pub fn calls_of(&self, caller: GroupId) -> impl Iterator<Item = &Call> {
        let from = self.calls.partition_point(|call| call.caller < caller);
        self.calls[from..].iter().take_while(move |call| call.caller == caller)
    }

    /// The load of each service when the chain is entered with these loads, in the order of [`Chain::links`].
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

    /// Assesses a chain: the load that each service carries with its instances against the load that reaches it,
    /// and the weakest link.
    ///
    /// `entries` are the loads that enter the chain.
    ///
    /// ```
    /// use tenon_scaler::chain::{Call, Chain, Link};
    /// use tenon_scaler::{GroupId, Milli};
    ///
    /// let (web, store) = (GroupId(1), GroupId(2));
    /// let link = |group, units| Link { group, per_instance: Milli::from_units(units), limit: None };
    /// let call = Call { caller: web, callee: store, permille: 2_000 }; // two calls for each request
    /// let chain = Chain::new(vec![link(web, 100), link(store, 50)], vec![call])?;
    /// let assessment = chain.assess(&[(web, Milli::from_units(300))], |_| 4);
    /// assert_eq!(assessment.weakest, Some(store)); // 600 calls reach it, and its four instances carry 200
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

/// The strength of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Strength {
    /// The service.
    pub group: GroupId,
    /// The number of its instances.
    pub instances: u32,
    /// The load that they carry.
    pub carries: Milli,
    /// The load that the service can carry at most, if known.
    pub limit: Option<Milli>,
    /// The load that reaches it.
    pub load: Milli,
    /// The load that it carries, in thousandths of the load that reaches it.
    ///
    /// Above 1000 is head-room, below it is too weak; the largest number if no load reaches it.
    pub permille: u32,
    /// The number of instances that its load needs.
    pub wanted: u32,
}

/// The assessment of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Assessment {
    /// The links, in the order of [`Chain::links`].
    pub links: Vec<Strength>,
    /// The link that gives way first; `None` for a chain without links.
    pub weakest: Option<GroupId>,
}

impl Assessment {
    /// The scale at which the weakest link gives way, in thousandths of the loads asked about.
    #[must_use]
    pub fn permille(&self) -> u32 {
        self.links.iter().map(|link| link.permille).min().unwrap_or(u32::MAX)
    }
}

fn add(one: Milli, other: Milli) -> Milli {
    Milli::from_thousandths(one.as_thousandths().saturating_add(other.as_thousandths()))
}

/// The load that follows from `load` by a call with this ratio.
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

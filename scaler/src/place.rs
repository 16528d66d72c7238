//! Placement: the hosts that new instances of a service should stand on, and the instances that should move.
//!
//! For hosts that choose machines themselves. Even over data centres first (a skew of at most one where there is room),
//! then spread over hosts: no more than a few of one service on one host, the least loaded first.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::allot::Grant;
use crate::id::{HostId, IdcId};

/// The health of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Health {
    /// Good: the host takes instances.
    Good,
    /// Closed: the host keeps its instances, and takes no more.
    Closed,
    /// Bad: the host's instances should move away.
    Bad,
}

/// A host, as one service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Host {
    /// The id of the host.
    pub id: HostId,
    /// The data centre that it stands in.
    pub idc: IdcId,
    /// The number of further instances of the service's shape that fit on it.
    pub room: u32,
    /// The number of the service's instances on it.
    pub here: u32,
    /// The load of the host, with everything on it, in thousandths.
    pub load_permille: u16,
    /// The health of the host.
    pub health: Health,
}

/// The rules for spreading the instances of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Spread {
    /// Maximum number of its instances on one host.
    pub per_host: u32,
    /// Maximum difference between data centres; `None` if one may take what another lacks.
    pub skew: Option<u32>,
    /// Whether the request may be granted in part.
    pub grant: Grant,
}

impl Default for Spread {
    fn default() -> Self {
        Self { per_host: 2, skew: None, grant: Grant::Partial }
    }
}

/// Why a data centre takes no more instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Full {
    /// No good host has room.
    Stock,
    /// Every host with room has the maximum number of the service's instances.
    Host,
    /// The data centre has the maximum difference to another.
    Spread,
}

/// The placement of new instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Placement {
    /// The number of new instances on each host, in the order of the hosts' ids.
    pub on: Vec<(HostId, u32)>,
    /// The number of instances without a place.
    pub missing: u32,
    /// The cause of the shortfall, for each data centre.
    pub causes: Vec<(IdcId, Full)>,
}

/// Why an instance should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Why {
    /// Its host is bad.
    Bad,
    /// Its host has more than the maximum number of the service's instances.
    Crowded,
    /// Its data centre has at least two more than another.
    Skew,
}

/// A move of an instance to another host. Start the new instance first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Shift {
    /// The host that it leaves.
    pub from: HostId,
    /// The host that it moves to.
    pub to: HostId,
    /// The reason for the move.
    pub why: Why,
}

/// How good a host is for one more: fewest of the service, least loaded, most room, smallest id.
type Rank = (u32, u16, Reverse<u32>, HostId);

/// Hosts that take one more, best first, by data centre; and what each data centre has.
struct Board {
    spread: Spread,
    open: BTreeMap<IdcId, BTreeSet<Rank>>,
    held: BTreeMap<IdcId, u64>,
}

impl Board {
    fn new(hosts: &[Host], spread: Spread) -> Self {
        let mut board = Self { spread, open: BTreeMap::new(), held: BTreeMap::new() };
        for host in hosts {
            // What stands on a bad host will not stay: it does not count.
            let stays = if host.health == Health::Bad { 0 } else { u64::from(host.here) };
            *board.held.entry(host.idc).or_default() += stays;
            if host.health == Health::Good && host.room > 0 && host.here < spread.per_host {
                let rank = (host.here, host.load_permille, Reverse(host.room), host.id);
                board.open.entry(host.idc).or_default().insert(rank);
            }
        }
        board
    }

    fn least(&self) -> u64 {
        self.held.values().copied().min().unwrap_or(0)
    }

    /// Takes the best host of the emptiest data centre that has one, other than those that `allows` does not.
    fn take(&mut self, allows: impl Fn(IdcId) -> bool) -> Option<(IdcId, HostId)> {
        let most = self.spread.skew.map_or(u64::MAX, |skew| self.least().saturating_add(u64::from(skew)));
        let open = self.open.iter().filter(|(_, hosts)| !hosts.is_empty()).map(|(idc, _)| *idc);
        let (held, idc) = open.filter(|idc| allows(*idc)).map(|idc| (self.held[&idc], idc)).min()?;
        if held >= most {
            return None;
        }
        let hosts = self.open.get_mut(&idc)?;
        let (here, load, Reverse(room), id) = hosts.pop_first()?;
        if room > 1 && here + 1 < self.spread.per_host {
            hosts.insert((here + 1, load, Reverse(room - 1), id));
        }
        *self.held.entry(idc).or_default() += 1;
        Some((idc, id))
    }
}

/// Chooses hosts for `count` more instances of a service. Hosts that are listed twice count twice.
///
/// ```
/// use tenon_scaler::place::{Health, Host, Spread, place};
/// use tenon_scaler::{HostId, IdcId};
///
/// let host = |id, load_permille| {
///     Host { id: HostId(id), idc: IdcId(1), room: 2, here: 0, load_permille, health: Health::Good }
/// };
/// let found = place(&[host(1, 800), host(2, 300)], 1, Spread::default());
/// assert_eq!((found.on, found.missing), (vec![(HostId(2), 1)], 0)); // the least loaded one
/// ```
pub fn place(hosts: &[Host], count: u32, spread: Spread) -> Placement {
    let mut board = Board::new(hosts, spread);
    let mut on: BTreeMap<HostId, u32> = BTreeMap::new();
    let mut left = count;
    while left > 0 {
        let Some((_, host)) = board.take(|_| true) else { break };
        *on.entry(host).or_default() += 1;
        left -= 1;
    }
    if left == 0 {
        return Placement { on: on.into_iter().collect(), ..Placement::default() };
    }
    let causes = board.held.keys().map(|idc| {
        let here = || hosts.iter().filter(|host| host.idc == *idc && host.health == Health::Good);
        let room = |host: &Host| host.room > on.get(&host.id).copied().unwrap_or(0);
        let cause = if board.open.get(idc).is_some_and(|hosts| !hosts.is_empty()) {
            Full::Spread
        } else if here().any(room) {
            Full::Host
        } else {
            Full::Stock
        };
        (*idc, cause)
    });
    let causes = causes.collect();
    match spread.grant {
        Grant::Partial => Placement { on: on.into_iter().collect(), missing: left, causes },
        Grant::Atomic => Placement { on: Vec::new(), missing: count, causes },
    }
}

/// Advises which instances should move, at most `most` of them.
///
/// Bad hosts come first, then crowded ones, then data centres that have over one more than another. Once carried out,
/// the advice needs no further advice, but for its bound.
///
/// ```
/// use tenon_scaler::place::{Health, Host, Spread, Why, rebalance};
/// use tenon_scaler::{HostId, IdcId};
///
/// let host = |id, here, health| Host { id: HostId(id), idc: IdcId(1), room: 2, here, load_permille: 0, health };
/// let moves = rebalance(&[host(1, 1, Health::Bad), host(2, 0, Health::Good)], Spread::default(), 10);
/// assert_eq!((moves.len(), moves[0].to, moves[0].why), (1, HostId(2), Why::Bad));
/// ```
#[must_use]
pub fn rebalance(hosts: &[Host], spread: Spread, most: usize) -> Vec<Shift> {
    let mut board = Board::new(hosts, Spread { skew: None, ..spread });
    let mut shifts = Vec::new();
    let mut here: BTreeMap<HostId, u64> = BTreeMap::new();
    for host in hosts {
        *here.entry(host.id).or_default() += u64::from(host.here);
    }
    for (why, health) in [(Why::Bad, Health::Bad), (Why::Crowded, Health::Good), (Why::Crowded, Health::Closed)] {
        for host in hosts.iter().filter(|host| host.health == health) {
            let stays = if why == Why::Bad { 0 } else { spread.per_host };
            for _ in stays..host.here {
                if shifts.len() >= most {
                    return shifts;
                }
                if why == Why::Crowded {
                    *board.held.entry(host.idc).or_default() -= 1;
                }
                let Some((_, to)) = board.take(|_| true) else {
                    if why == Why::Crowded {
                        *board.held.entry(host.idc).or_default() += 1;
                    }
                    break;
                };
                *here.entry(host.id).or_default() -= 1;
                *here.entry(to).or_default() += 1;
                shifts.push(Shift { from: host.id, to, why });
            }
        }
    }
    level(hosts, &mut board, &mut here, &mut shifts, most);
    shifts
}

/// Moves from the fullest data centre to the emptiest with a place, while that has at least two fewer.
fn level(hosts: &[Host], board: &mut Board, here: &mut BTreeMap<HostId, u64>, shifts: &mut Vec<Shift>, most: usize) {
    while shifts.len() < most {
        let Some((held, idc)) = board.held.iter().map(|(idc, held)| (*held, *idc)).max() else { return };
        let emptier: BTreeSet<IdcId> =
            board.held.iter().filter(|(_, other)| **other + 2 <= held).map(|(idc, _)| *idc).collect();
        let from = hosts.iter().filter(|host| host.idc == idc && host.health != Health::Bad);
        let from = from.map(|host| (here.get(&host.id).copied().unwrap_or(0), host.load_permille, host.id)).max();
        let Some((_, _, from)) = from.filter(|(count, ..)| *count > 0) else { return };
        let Some((_, to)) = board.take(|idc| emptier.contains(&idc)) else { return };
        *board.held.entry(idc).or_default() -= 1;
        *here.entry(from).or_default() -= 1;
        *here.entry(to).or_default() += 1;
        shifts.push(Shift { from, to, why: Why::Skew });
    }
}

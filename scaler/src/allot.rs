//! Allotment: which pools lend and which get back, tier by tier, evenly over the data centres.

use smallvec::SmallVec;

use crate::Timestamp;
use crate::group::Traffic;
use crate::id::{IdcId, PoolId, TenantId, VersionId};
use crate::pool::{Cause, Ledger, PoolKind};

/// The instances of a group in one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Holding {
    /// The id of the pool.
    pub pool: PoolId,
    /// Instances that were requested and do not serve yet.
    pub starting: u32,
    /// Instances that serve.
    pub ready: u32,
    /// Instances that were asked to go and are not gone yet: released, or cancelled while they were starting.
    pub leaving: u32,
    /// The time when these counts last changed. An older census says nothing about them.
    pub since: Timestamp,
}

impl Holding {
    pub(crate) fn all(&self) -> u32 {
        self.starting + self.ready + self.leaving
    }

    /// The number of instances that count against a quota: those that are leaving do not.
    pub(crate) fn wanted(&self) -> u32 {
        self.starting + self.ready
    }
}

/// The split of a decision's change over pools, and the shortfall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Allotment {
    /// The image that the new instances run; `None` if there are none, or their release group has none.
    pub version: Option<VersionId>,
    /// The number of instances that each pool lends.
    pub lent: SmallVec<[(PoolId, u32); 2]>,
    /// The number of serving instances that go back to each pool.
    pub returned: SmallVec<[(PoolId, u32); 2]>,
    /// The number of starting instances cancelled in each pool. They go before any that serves.
    pub cancelled: SmallVec<[(PoolId, u32); 2]>,
    /// The number of instances that no pool could lend.
    pub missing: u32,
    /// The cause of the shortfall, for each pool that was asked.
    pub causes: SmallVec<[(PoolId, Cause); 2]>,
    /// The reason for the shortfall, if it is not a pool's.
    pub refusal: Option<Refusal>,
    /// The number of instances that are to go and have not been asked to, because the maximum of requests is open.
    pub waiting: u32,
}

/// Whether a request may be granted in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Grant {
    /// Partial: grant what is free.
    #[default]
    Partial,
    /// Atomic: grant all or none.
    Atomic,
}

/// Why a group gets no instances, whatever pools have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Refusal {
    /// No pool that the group may use has its shape.
    NoPool,
    /// The group's release group runs no image.
    NoVersion,
    /// The quota of this tenant is used up: the group's tenant, or a node above it.
    Quota(TenantId),
    /// The maximum of open requests is reached.
    Busy,
    /// The maximum difference between data centres, by the group's policy, is reached.
    Spread,
}

impl Refusal {
    /// The stable number of the refusal, the same in every version.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::NoPool => 210,
            Self::NoVersion => 211,
            Self::Busy => 212,
            Self::Quota(_) => 213,
            Self::Spread => 214,
        }
    }
}

/// One data centre, as a split sees it.
#[derive(Clone, Copy, Debug)]
struct Place {
    idc: IdcId,
    /// The number of instances that the group has there, in all tiers.
    held: u64,
    /// The number of instances that can be moved there, in this tier.
    room: u64,
}

const TIERS: u8 = 3;

fn tier(kind: PoolKind, traffic: &Traffic) -> Option<u8> {
    match kind {
        PoolKind::Dedicated(tenant) => (tenant == traffic.tenant).then_some(0),
        PoolKind::Resident => Some(1),
        PoolKind::Emergency { .. } => Some(2),
    }
}

/// Chooses the pools that lend `count` instances: what is dedicated first, then resident, then emergency; within a tier
/// evenly over the data centres, and within one of those the cheapest first. A pool whose launches failed of late comes
/// after the others of its tier.
pub(crate) fn grow(
    ledger: &Ledger,
    traffic: &Traffic,
    holdings: &[Holding],
    count: u32,
    now: Timestamp,
    out: &mut Allotment,
) {
    let mut left = u64::from(count);
    for wanted in 0..TIERS {
        let mut sound: SmallVec<[(IdcId, u64, PoolId, u32); 4]> = SmallVec::new();
        let mut on_trial: SmallVec<[(IdcId, u64, PoolId, u32); 2]> = SmallVec::new();
        for account in &ledger.accounts {
            let pool = &account.pool;
            let allowed = traffic.idcs.is_empty() || traffic.idcs.contains(&pool.idc);
            if !allowed || tier(pool.kind, traffic) != Some(wanted) {
                continue;
            }
            let Some((available, cause)) = account.available(traffic.shape, now) else {
                continue;
            };
            let offer = (pool.idc, pool.price, pool.id, available);
            if account.is_on_trial(traffic.shape, now) {
                on_trial.push(offer);
            } else {
                sound.push(offer);
            }
            out.causes.push((pool.id, cause));
        }
        left -= pour_into(ledger, holdings, &mut sound, left, &mut out.lent);
        // A pool that failed of late is asked only for what the others cannot give.
        left -= pour_into(ledger, holdings, &mut on_trial, left, &mut out.lent);
        if left == 0 {
            break;
        }
    }
    if left == 0 {
        out.causes.clear();
    } else if out.causes.is_empty() {
        out.refusal = Some(Refusal::NoPool);
    }
    out.missing = u32::try_from(left).unwrap_or(u32::MAX);
}

fn pour_into(
    ledger: &Ledger,
    holdings: &[Holding],
    offers: &mut [(IdcId, u64, PoolId, u32)],
    count: u64,
    lent: &mut SmallVec<[(PoolId, u32); 2]>,
) -> u64 {
    if count == 0 || offers.is_empty() {
        return 0;
    }
    let mut places = places(ledger, holdings, offers);
    offers.sort_unstable();
    pour(&mut places, count, |idc, share| hand_out(offers, idc, share, lent))
}

/// Takes back of what is to be lent what would give one data centre over `skew` more than another: the dearest tier first.
pub(crate) fn even_out(ledger: &Ledger, traffic: &Traffic, holdings: &[Holding], skew: u32, out: &mut Allotment) {
    let idc = |pool: PoolId| ledger.account(pool).map(|account| account.pool.idc);
    let usable = ledger.accounts.iter().filter(|account| {
        let reached = traffic.idcs.is_empty() || traffic.idcs.contains(&account.pool.idc);
        let stocked = account.stock.iter().any(|stock| stock.shape == traffic.shape);
        reached && stocked && tier(account.pool.kind, traffic).is_some()
    });
    let mut places: SmallVec<[(IdcId, u64); 4]> = SmallVec::new();
    for account in usable {
        if !places.iter().any(|(held, _)| *held == account.pool.idc) {
            places.push((account.pool.idc, 0));
        }
    }
    for (place, sum) in &mut places {
        let held = holdings.iter().filter(|held| idc(held.pool) == Some(*place));
        let lent = out.lent.iter().filter(|(pool, _)| idc(*pool) == Some(*place));
        *sum = held.map(|held| u64::from(held.starting) + u64::from(held.ready)).sum::<u64>()
            + lent.map(|(_, count)| u64::from(*count)).sum::<u64>();
    }
    let most = places.iter().map(|(_, sum)| *sum).min().unwrap_or(0).saturating_add(u64::from(skew));
    for (pool, count) in out.lent.iter_mut().rev() {
        let Some((_, sum)) = places.iter_mut().find(|(place, _)| idc(*pool) == Some(*place)) else { continue };
        let over = u32::try_from(sum.saturating_sub(most)).unwrap_or(u32::MAX).min(*count);
        *count -= over;
        *sum -= u64::from(over);
        out.missing += over;
        if over > 0 {
            out.refusal = Some(Refusal::Spread);
        }
    }
    out.lent.retain(|(_, count)| *count > 0);
}

/// Chooses the pools that get `count` instances back, of at most so many each in `rooms`: emergency first, then resident, then dedicated; within a tier so
/// that what is left is even over the data centres, and within one of those the dearest first. Returns how many were
/// found.
pub(crate) fn shrink(
    ledger: &Ledger,
    traffic: &Traffic,
    holdings: &[Holding],
    rooms: &[(PoolId, u32)],
    count: u32,
    out: &mut SmallVec<[(PoolId, u32); 2]>,
) -> u32 {
    let mut left = u64::from(count);
    for wanted in (0..TIERS).rev() {
        let mut offers: SmallVec<[(IdcId, u64, PoolId, u32); 4]> = SmallVec::new();
        for (pool, room) in rooms {
            let Some(account) = ledger.account(*pool).filter(|_| *room > 0) else {
                continue;
            };
            // A dedicated zone that is no longer the tenant's own is left like one that is.
            if tier(account.pool.kind, traffic).unwrap_or(0) == wanted {
                offers.push((account.pool.idc, u64::MAX - account.pool.price, *pool, *room));
            }
        }
        let mut places = places(ledger, holdings, &offers);
        offers.sort_unstable();
        left -= drain(&mut places, left, |idc, share| hand_out(&offers, idc, share, out));
        if left == 0 {
            break;
        }
    }
    count - u32::try_from(left).unwrap_or(count)
}

fn places(ledger: &Ledger, holdings: &[Holding], offers: &[(IdcId, u64, PoolId, u32)]) -> SmallVec<[Place; 4]> {
    let mut places: SmallVec<[Place; 4]> = SmallVec::new();
    for (idc, _, _, room) in offers {
        match places.iter_mut().find(|place| place.idc == *idc) {
            Some(place) => place.room += u64::from(*room),
            None => places.push(Place { idc: *idc, held: 0, room: u64::from(*room) }),
        }
    }
    for holding in holdings {
        let idc = ledger.account(holding.pool).map(|account| account.pool.idc);
        if let Some(place) = places.iter_mut().find(|place| Some(place.idc) == idc) {
            place.held += u64::from(holding.starting) + u64::from(holding.ready);
        }
    }
    places
}

/// Pours `count` over the places as water would stand: up to one level, as far as each has room. Returns how many found
/// room.
fn pour(places: &mut [Place], count: u64, mut give: impl FnMut(IdcId, u64)) -> u64 {
    let fill = |places: &[Place], level: u64| -> u64 {
        places.iter().map(|place| level.saturating_sub(place.held).min(place.room)).sum()
    };
    let count = count.min(places.iter().map(|place| place.room).sum());
    let (mut low, mut high) = (0, places.iter().map(|place| place.held).max().unwrap_or(0) + count + 1);
    // The highest level that needs no more than there is.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fill(places, middle) <= count { low = middle } else { high = middle }
    }
    let mut rest = count - fill(places, low);
    places.sort_unstable_by_key(|place| (place.held, place.idc));
    for place in places {
        let mut share = low.saturating_sub(place.held).min(place.room);
        if rest > 0 && place.held <= low && share < place.room {
            share += 1;
            rest -= 1;
        }
        if share > 0 {
            give(place.idc, share);
        }
    }
    count
}

/// Drains `count` from the places so that the fullest go down to one level. Returns how many were there.
fn drain(places: &mut [Place], count: u64, mut give: impl FnMut(IdcId, u64)) -> u64 {
    let above = |places: &[Place], level: u64| -> u64 {
        places.iter().map(|place| place.held.saturating_sub(level).min(place.room)).sum()
    };
    let count = count.min(places.iter().map(|place| place.room).sum());
    let (mut low, mut high) = (0, places.iter().map(|place| place.held).max().unwrap_or(0));
    // The lowest level that frees no more than is asked.
    while low < high {
        let middle = low + (high - low) / 2;
        if above(places, middle) <= count { high = middle } else { low = middle + 1 }
    }
    let mut rest = count - above(places, low);
    places.sort_unstable_by_key(|place| (core::cmp::Reverse(place.held), place.idc));
    for place in places {
        let mut share = place.held.saturating_sub(low).min(place.room);
        if rest > 0 && place.held >= low && share < place.room {
            share += 1;
            rest -= 1;
        }
        if share > 0 {
            give(place.idc, share);
        }
    }
    count
}

fn hand_out(offers: &[(IdcId, u64, PoolId, u32)], idc: IdcId, mut share: u64, out: &mut SmallVec<[(PoolId, u32); 2]>) {
    for (_, _, pool, room) in offers.iter().filter(|offer| offer.0 == idc) {
        let part = u32::try_from(share).unwrap_or(u32::MAX).min(*room);
        if part > 0 {
            out.push((*pool, part));
            share -= u64::from(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn place(idc: u16, held: u64, room: u64) -> Place {
        Place { idc: IdcId(idc), held, room }
    }

    fn shares(run: impl FnOnce(&mut dyn FnMut(IdcId, u64)) -> u64) -> (u64, Vec<(u16, u64)>) {
        let mut out = Vec::new();
        let moved = run(&mut |idc, share| out.push((idc.0, share)));
        out.sort_unstable();
        (moved, out)
    }

    #[test]
    fn water_stands_level_where_there_is_room() {
        let pour = |places: &mut [Place], count| shares(|give| super::pour(places, count, give));
        assert_eq!(
            pour(&mut [place(1, 0, 9), place(2, 0, 9), place(3, 0, 9)], 7),
            (7, [(1, 3), (2, 2), (3, 2)].into())
        );
        assert_eq!(pour(&mut [place(1, 4, 9), place(2, 0, 9)], 6), (6, [(1, 1), (2, 5)].into()));
        assert_eq!(pour(&mut [place(1, 0, 1), place(2, 0, 9)], 6), (6, [(1, 1), (2, 5)].into()));
        assert_eq!(pour(&mut [place(1, 0, 1), place(2, 0, 2)], 6), (3, [(1, 1), (2, 2)].into()));
        assert_eq!(pour(&mut [], 6), (0, [].into()));
    }

    #[test]
    fn the_fullest_go_down_first() {
        let drain = |places: &mut [Place], count| shares(|give| super::drain(places, count, give));
        assert_eq!(drain(&mut [place(1, 5, 5), place(2, 2, 2)], 3), (3, [(1, 3)].into()));
        assert_eq!(drain(&mut [place(1, 5, 5), place(2, 2, 2)], 5), (5, [(1, 4), (2, 1)].into()));
        assert_eq!(drain(&mut [place(1, 5, 1), place(2, 2, 2)], 9), (3, [(1, 1), (2, 2)].into()));
    }
}

//! Placement on hosts: even, spread, honest about what found no place; and advice that ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use support::{Dice, seeds};
use tenon_scaler::place::{Full, Health, Host, Placement, Spread, Why, place, rebalance};
use tenon_scaler::{Grant, HostId, IdcId};

fn host(id: u32, idc: u16, room: u32, here: u32) -> Host {
    Host { id: HostId(id), idc: IdcId(idc), room, here, load_permille: 500, health: Health::Good }
}

fn on(placement: &Placement) -> Vec<(u32, u32)> {
    placement.on.iter().map(|(host, count)| (host.0, *count)).collect()
}

#[test]
fn even_over_data_centres_and_then_over_hosts() {
    let hosts = [host(1, 1, 9, 0), host(2, 1, 9, 0), host(3, 2, 9, 0), host(4, 2, 9, 1), host(5, 3, 9, 0)];
    let placed = place(&hosts, 5, Spread::default());
    // The one that stands on 4 counts: two, two and two.
    assert_eq!((on(&placed), placed.missing), (vec![(1, 1), (2, 1), (3, 1), (5, 2)], 0));
}

#[test]
fn no_more_than_two_on_a_host_and_the_idle_ones_first() {
    let mut hosts = vec![host(1, 1, 9, 1), host(2, 1, 9, 0), host(3, 1, 9, 0)];
    hosts[1].load_permille = 900;
    assert_eq!(on(&place(&hosts, 2, Spread::default())), [(2, 1), (3, 1)]);
    assert_eq!(on(&place(&hosts, 1, Spread::default())), [(3, 1)]);
    let placed = place(&hosts, 9, Spread::default());
    assert_eq!((on(&placed), placed.missing), (vec![(1, 1), (2, 2), (3, 2)], 4));
    assert_eq!(placed.causes, [(IdcId(1), Full::Host)]);
    let four = Spread { per_host: 4, ..Spread::default() };
    assert_eq!(place(&hosts, 9, four).missing, 0);
}

#[test]
fn what_one_lacks_the_others_take_unless_the_skew_must_hold() {
    let hosts = [host(1, 1, 1, 0), host(2, 2, 9, 0), host(3, 2, 9, 0), host(4, 3, 0, 0)];
    let placed = place(&hosts, 5, Spread::default());
    assert_eq!((on(&placed), placed.missing), (vec![(1, 1), (2, 2), (3, 2)], 0));
    let strict = Spread { skew: Some(1), ..Spread::default() };
    let placed = place(&hosts, 5, strict);
    assert_eq!((on(&placed), placed.missing), (vec![(1, 1), (2, 1)], 3));
    assert_eq!(placed.causes, [(IdcId(1), Full::Stock), (IdcId(2), Full::Spread), (IdcId(3), Full::Stock)]);
    let whole = place(&hosts, 5, Spread { grant: Grant::Atomic, ..strict });
    assert_eq!((on(&whole), whole.missing), (vec![], 5));
}

#[test]
fn what_stands_on_a_bad_host_moves_first() {
    let mut hosts = vec![host(1, 1, 9, 2), host(2, 1, 9, 0), host(3, 1, 9, 4), host(4, 2, 9, 1), host(5, 2, 9, 1)];
    hosts[0].health = Health::Bad;
    let shifts = rebalance(&hosts, Spread::default(), 10);
    let of = |why| shifts.iter().filter(|shift| shift.why == why).map(|shift| shift.from.0).collect::<Vec<_>>();
    assert_eq!((of(Why::Bad), of(Why::Crowded), of(Why::Skew)), (vec![1, 1], vec![3, 3], vec![]));
    assert!(shifts.iter().all(|shift| shift.to != HostId(1) && shift.to != HostId(3)));
    assert_eq!(rebalance(&hosts, Spread::default(), 1), shifts[..1]);
    // Five against one, in hosts that are allowed them.
    let uneven = [host(1, 1, 9, 2), host(2, 1, 9, 2), host(3, 1, 9, 1), host(4, 2, 9, 1), host(5, 2, 9, 0)];
    let shifts = rebalance(&uneven, Spread::default(), 10);
    assert_eq!(
        shifts.iter().map(|shift| (shift.why, shift.to.0)).collect::<Vec<_>>(),
        [(Why::Skew, 5), (Why::Skew, 4)]
    );
}

/// Instances by host and by data centre after a placement and after advice was followed.
fn apply(hosts: &mut [Host], changes: impl Iterator<Item = (HostId, i64)>) {
    for (id, by) in changes {
        let host = hosts.iter_mut().find(|host| host.id == id).unwrap();
        host.here = u32::try_from(i64::from(host.here) + by).unwrap();
        host.room = u32::try_from(i64::from(host.room) - by).unwrap();
    }
}

#[test]
fn whatever_the_hosts() {
    let (shifted, short) = (core::cell::Cell::new(0), core::cell::Cell::new(0));
    seeds(300, |seed| {
        let mut dice = Dice(seed);
        let spread = Spread {
            per_host: 1 + dice.small(3),
            skew: dice.pick(&[None, None, Some(1), Some(3)]),
            grant: Grant::Partial,
        };
        let mut hosts: Vec<Host> = (0..=dice.small(25))
            .map(|id| Host {
                load_permille: u16::try_from(dice.below(1000)).unwrap(),
                health: dice.pick(&[Health::Good, Health::Good, Health::Good, Health::Closed, Health::Bad]),
                ..host(id, u16::try_from(dice.below(3)).unwrap(), dice.small(4), dice.small(3))
            })
            .collect();
        let before = hosts.clone();
        let count = dice.small(40);
        let placed = place(&hosts, count, spread);
        assert_eq!(placed.on.iter().map(|(_, count)| count).sum::<u32>() + placed.missing, count);
        assert_eq!(placed.missing > 0, !placed.causes.is_empty());
        short.set(short.get() + u32::from(placed.missing > 0));
        apply(&mut hosts, placed.on.iter().map(|(host, count)| (*host, i64::from(*count))));
        let sums = |hosts: &[Host]| {
            let mut sums = BTreeMap::<IdcId, u32>::new();
            for host in hosts {
                *sums.entry(host.idc).or_default() += if host.health == Health::Bad { 0 } else { host.here };
            }
            sums
        };
        let (was, is) = (sums(&before), sums(&hosts));
        for (host, old) in hosts.iter().zip(&before) {
            let grew = host.here > old.here;
            assert!(!grew || (host.health == Health::Good && host.here <= spread.per_host), "{host:?}");
            // A data centre that grew stands no more than one above any that could have taken one more.
            let open = host.health == Health::Good && host.room > 0 && host.here < spread.per_host;
            for (idc, sum) in is.iter().filter(|(idc, sum)| was[idc] < **sum) {
                assert!(!open || *sum <= is[&host.idc] + 1, "{idc} over {}", host.idc);
            }
        }
        let shifts = rebalance(&hosts, spread, 1_000);
        shifted.set(shifted.get() + shifts.len());
        apply(&mut hosts, shifts.iter().flat_map(|shift| [(shift.to, 1), (shift.from, -1)]));
        assert_eq!(rebalance(&hosts, spread, 1_000), [], "advice that was followed needs no more");
    });
    assert!(shifted.get() > 200 && short.get() > 30, "{} {}", shifted.get(), short.get());
}

#[test]
fn a_host_that_is_named_twice_counts_twice() {
    let hosts =
        [host(1, 1, 0, 4), host(1, 1, 0, 0), host(2, 1, 9, 0), host(3, 1, 9, u32::MAX), host(3, 1, 9, u32::MAX)];
    let shifts = rebalance(&hosts, Spread::default(), 2);
    assert_eq!(shifts.iter().map(|shift| (shift.from.0, shift.to.0)).collect::<Vec<_>>(), [(1, 2), (1, 2)]);
}

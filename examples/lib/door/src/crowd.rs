//! The connections that there are, and which of them gives way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

#[derive(Debug)]
pub(crate) struct Crowd {
    total: usize,
    per_address: usize,
    inner: Mutex<Inner>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    places: BTreeMap<u64, (IpAddr, Arc<State>)>,
}

/// How a connection stands.
#[derive(Debug)]
pub(crate) struct State {
    /// Requests under way, and since when there have been none.
    now: Mutex<(usize, Instant)>,
    go: Notify,
}

/// A connection's place; free again once this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    id: u64,
    state: Arc<State>,
}

/// A request is under way.
#[derive(Debug)]
pub(crate) struct Busy(Arc<State>);

impl Crowd {
    pub(crate) fn new(total: usize, per_address: usize) -> Self {
        Self { total, per_address, inner: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// A place for a new connection of an address. If there is none, whoever has been idle for longest gives way; nobody
    /// gives way who is busy.
    pub(crate) fn enter(crowd: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut inner = crowd.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = inner.places.values().filter(|(ip, _)| *ip == address).count();
        if of_address >= crowd.per_address && !inner.evict(|ip| ip == address) {
            return None;
        }
        if inner.places.len() >= crowd.total && !inner.evict(|_| true) {
            return None;
        }
        let state = Arc::new(State { now: Mutex::new((0, Instant::now())), go: Notify::new() });
        let id = inner.next;
        inner.next += 1;
        inner.places.insert(id, (address, Arc::clone(&state)));
        crowd.count.send_modify(|count| *count += 1);
        Some(Place { crowd: Arc::clone(crowd), id, state })
    }

    /// Whoever has been idle for longest goes.
    pub(crate) fn make_room(&self) {
        let _nobody_idle = self.inner.lock().unwrap_or_else(PoisonError::into_inner).evict(|_| true);
    }

    /// Waits until everybody has left.
    pub(crate) async fn emptied(&self) {
        drop(self.count.subscribe().wait_for(|count| *count == 0).await);
    }
}

impl Inner {
    fn evict(&mut self, is: impl Fn(IpAddr) -> bool) -> bool {
        let idle = self.places.iter().filter(|(_, (ip, _))| is(*ip));
        let idle = idle.filter_map(|(id, (_, state))| Some((state.idle_since()?, *id)));
        let Some((_, id)) = idle.min() else { return false };
        if let Some((_, state)) = self.places.remove(&id) {
            state.go.notify_one();
        }
        true
    }
}

impl State {
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
        Busy(Arc::clone(self))
    }

    fn idle_since(&self) -> Option<Instant> {
        let (requests, since) = *self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (requests == 0).then_some(since)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = (now.0 - 1, Instant::now());
    }
}

impl Place {
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Waits until another connection needs the place more.
    pub(crate) async fn told_to_go(&self) {
        self.state.go.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.inner.lock().unwrap_or_else(PoisonError::into_inner).places.remove(&self.id);
        self.crowd.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn there(crowd: &Arc<Crowd>) -> Vec<u64> {
        crowd.inner.lock().unwrap().places.keys().copied().collect()
    }

    #[test]
    fn the_longest_idle_gives_way_and_nobody_who_is_busy() {
        let crowd = Arc::new(Crowd::new(3, 3));
        let all: Vec<_> = (0..3).map(|_| Crowd::enter(&crowd, A).unwrap()).collect();
        // The first has just been used, the second is in use.
        drop(all[0].state().busy());
        let busy = all[1].state().busy();
        let fourth = Crowd::enter(&crowd, B).unwrap();
        assert_eq!(there(&crowd), [0, 1, 3]);
        let (_x, _y) = (all[0].state().busy(), fourth.state().busy());
        assert!(Crowd::enter(&crowd, B).is_none());
        drop(busy);
        assert!(Crowd::enter(&crowd, B).is_some());
    }

    #[test]
    fn one_address_takes_no_more_than_its_share() {
        let crowd = Arc::new(Crowd::new(4, 2));
        let a: Vec<_> = (0..2).map(|_| Crowd::enter(&crowd, A).unwrap()).collect();
        let busy: Vec<_> = a.iter().map(|place| place.state().busy()).collect();
        assert!(Crowd::enter(&crowd, A).is_none());
        let _b = Crowd::enter(&crowd, B).unwrap();
        drop(busy);
        let _third = Crowd::enter(&crowd, A).unwrap();
        assert_eq!(there(&crowd), [1, 2, 3], "its own idle one gives way, not another's");
    }
}

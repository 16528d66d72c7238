//! A router for many threads: repositories are striped over many small routers, each behind its own lock.

use alloc::vec::Vec;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::config::Config;
use crate::effect::Effect;
use crate::error::Refusal;
use crate::id::{Ask, NodeId, RepoId};
use crate::node::NodeState;
use crate::read::{ReadRequest, ReadStep};
use crate::rng::mix;
use crate::router::Router;
use crate::time::Timestamp;

/// The stripe that an effect came from. Tell the effect's result to the same stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stripe(u32);

/// A concurrent router: many small [`Router`]s behind one API that takes `&self`.
///
/// A repository belongs to one stripe for good, and no call holds two locks, so decisions about one repository are
/// linearizable, and those about different stripes are not ordered. A read that names its caller's request takes its
/// chance from the seed and that name, so that it is decided alike whichever threads run beside it.
#[derive(Debug)]
pub struct Shared {
    /// Two locks never share a cache line.
    stripes: Vec<CachePadded<Mutex<Router>>>,
}

impl Shared {
    /// A concurrent router of `stripes` routers (at least one), each with `config`. Limits hold for each stripe.
    ///
    /// Some 32 stripes for each thread are a good number: two threads meet in one of n with chance 1/n, and a stripe
    /// costs a few kilobytes.
    ///
    /// ```
    /// use tenon_quorum::{Config, RepoId, Shared};
    ///
    /// let routers = Shared::new(&Config::builder().build()?, 64);
    /// assert_eq!(routers.stripe(RepoId(7)), routers.stripe(RepoId(7)));
    /// assert_eq!(routers.of(RepoId(7), |router| router.repositories()), (0, 0));
    /// # Ok::<(), tenon_quorum::ConfigError>(())
    /// ```
    #[must_use]
    pub fn new(config: &Config, stripes: u32) -> Self {
        let seeded = |stripe: u32| {
            let seed = mix(config.seed ^ u64::from(stripe));
            CachePadded::new(Mutex::new(Router::new(Config { seed, ..config.clone() })))
        };
        Self { stripes: (0..stripes.max(1)).map(seeded).collect() }
    }

    /// The stripe that `repo` belongs to.
    #[must_use]
    pub fn stripe(&self, repo: RepoId) -> Stripe {
        let count = u32::try_from(self.stripes.len()).unwrap_or(u32::MAX);
        // The low half, by multiply and shift: the high bits order the tables inside, and must differ within a stripe.
        let wide = (mix(repo.0) & u64::from(u32::MAX)) * u64::from(count);
        Stripe(u32::try_from(wide >> 32).unwrap_or(0))
    }

    /// Locks the router of a stripe and calls `act` with it, to tell the results of its effects.
    ///
    /// `None` if there is no such stripe.
    pub fn with<T>(&self, stripe: Stripe, act: impl FnOnce(&mut Router) -> T) -> Option<T> {
        let lock = self.stripes.get(usize::try_from(stripe.0).ok()?)?;
        Some(act(&mut lock.lock()))
    }

    /// Locks the router of a repository and calls `act` with it.
    #[inline]
    pub fn of<T>(&self, repo: RepoId, act: impl FnOnce(&mut Router) -> T) -> T {
        let at = usize::try_from(self.stripe(repo).0).unwrap_or(0);
        act(&mut self.stripes[at].lock())
    }

    /// [`Router::begin_read`] on the router of `repo`.
    #[must_use = "route the read with it"]
    pub fn begin_read(&self, repo: RepoId) -> Ask {
        self.of(repo, Router::begin_read)
    }

    /// [`Router::route_read`] on the router of the repository.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn route_read(&self, now: Timestamp, request: &ReadRequest) -> Result<ReadStep, Refusal> {
        self.of(request.repo, |router| router.route_read(now, request))
    }

    /// [`Router::handle_node`] on every router, one after another.
    pub fn handle_node(&self, now: Timestamp, node: NodeId, state: NodeState) {
        for stripe in &self.stripes {
            stripe.lock().handle_node(now, node, state);
        }
    }

    /// [`Router::handle_timeout`] on every router, one after another.
    pub fn handle_timeout(&self, now: Timestamp) {
        for stripe in &self.stripes {
            stripe.lock().handle_timeout(now);
        }
    }

    /// The earliest [`Router::next_deadline`] of all.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.stripes.iter().filter_map(|stripe| stripe.lock().next_deadline()).min()
    }

    /// The next effect of any stripe, with the stripe to tell its result to. Effects of one stripe come in order.
    #[must_use = "an order to the host"]
    pub fn poll_effect(&self) -> Option<(Stripe, Effect)> {
        (0..).zip(&self.stripes).find_map(|(at, stripe)| Some((Stripe(at), stripe.lock().poll_effect()?)))
    }
}

//! An engine for many threads: pipelines are striped over many small engines, each behind its own lock.

mod sync;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::config::{Config, PoolSpec};
use crate::effect::Effect;
use crate::engine::{Engine, PullRequest};
use crate::id::{CallId, Incarnation, PipelineId, PoolId};
use crate::reason::Refused;
use crate::rng::mix;
use crate::time::Timestamp;
use sync::{Counter, Mutex};

/// The stripe that an effect came from. Tell the effect's result to the same stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stripe(u32);

/// The id of a pull that waits for work in any stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(u64);

/// The result of a pull.
#[must_use = "a pull that nobody follows gives its jobs back only when their acknowledgement is overdue"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pulled {
    /// An engine serves the pull: its jobs come as [`Effect::Assign`] of this stripe, then [`Effect::Answer`].
    By(Stripe, CallId),
    /// There is no job now. The pull waits, and [`Shared::poll_woken`] tells its end once.
    Waits(Waiter),
    /// There is no job now, and the pull does not wait.
    Nothing,
}

/// The end of a wait.
#[must_use = "a worker waits for it"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Woken {
    /// The id of the wait.
    pub waiter: Waiter,
    /// The result of the pull: an engine's call, `Nothing` when its patience has ended, or the rule that refuses it.
    pub pulled: Result<Pulled, Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    request: PullRequest,
    until: Timestamp,
    chance: u64,
}

/// Who waits at some pools, and what they have not been told yet.
#[derive(Debug, Default)]
struct Hall {
    parked: BTreeMap<(PoolId, Waiter), Parked>,
    told: VecDeque<Woken>,
}

/// A hall and what is read of it without its lock.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Door {
    hall: Mutex<Hall>,
    /// How often something came for one of its pools.
    epoch: Counter,
    /// How many wait, or more while one is coming or going.
    waiting: Counter,
}

impl Door {
    /// Ends a wait that nobody else has ended; returns whether nobody had.
    fn leave(&self, pool: PoolId, waiter: Waiter) -> bool {
        let was_there = self.hall.with(|hall| hall.parked.remove(&(pool, waiter)).is_some());
        if was_there {
            self.waiting.add(-1);
        }
        was_there
    }
}

/// Two locks never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(Mutex<Engine>);

const DOORS: u64 = 16;

/// A concurrent engine: many small [`Engine`]s behind one API that takes `&self`, so that pools on many threads pull at
/// once.
///
/// A pipeline and its jobs belong to one stripe for good, and no call holds two locks: an engine's lock is given back
/// before another's, or a hall's, is taken, since none is reachable from inside another. Changes of one pipeline are
/// linearizable, those of different stripes are not ordered.
///
/// The leases and the rate of a pool hold over all stripes, by the pool's row. They hold for each stripe alone if
/// [`recheck_ms`](crate::ConfigBuilder::recheck_ms) is 0. The [`Limits`](crate::Limits) always hold for each stripe.
///
/// A pull looks into the stripes one after another and takes from the first that has something. If none has, it parks:
/// it notes how often work has come to its pool *before* it looks, and again *after* it has parked, and looks again if
/// that has moved. A call that brings work counts it *before* looking for parked pulls. So of a pull and of work that
/// meet, one sees the other, and each wait ends exactly once.
#[derive(Debug)]
pub struct Shared {
    stripes: Vec<Padded>,
    doors: Vec<Door>,
    waiters: Counter,
}

impl Shared {
    /// A concurrent engine with a stripe for each of these lives; `config`'s own life is not used.
    ///
    /// `None` without lives, or if two are the same: write ids are made from them.
    ///
    /// ```
    /// use tenon_jobqueue::{Config, Incarnation, PipelineId, Shared};
    ///
    /// let lives = [1, 2, 3].map(Incarnation::new); // never used before, on any host
    /// let shared = Shared::new(&Config::builder(lives[0]).build()?, &lives).expect("three different lives");
    /// assert_eq!(shared.stripes().count(), 3);
    /// assert_eq!(shared.stripe(PipelineId::new(1)), shared.stripe(PipelineId::new(1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(config: &Config, lives: &[Incarnation]) -> Option<Self> {
        let mut sorted = lives.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if lives.is_empty() || sorted.len() != lives.len() {
            return None;
        }
        let engine = |life: &Incarnation| {
            let seed = mix(config.seed ^ life.get());
            let mut engine = Engine::new(Config { engine: *life, seed, ..config.clone() });
            engine.watch();
            Padded(Mutex::new(engine))
        };
        let doors = (0..DOORS).map(|_| Door::default()).collect();
        Some(Self { stripes: lives.iter().map(engine).collect(), doors, waiters: Counter::default() })
    }

    /// Lists all stripes.
    pub fn stripes(&self) -> impl Iterator<Item = Stripe> {
        (0..u32::try_from(self.stripes.len()).unwrap_or(u32::MAX)).map(Stripe)
    }

    /// The stripe that a pipeline belongs to.
    #[must_use]
    pub fn stripe(&self, pipeline: PipelineId) -> Stripe {
        let count = self.stripes.len() as u64;
        // By multiply and shift: neighbours are spread over all stripes.
        let wide = (mix(pipeline.get()) >> 32) * count;
        Stripe(u32::try_from(wide >> 32).unwrap_or(0))
    }

    /// Locks the engine of a stripe, calls `act` with it, then wakes the pulls that waited for the jobs that came.
    ///
    /// Submit, tell facts and pass on workers' messages by it. `act` must not call this engine again.
    ///
    /// `None` if there is no such stripe.
    pub fn with<T>(&self, stripe: Stripe, act: impl FnOnce(&mut Engine) -> T) -> Option<T> {
        let padded = self.stripes.get(stripe.0 as usize)?;
        let (done, mut news, now) = padded.0.with(|engine| (act(engine), engine.take_news(), engine.time()));
        // Mostly something came for no pool or for one; whoever comes between takes the others' news along.
        while let Some((pool, jobs, more)) = news {
            self.announce(now, pool, jobs);
            news = if more { padded.0.with(Engine::take_news) } else { None };
        }
        Some(done)
    }

    /// Locks the engine of a pipeline and calls `act` with it, as [`Shared::with`] does.
    pub fn of<T>(&self, pipeline: PipelineId, act: impl FnOnce(&mut Engine) -> T) -> Option<T> {
        self.with(self.stripe(pipeline), act)
    }

    /// [`Engine::put_pool`] on every engine, one after another.
    ///
    /// # Errors
    ///
    /// As there; engines before the one that refused have the pool.
    pub fn put_pool(&self, now: Timestamp, pool: &PoolSpec) -> Result<(), Refused> {
        for stripe in self.stripes() {
            self.with(stripe, |engine| engine.put_pool(now, pool.clone())).unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// [`Engine::handle_timeout`] on every engine, one after another; then ends the waits whose patience has ended.
    pub fn handle_timeout(&self, now: Timestamp) {
        for stripe in self.stripes() {
            self.with(stripe, |engine| engine.handle_timeout(now));
        }
        for door in &self.doors {
            door.hall.with(|hall| {
                let is_over = |parked: &Parked| parked.until <= now;
                let over: Vec<_> =
                    hall.parked.iter().filter(|(_, parked)| is_over(parked)).map(|(key, _)| *key).collect();
                for key in over {
                    hall.parked.remove(&key);
                    door.waiting.add(-1);
                    hall.told.push_back(Woken { waiter: key.1, pulled: Ok(Pulled::Nothing) });
                }
            });
        }
    }

    /// The earliest deadline of all stripes and waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let engines = self.stripes.iter().filter_map(|stripe| stripe.0.with(|engine| engine.next_deadline())).min();
        let waits = self.doors.iter().filter(|door| door.waiting.get() > 0);
        let waits = waits.filter_map(|door| door.hall.with(|hall| hall.parked.values().map(|one| one.until).min()));
        [engines, waits.min()].into_iter().flatten().min()
    }

    /// The next effect of any stripe, with the stripe to tell its result to. Effects of one stripe come in order.
    #[must_use = "an order to the host"]
    pub fn poll_effect(&self) -> Option<(Stripe, Effect)> {
        self.stripes().find_map(|stripe| {
            let padded = self.stripes.get(stripe.0 as usize)?;
            Some((stripe, padded.0.with(Engine::poll_effect)?))
        })
    }

    /// The next wait that has ended.
    pub fn poll_woken(&self) -> Option<Woken> {
        self.doors.iter().find_map(|door| door.hall.with(|hall| hall.told.pop_front()))
    }

    /// Asks for jobs for a worker, in all stripes.
    ///
    /// `chance` says which stripe is looked into first: a hash of the caller's request, so that a pull is decided alike
    /// whichever threads run beside it. A `previous` pull is only known to the stripe that served it: ask that one
    /// again by [`Shared::with`].
    ///
    /// # Errors
    ///
    /// As for [`Engine::pull`].
    pub fn pull(&self, now: Timestamp, request: &PullRequest, chance: u64) -> Result<Pulled, Refused> {
        let waiter = Waiter(self.waiters.add(1));
        let until = now.after_millis(request.wait_ms);
        self.seek(now, waiter, Parked { request: *request, until, chance })
    }

    /// Ends a wait because the host no longer waits. Returns whether the wait was still on; if not, its end is told.
    pub fn cancel(&self, pool: PoolId, waiter: Waiter) -> bool {
        self.door(pool).leave(pool, waiter)
    }

    fn door(&self, pool: PoolId) -> &Door {
        let at = mix(u64::from(pool.get())) % DOORS;
        &self.doors[usize::try_from(at).unwrap_or(0)]
    }

    /// Takes from the first stripe that has something, or parks.
    fn seek(&self, now: Timestamp, waiter: Waiter, parked: Parked) -> Result<Pulled, Refused> {
        let pool = parked.request.pool;
        let door = self.door(pool);
        // Each round but the first follows work that somebody has brought meanwhile.
        loop {
            let before = door.epoch.get();
            if let Some((stripe, call)) = self.visit(now, &parked)? {
                return Ok(Pulled::By(stripe, call));
            }
            if parked.until <= now {
                return Ok(Pulled::Nothing);
            }
            // Counted before it is there, so that the count is never below the truth.
            door.waiting.add(1);
            door.hall.with(|hall| hall.parked.insert((pool, waiter), parked));
            // Whoever takes it out of the hall from here on tells its end.
            if door.epoch.get() == before || !door.leave(pool, waiter) {
                return Ok(Pulled::Waits(waiter));
            }
        }
    }

    /// Looks into the stripes, one after another.
    fn visit(&self, now: Timestamp, parked: &Parked) -> Result<Option<(Stripe, CallId)>, Refused> {
        let count = self.stripes.len() as u64;
        let first = mix(parked.chance) % count;
        let request = PullRequest { wait_ms: 0, previous: None, ..parked.request };
        for step in 0..count {
            let at = (first + step) % count;
            let Some(padded) = self.stripes.get(usize::try_from(at).unwrap_or(0)) else { continue };
            let served = padded.0.with(|engine| match engine.can_serve(now, request.pool) {
                Ok(true) => engine.pull(now, &request).map(Some),
                Ok(false) => Ok(None),
                Err(refused) => Err(refused),
            })?;
            if let Some(call) = served {
                return Ok(Some((Stripe(u32::try_from(at).unwrap_or(0)), call)));
            }
        }
        Ok(None)
    }

    /// Something came for a pool: as many that wait there are served as there came jobs, oldest first.
    fn announce(&self, now: Timestamp, pool: PoolId, jobs: u32) {
        let door = self.door(pool);
        door.epoch.add(1);
        for _ in 0..jobs {
            if door.waiting.get() == 0 {
                return;
            }
            let next = door.hall.with(|hall| {
                let ((of, waiter), _) = hall.parked.range((pool, Waiter(0))..).next()?;
                let key = (*of, *waiter);
                (key.0 == pool).then(|| hall.parked.remove(&key).map(|parked| (key.1, parked)))?
            });
            let Some((waiter, parked)) = next else { return };
            door.waiting.add(-1);
            let pulled = self.seek(now, waiter, parked);
            if matches!(pulled, Ok(Pulled::Waits(_))) {
                // Another pull was faster.
                return;
            }
            door.hall.with(|hall| hall.told.push_back(Woken { waiter, pulled }));
        }
    }
}

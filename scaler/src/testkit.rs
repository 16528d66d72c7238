//! Tortures a host's own cloud, metrics source and store, and checks the crate's rules through them.
//!
//! A host implements [`Host`] over what it embeds the engine in (a fake cloud behind its real client; real processes) and
//! calls [`torture`] in a test, with a few hundred seeds. The kit runs the loop (measure, tell, tick, save, act) and
//! treats it as the world does: measurements stay away, launches come in parts or fail, instances die, and the process is
//! killed between each two steps, so that effects are acted on twice and facts are told twice. All along it keeps its own
//! books of what there is, and compares: what the cloud bills, what the ledger lends, what each request came to.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::effect::Effect;
pub use crate::effect::Progress;
use crate::id::{GroupId, MetricId, PoolId, RequestId};
use crate::num::Milli;
use crate::{Engine, Snapshot, Timestamp};

mod books;
use books::Books;

/// An event in the world of the host.
///
/// The host's test brings it about beneath the host (in the fake cloud, to the process), and returns when it has
/// happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A metric is published. Between two of these lies a gap: there is nothing newer to read.
    Measured {
        /// The group that was measured.
        group: GroupId,
        /// The metric that was measured.
        metric: MetricId,
        /// The time of the sample.
        at: Timestamp,
        /// The measured value.
        value: Milli,
    },
    /// Instances of a launch come to serve.
    Start {
        /// The id of the launch.
        request: RequestId,
        /// The number of further instances.
        count: u32,
    },
    /// Instances of a launch fail to start, and are gone.
    Fail {
        /// The id of the launch.
        request: RequestId,
        /// The number of further instances.
        count: u32,
    },
    /// Instances of a launch that were cancelled while they were starting are gone.
    Stop {
        /// The id of the launch.
        request: RequestId,
        /// The number of further instances.
        count: u32,
    },
    /// Instances of a release are gone.
    Leave {
        /// The id of the release.
        request: RequestId,
        /// The number of further instances.
        count: u32,
    },
    /// Serving instances die that were not asked to go.
    Die {
        /// The group of the instances.
        group: GroupId,
        /// The pool of the instances.
        pool: PoolId,
        /// The number of instances.
        count: u32,
    },
}

/// The fate of instances when the host's process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lives {
    /// The instances live on: the host must keep its snapshot, and find them again.
    On,
    /// The instances die with the process, as child processes do: the host starts afresh, and keeps nothing.
    WithHost,
}

/// A host's store, cloud and metrics source, and the means to let events happen to them.
pub trait Host {
    /// The error of the host itself.
    type Error: Debug;

    /// The fate of instances when the host's process dies.
    fn lives(&self) -> Lives {
        Lives::On
    }

    /// Stores a snapshot durably. The kit calls it after a tick, before it acts on the tick's effects.
    ///
    /// # Errors
    /// The store failed.
    fn save(&mut self, snapshot: &Snapshot) -> Result<(), Self::Error>;

    /// Loads the last snapshot, if there is one.
    ///
    /// # Errors
    /// The store failed.
    fn load(&mut self) -> Result<Option<Snapshot>, Self::Error>;

    /// Asks the cloud to carry out an effect.
    ///
    /// Asked twice under one request, whatever its state, it must act once.
    ///
    /// # Errors
    /// The cloud failed.
    fn act(&mut self, now: Timestamp, effect: &Effect) -> Result<(), Self::Error>;

    /// Reads the progress of a request. It must be answered as long as a stored snapshot may name the request.
    ///
    /// # Errors
    /// The cloud failed.
    fn progress(&mut self, now: Timestamp, request: RequestId) -> Result<Progress, Self::Error>;

    /// Counts the instances of a group that serve in a pool, without those that were asked to go.
    ///
    /// # Errors
    /// The cloud failed.
    fn census(&mut self, now: Timestamp, group: GroupId, pool: PoolId) -> Result<u32, Self::Error>;

    /// Reads the newest sample, with the time at which it was taken.
    ///
    /// # Errors
    /// The metrics source failed.
    fn read(
        &mut self,
        now: Timestamp,
        group: GroupId,
        metric: MetricId,
    ) -> Result<Option<(Timestamp, Milli)>, Self::Error>;

    /// Counts all instances of a pool (starting, serving or leaving) by an independent source: the bill, the process
    /// table.
    ///
    /// # Errors
    /// The cloud failed.
    fn existing(&mut self, pool: PoolId) -> Result<u32, Self::Error>;

    /// Brings an event about, and returns when it has happened.
    ///
    /// # Errors
    /// It cannot be brought about.
    fn happen(&mut self, now: Timestamp, event: Event) -> Result<(), Self::Error>;

    /// Kills the host's process and starts it again: data that is not durable is gone.
    ///
    /// # Errors
    /// The host does not come up again.
    fn crash(&mut self, now: Timestamp) -> Result<(), Self::Error>;
}

/// A rule that the host broke, with what is needed to reproduce it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// The step at which the fault showed.
    pub step: usize,
    /// A description of the fault.
    pub what: String,
}

/// The statistics of a run, so that a test can see that something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of ticks.
    pub ticks: usize,
    /// The number of instances that came to serve.
    pub started: u32,
    /// The number of instances that failed to start.
    pub failed: u32,
    /// The number of instances that were cancelled and went before they served.
    pub stopped: u32,
    /// The number of instances that were released and went.
    pub left: u32,
    /// The number of instances that died.
    pub died: u32,
    /// The number of effects acted on again after a crash.
    pub repeated: usize,
    /// The number of reads that found no new sample.
    pub gaps: usize,
    /// The number of crashes.
    pub crashes: usize,
}

/// Runs `steps` random steps with an engine as the host sets it up, and lets everything come to rest at the end.
///
/// The engine has the host's pools, images, groups and rules, and no running instances.
///
/// # Errors
/// The first rule that the host breaks.
pub fn torture<H: Host>(host: &mut H, engine: &Engine, seed: u64, steps: usize) -> Result<Report, Violation> {
    let mut run = Run {
        host,
        fresh: engine.clone(),
        engine: engine.clone(),
        now: engine.now,
        chance: Chance(seed),
        books: Books::default(),
        report: Report::default(),
    };
    for step in 0..steps {
        run.step().and_then(|()| run.check()).map_err(|what| Violation { seed, step, what })?;
    }
    run.rest().map_err(|what| Violation { seed, step: steps, what })?;
    Ok(run.report)
}

struct Run<'a, H> {
    host: &'a mut H,
    fresh: Engine,
    engine: Engine,
    now: Timestamp,
    chance: Chance,
    books: Books,
    report: Report,
}

fn failed(error: impl Debug) -> String {
    format!("the host failed: {error:?}")
}

/// Whether the process died on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    Dead,
}

/// Which answers of the cloud come in time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Some,
    All,
}

impl<H: Host> Run<'_, H> {
    fn step(&mut self) -> Result<(), String> {
        let tick = self.engine.config().tick_ms();
        self.now = self.now.after_millis(self.chance.pick(&[0, tick / 3, tick, tick, tick * 4]));
        for _ in 0..=self.chance.below(3) {
            self.weather()?;
        }
        if self.turn()? == Fate::Dead { self.recover() } else { Ok(()) }
    }

    /// Lets something happen in the world.
    fn weather(&mut self) -> Result<(), String> {
        let event = match self.chance.below(8) {
            0..=2 => self.measurement(),
            3..=6 => self.books.advance(&mut self.chance),
            _ => self.books.death(&mut self.chance),
        };
        event.map_or(Ok(()), |event| self.bring_about(event))
    }

    fn bring_about(&mut self, event: Event) -> Result<(), String> {
        self.host.happen(self.now, event).map_err(failed)?;
        match event {
            Event::Measured { .. } => {}
            Event::Start { count, .. } => self.report.started += count,
            Event::Fail { count, .. } => self.report.failed += count,
            Event::Stop { count, .. } => self.report.stopped += count,
            Event::Leave { count, .. } => self.report.left += count,
            Event::Die { count, .. } => self.report.died += count,
        }
        self.books.happen(event);
        Ok(())
    }

    fn measurement(&mut self) -> Option<Event> {
        let all = self.metrics();
        let (group, metric) = *all.get(self.chance.index(all.len())?)?;
        let value = Milli::from_thousandths(i64::from(self.chance.below(60_000)));
        Some(Event::Measured { group, metric, at: self.now, value })
    }

    fn metrics(&self) -> Vec<(GroupId, MetricId)> {
        let slots = self.engine.slots.iter();
        slots.flat_map(|slot| slot.group.policy().metrics.iter().map(|metric| (slot.id(), metric.id))).collect()
    }

    /// One turn of the loop: measure, tell, tick, save, act; the process may die between each two.
    fn turn(&mut self) -> Result<Fate, String> {
        self.measure()?;
        if self.dies() {
            return Ok(Fate::Dead);
        }
        self.tell(Answers::Some)?;
        if self.chance.below(3) == 0 {
            self.count()?;
        }
        if self.dies() {
            return Ok(Fate::Dead);
        }
        self.engine.handle_timeout(self.now);
        self.report.ticks += 1;
        if self.dies() {
            return Ok(Fate::Dead);
        }
        self.host.save(&self.engine.snapshot()).map_err(failed)?;
        self.act()
    }

    fn dies(&mut self) -> bool {
        self.chance.below(24) == 0
    }

    fn measure(&mut self) -> Result<(), String> {
        for (group, metric) in self.metrics() {
            let found = self.host.read(self.now, group, metric).map_err(failed)?;
            self.books.check_reading(group, metric, found)?;
            self.report.gaps += usize::from(found.is_none_or(|(at, _)| at < self.now));
            if let Some((at, value)) = found {
                self.engine.handle_sample(self.now, group, metric, at, Some(value));
            }
        }
        Ok(())
    }

    /// Tells what open requests have come to.
    fn tell(&mut self, answers: Answers) -> Result<(), String> {
        let open: Vec<RequestId> = self.engine.requests().map(|(id, _)| id).collect();
        for id in open {
            if answers == Answers::Some && self.chance.below(3) == 0 {
                continue;
            }
            let progress = self.host.progress(self.now, id).map_err(failed)?;
            self.books.check_progress(id, progress)?;
            self.engine.handle_progress(self.now, id, progress);
        }
        Ok(())
    }

    /// Tells who serves.
    fn count(&mut self) -> Result<(), String> {
        let holdings = self.holdings();
        for (group, pool) in holdings {
            let serving = self.host.census(self.now, group, pool).map_err(failed)?;
            self.books.check_census(group, pool, serving)?;
            // What a request did and has not been told yet is no news for a census.
            if self.books.is_told(&self.engine, group, pool) {
                self.engine.handle_census(self.now, group, pool, self.now, serving);
            }
        }
        Ok(())
    }

    fn holdings(&self) -> Vec<(GroupId, PoolId)> {
        let slots = self.engine.slots.iter();
        slots.flat_map(|slot| slot.holdings.iter().map(|held| (slot.id(), held.pool))).collect()
    }

    fn act(&mut self) -> Result<Fate, String> {
        while self.act_on_one()? {
            if self.dies() {
                return Ok(Fate::Dead);
            }
        }
        Ok(Fate::Alive)
    }

    fn act_on_all(&mut self) -> Result<(), String> {
        while self.act_on_one()? {}
        Ok(())
    }

    fn act_on_one(&mut self) -> Result<bool, String> {
        let Some(effect) = self.engine.poll_effect() else { return Ok(false) };
        self.host.act(self.now, &effect).map_err(failed)?;
        self.report.repeated += usize::from(self.books.act(&effect));
        Ok(true)
    }

    /// Recovers a host that starts: restores, acts again, asks about every request, counts.
    fn recover(&mut self) -> Result<(), String> {
        self.report.crashes += 1;
        self.host.crash(self.now).map_err(failed)?;
        let kept = self.host.load().map_err(failed)?;
        if self.host.lives() == Lives::WithHost {
            self.books.clear();
            self.engine = self.fresh.clone();
            return Ok(());
        }
        self.engine = match kept {
            Some(snapshot) => Engine::restore(self.fresh.config().clone(), snapshot)
                .map_err(|error| format!("the snapshot that was kept cannot be restored: {error}"))?,
            None => self.fresh.clone(),
        };
        self.act_on_all()?;
        self.books.check_known(&self.engine)
    }

    /// Checks what must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        check_ledger(&self.engine)?;
        let impossible = self.engine.counters().impossible;
        if impossible > 0 {
            return Err(format!("{impossible} facts say what cannot be"));
        }
        let pools: Vec<PoolId> = self.engine.pools().map(|pool| pool.id).collect();
        for pool in pools {
            let existing = self.host.existing(pool).map_err(failed)?;
            self.books.check_existing(pool, existing)?;
        }
        for slot in &self.engine.slots {
            let (target, policy) = (slot.state.target(), slot.group.policy());
            if target > policy.max && slot.state.by_hand().is_none() {
                return Err(format!("group {} is to have {target}, and may have {}", slot.id(), policy.max));
            }
        }
        Ok(())
    }

    /// Lets everything come to rest: then books, ledger and cloud agree to the last instance.
    fn rest(&mut self) -> Result<(), String> {
        let pause = self.engine.config().tick_ms().saturating_mul(50);
        for _ in 0..REST {
            self.now = self.now.after_millis(pause);
            self.tell(Answers::All)?;
            self.now = self.now.after_millis(1);
            self.count()?;
            self.engine.handle_timeout(self.now);
            self.host.save(&self.engine.snapshot()).map_err(failed)?;
            self.act_on_all()?;
            while let Some(event) = self.books.finish() {
                self.bring_about(event)?;
            }
            self.check()?;
        }
        self.tell(Answers::All)?;
        if let Some((id, _)) = self.engine.requests().next() {
            return Err(format!("request {id} never comes to an end"));
        }
        for pool in self.engine.pools().map(|pool| pool.id).collect::<Vec<_>>() {
            let holdings = self.engine.slots.iter().flat_map(|slot| &slot.holdings);
            let known: u32 = holdings.filter(|held| held.pool == pool).map(|held| held.ready).sum();
            let existing = self.host.existing(pool).map_err(failed)?;
            if existing != known {
                return Err(format!("at rest, {existing} instances of pool {pool} exist, and {known} are known"));
            }
        }
        Ok(())
    }
}

/// The number of turns without a new sample, and with answers to everything, that count as rest.
const REST: usize = 24;

/// Lent + free = total, and what is lent is what groups have.
fn check_ledger(engine: &Engine) -> Result<(), String> {
    for account in &engine.ledger.accounts {
        for stock in &account.stock {
            let of_shape = engine.slots.iter().filter(|slot| slot.traffic.shape == stock.shape);
            let held: u32 = of_shape
                .flat_map(|slot| &slot.holdings)
                .filter(|held| held.pool == account.pool.id)
                .map(crate::Holding::all)
                .sum();
            if held != stock.lent || stock.lent > stock.total {
                let (pool, lent, total) = (account.pool.id, stock.lent, stock.total);
                return Err(format!("pool {pool} has lent {lent} of {total}, and groups have {held}"));
            }
        }
    }
    Ok(())
}

/// `SplitMix64`: the same seed gives the same run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(bound.max(1))).unwrap_or_default()
    }

    fn index(&mut self, len: usize) -> Option<usize> {
        let bound = u32::try_from(len).ok().filter(|len| *len > 0)?;
        usize::try_from(self.below(bound)).ok()
    }

    fn pick(&mut self, of: &[u64]) -> u64 {
        self.index(of.len()).and_then(|at| of.get(at)).copied().unwrap_or_default()
    }
}

//! The loop around [`Router::route_read`]: waiting reads, what wakes them, and when they time out. No I/O.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::error::Refusal;
use crate::id::{Ask, RepoId};
use crate::read::{First, ReadRequest, ReadStep, Route};
use crate::reason::Reason;
use crate::router::Router;
use crate::time::Timestamp;
use crate::waits::WaitsFor;

/// A read under way, with its waiter.
///
/// Hand it back to [`ReadQueue::again`] if the node refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "somebody waits for this read"]
pub struct PendingRead<W> {
    /// The read.
    pub request: ReadRequest,
    /// The waiter, in the host's own terms: a channel, a connection, a number.
    pub waiter: W,
    /// The time when the read gives up.
    until: Timestamp,
}

/// An event of a [`ReadQueue`] that the host carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an order to the host"]
pub enum ReadEvent<W> {
    /// Send the read to the node.
    ///
    /// If the node's gate refuses, tell the router the report, then [`ReadQueue::again`].
    Serve(Route, PendingRead<W>),
    /// Fetch the row, tell it with [`Router::handle_row`] under this ask, then [`ReadQueue::wake`] the repository.
    FetchRow(Ask, RepoId),
    /// Tell the waiter that the read failed: no node can serve it, or its time ended ([`Reason::Deadline`]).
    Refused(Refusal, W),
}

/// A queue of reads that are routed, and routed again after each news, until a node serves them.
///
/// It holds what every host writes around [`Router::route_read`]: which read waits for what, and the timer. The host
/// puts a read in with [`ReadQueue::begin`], carries out what [`ReadQueue::poll`] says, calls [`ReadQueue::wake`] after
/// each fact that it told about a repository, and [`ReadQueue::handle_timeout`] at [`ReadQueue::next_deadline`].
///
/// ```
/// use tenon_quorum::{
///     Config, ConfigError, Generation, ReadEvent, ReadQueue, ReadRequest, Reason, RepoId, Router, StoreMeta,
///     Timestamp,
/// };
///
/// let (repo, now) = (RepoId(7), Timestamp::from_millis(1));
/// let mut router = Router::new(Config::builder().build()?);
/// let mut reads = ReadQueue::new(1_000, 5_000);
/// let request = ReadRequest::linearizable(repo, router.begin_read());
/// reads.begin(&mut router, now, request, "a waiter").expect("there is room");
/// let Some(ReadEvent::FetchRow(ask, repo)) = reads.poll() else { panic!("no row is known") };
/// router.handle_row(now, ask, &StoreMeta::new(Generation(1)), repo, None); // the store has none
/// reads.wake(&mut router, now, repo);
/// let refused = Reason::NoSuchRepository { repo }.into();
/// assert_eq!(reads.poll(), Some(ReadEvent::Refused(refused, "a waiter")));
/// # Ok::<(), ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReadQueue<W> {
    max_reads: u32,
    patience_ms: u64,
    last: u64,
    waiting: BTreeMap<u64, Waiting<W>>,
    of_repo: BTreeSet<(RepoId, u64)>,
    timers: BTreeSet<(Timestamp, u64)>,
    events: VecDeque<ReadEvent<W>>,
}

#[derive(Clone, Debug)]
struct Waiting<W> {
    read: PendingRead<W>,
    due: Timestamp,
}

impl<W> ReadQueue<W> {
    /// A queue of at most `max_reads` waiting reads, each of which times out after `patience_ms` milliseconds.
    #[must_use]
    pub const fn new(max_reads: u32, patience_ms: u64) -> Self {
        Self {
            max_reads,
            patience_ms,
            last: 0,
            waiting: BTreeMap::new(),
            of_repo: BTreeSet::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Routes a read, now or as soon as enough is known. Poll the result.
    ///
    /// ```
    /// use tenon_quorum::{Config, ReadEvent, ReadQueue, ReadRequest, RepoId, Router, Timestamp};
    ///
    /// let (now, mut queue) = (Timestamp::from_millis(1), ReadQueue::new(1_000, 5_000));
    /// let mut router = Router::new(Config::builder().build()?);
    /// let read = ReadRequest::linearizable(RepoId(7), router.begin_read());
    /// queue.begin(&mut router, now, read, "caller 1")?;
    /// assert!(matches!(queue.poll(), Some(ReadEvent::FetchRow(_, RepoId(7)))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The waiter, with nothing changed: the queue is full.
    pub fn begin(&mut self, router: &mut Router, now: Timestamp, request: ReadRequest, waiter: W) -> Result<(), W> {
        if self.waiting.len() >= self.max_reads as usize {
            return Err(waiter);
        }
        let until = now.after_millis(self.patience_ms);
        self.step(router, now, PendingRead { request, waiter, until });
        Ok(())
    }

    /// Routes a read again that its node did not serve. The timeout runs on from the beginning of the read.
    pub fn again(&mut self, router: &mut Router, now: Timestamp, read: PendingRead<W>) {
        if now >= read.until {
            self.give_up(read);
        } else {
            self.step(router, now, read);
        }
    }

    /// Routes the waiting reads of a repository again, after the router was told something about it.
    pub fn wake(&mut self, router: &mut Router, now: Timestamp, repo: RepoId) {
        let ids: Vec<u64> = self.of_repo.range((repo, 0)..=(repo, u64::MAX)).map(|(_, id)| *id).collect();
        for id in ids {
            if let Some(read) = self.take(id) {
                self.again(router, now, read);
            }
        }
    }

    /// Advances the clock to `now`: refuses reads that timed out, and routes those again that waited long enough.
    pub fn handle_timeout(&mut self, router: &mut Router, now: Timestamp) {
        let due: Vec<u64> = self.timers.range(..=(now, u64::MAX)).map(|(_, id)| *id).collect();
        for id in due {
            if let Some(read) = self.take(id) {
                self.again(router, now, read);
            }
        }
    }

    /// The latest time to call [`ReadQueue::handle_timeout`]; `None` while no read waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The next event, oldest first.
    pub fn poll(&mut self) -> Option<ReadEvent<W>> {
        self.events.pop_front()
    }

    /// The number of waiting reads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no read waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn step(&mut self, router: &mut Router, now: Timestamp, read: PendingRead<W>) {
        let again = now.after_millis(router.config().retry_ms);
        match router.route_read(now, &read.request) {
            Ok(ReadStep::Serve(route)) => self.events.push_back(ReadEvent::Serve(route, read)),
            Err(refusal) => self.events.push_back(ReadEvent::Refused(refusal, read.waiter)),
            Ok(ReadStep::First(First::Wait { until })) => self.park(read, until.max(now.after_millis(1))),
            // The answer may be lost: after a while the row is asked for once more.
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                self.events.push_back(ReadEvent::FetchRow(ask, read.request.repo));
                self.park(read, again);
            }
        }
    }

    fn park(&mut self, read: PendingRead<W>, due: Timestamp) {
        self.last = self.last.saturating_add(1);
        let (id, due) = (self.last, due.min(read.until));
        self.of_repo.insert((read.request.repo, id));
        self.timers.insert((due, id));
        self.waiting.insert(id, Waiting { read, due });
    }

    fn take(&mut self, id: u64) -> Option<PendingRead<W>> {
        let Waiting { read, due } = self.waiting.remove(&id)?;
        self.of_repo.remove(&(read.request.repo, id));
        self.timers.remove(&(due, id));
        Some(read)
    }

    fn give_up(&mut self, read: PendingRead<W>) {
        let reason = Reason::Deadline { waits_for: WaitsFor::Row };
        self.events.push_back(ReadEvent::Refused(reason.into(), read.waiter));
    }
}

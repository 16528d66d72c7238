//! Deadlines: by themselves, and through the engine.

use std::hint::black_box;
use std::time::Instant;

use tenon_jobqueue::{JobId, JobSpec, NewJob, Start};

use super::{Host, POOLS, TAGS, tag};
use crate::{Bound, Row, Scale, median_ns};

/// The engine's own, which its face does not show.
#[path = "../../../jobqueue/src/timer.rs"]
mod timer;

use timer::Timers;

const HOUR: u64 = 3_600_000;

/// Every figure of deadlines.
pub(super) fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = vec![set_and_cleared(scale), jump_alone(scale)];
    rows.extend(jump(scale));
    rows
}

/// Some time of an hour, for each number another.
const fn within(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % HOUR
}

fn place(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One more is set and some other is cleared, while many are set.
fn set_and_cleared(scale: Scale) -> Row {
    let many = scale.pick(10_000_000, 1_000_000) as u64;
    let pairs = scale.pick(200_000, 20_000) as u64;
    let (mut timers, mut next) = (Timers::default(), many);
    let mut set: Vec<_> = (0..many).map(|number| timers.arm(within(number), number, place(number))).collect();
    let mut at = 0;
    let ns = median_ns(9, || {
        for _ in 0..pairs {
            next += 1;
            let alarm = timers.arm(within(next), next, place(next));
            // The one that was set first: when it is due has nothing to do with that.
            timers.disarm(std::mem::replace(&mut set[at], alarm));
            at = (at + 1) % set.len();
        }
        usize::try_from(pairs).unwrap_or(0)
    });
    black_box(timers.first());
    Row::new("a deadline set and another cleared", ns, "ns", Bound::AtMost(50.0))
        .note(format!("{many} are set, at random within an hour"))
}

/// A million at once: each comes out once, and before the next.
fn jump_alone(scale: Scale) -> Row {
    let many = scale.pick(1_000_000, 100_000) as u64;
    let mut timers = Timers::default();
    for number in 0..many {
        timers.arm(within(number), number, place(number));
    }
    let start = Instant::now();
    let fired: Vec<u32> = std::iter::from_fn(|| timers.pop(HOUR)).collect();
    let ns = start.elapsed().as_secs_f64() * 1e9 / f64::from(place(many));
    let due = |number: &u32| (within(u64::from(*number)), *number);
    assert!(fired.len() as u64 == many && fired.is_sorted_by_key(due), "each once, in order");
    Row::new("a jump of an hour, each deadline", ns, "ns", Bound::None).note(format!("{many}, each once and in order"))
}

fn jump(scale: Scale) -> Vec<Row> {
    let count = scale.pick(1_000_000, 100_000);
    let mut host = Host::new(POOLS, TAGS);
    for number in 0..count as u64 {
        let start = Start::After(u32::try_from(1 + number * 7_919 % 3_600_000).unwrap_or(1));
        let spec = JobSpec { start, ..JobSpec::default() };
        host.submit_all(number, &[NewJob { id: JobId::new(number), spec, tag: Some(tag(number)) }]);
    }
    host.now = host.now.after_millis(3_600_001);
    let start = Instant::now();
    while host.engine.next_deadline().is_some_and(|due| due <= host.now) {
        host.engine.handle_timeout(host.now);
        host.settle();
    }
    let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(count).unwrap_or(1));
    let waiting: u32 = host.engine.queues().map(|queue| queue.depth).sum();
    let once = f64::from(waiting) / f64::from(u32::try_from(count).unwrap_or(1));
    vec![
        Row::new("deadlines that fired in a jump of an hour", once, "of all", Bound::AtLeast(1.0)),
        Row::new("each of them, written and queued", each, "ns", Bound::None),
    ]
}

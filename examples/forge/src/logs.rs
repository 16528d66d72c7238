//! Log lines: of one kind, so many a minute and no more, so that one fault does not bury the others.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How many warnings or errors of one kind (from one place in the code) are written in a [`WINDOW`].
const MOST: u32 = 20;
/// After so long a kind may write again.
const WINDOW: Duration = Duration::from_mins(1);

/// Writes lines as `inner` does, and warnings and errors sparingly; the first line after a silence says how many there
/// were.
#[derive(Debug)]
pub(crate) struct Sparing<F> {
    inner: F,
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

#[derive(Debug)]
struct Kind {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Kind {
    /// How many lines were left out before this one; `None` if it is left out, too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.written) = (now, 0);
        }
        if self.written >= MOST {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl<F> Sparing<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { inner, kinds: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Sparing<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if *event.metadata().level() > Level::WARN {
            return self.inner.format_event(context, writer, event);
        }
        let now = Instant::now();
        let kind = event.metadata().callsite();
        let admitted = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.entry(kind).or_insert(Kind { since: now, written: 0, left_out: 0 }).admit(now)
        };
        match admitted {
            None => Ok(()),
            Some(0) => self.inner.format_event(context, writer, event),
            Some(left_out) => {
                writeln!(writer, "({left_out} lines like the next were left out)")?;
                self.inner.format_event(context, writer, event)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_silent_after_so_many_and_says_how_many_there_were() {
        let start = Instant::now();
        let mut kind = Kind { since: start, written: 0, left_out: 0 };
        let said: Vec<_> = (0..100).filter_map(|_| kind.admit(start)).collect();
        assert_eq!(said, [0; MOST as usize]);
        assert_eq!(kind.admit(start + WINDOW), Some(100 - u64::from(MOST)));
        assert_eq!(kind.admit(start + WINDOW), Some(0));
    }
}

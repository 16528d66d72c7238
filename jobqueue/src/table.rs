//! The transition table: which event moves a job from which state to which, as data.
//!
//! [`transition`](crate::transition) reads this table first and can never leave it; the page of the crate and its
//! diagram are printed from it.

use core::fmt::Write as _;

use alloc::string::String;

use crate::event::EventKind;
use crate::job::State;

/// The rule by which a cell of the table refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The state is terminal.
    Terminal,
    /// No worker holds a job in this state.
    StaleLease,
    /// The event means nothing in this state.
    WrongState,
    /// The state has no deadline.
    NotDue,
    /// A new attempt only follows an ended one.
    StillOpen,
}

/// The effect of an event in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// The job moves to one of these states. The state itself among them is a change of the row only, or none.
    To(&'static [State]),
    /// The row stays as it is, and a new row for the next attempt is made.
    New,
    /// The event is refused.
    No(Rule),
}

/// The effect of `event` on a job in `state`.
///
/// ```
/// use tenon_jobqueue::table::{Cell, Rule, cell};
/// use tenon_jobqueue::{EventKind, State};
///
/// assert_eq!(cell(State::Pending, EventKind::Deliver), Cell::To(&[State::Scheduled]));
/// assert_eq!(cell(State::Succeeded, EventKind::Deliver), Cell::No(Rule::Terminal));
/// ```
#[must_use]
pub const fn cell(state: State, event: EventKind) -> Cell {
    CELLS[state as usize][event as usize]
}

/// The table, worked out when the crate is compiled.
const CELLS: &[[Cell; EventKind::ALL.len()]; State::ALL.len()] = &{
    let mut cells = [[Cell::New; EventKind::ALL.len()]; State::ALL.len()];
    let mut state = 0;
    while state < State::ALL.len() {
        let mut event = 0;
        while event < EventKind::ALL.len() {
            cells[state][event] = rule(State::ALL[state], EventKind::ALL[event]);
            event += 1;
        }
        state += 1;
    }
    cells
};

#[allow(clippy::match_same_arms, reason = "a table reads by its subject, not by equal results")]
const fn rule(state: State, event: EventKind) -> Cell {
    use EventKind as E;
    use State as S;
    match (state, event) {
        // An ended job may be revived where that can make sense; nothing else reaches it.
        (S::Failed | S::Aborted | S::TimedOut | S::Skipped | S::Dead, E::Retry) => Cell::New,
        (S::Succeeded | S::Failed | S::Aborted | S::TimedOut | S::Skipped | S::Reused | S::Superseded | S::Dead, _) => {
            Cell::No(Rule::Terminal)
        }
        (_, E::Retry) => Cell::No(Rule::StillOpen),

        // A dead worker has what it holds taken back.
        (S::Scheduled, E::Gone) => Cell::To(&[S::Pending, S::Dead]),
        (S::Running, E::Gone) => Cell::To(&[S::Failed, S::Dead]),
        (S::Aborting, E::Gone) => Cell::To(&[S::Aborted, S::TimedOut]),
        (_, E::Gone) => Cell::No(Rule::StaleLease),

        // Before running, an abort is an end.
        (S::Unstart | S::Pending | S::Scheduled | S::Suspended | S::Delayed, E::Abort) => Cell::To(&[S::Aborted]),
        (S::Running | S::Polling | S::Aborting, E::Abort) => Cell::To(&[S::Aborting]),
        (S::Unstart | S::Pending | S::Suspended | S::Delayed, E::Supersede) => Cell::To(&[S::Superseded]),

        // Decisions.
        (S::Unstart | S::Suspended | S::Delayed, E::Enqueue) => Cell::To(&[S::Pending]),
        (S::Unstart, E::Delay) => Cell::To(&[S::Delayed]),
        (S::Unstart, E::Await) => Cell::To(&[S::Suspended]),
        (S::Unstart | S::Suspended, E::Skip) => Cell::To(&[S::Skipped]),
        (S::Unstart, E::Reuse) => Cell::To(&[S::Reused]),

        // Deliveries, and what their workers say.
        (S::Pending, E::Deliver) => Cell::To(&[S::Scheduled]),
        (S::Scheduled | S::Running, E::Ack) => Cell::To(&[S::Running]),
        (S::Aborting, E::Ack | E::Heartbeat) => Cell::To(&[S::Aborting]),
        (S::Scheduled | S::Running, E::Nack) => Cell::To(&[S::Delayed, S::Dead]),
        (S::Aborting, E::Nack | E::Report | E::Expire) => Cell::To(&[S::Aborted, S::TimedOut]),
        (S::Running, E::Heartbeat | E::Pause | E::Resume) => Cell::To(&[S::Running]),
        (S::Scheduled | S::Running, E::Snooze) => Cell::To(&[S::Delayed]),
        (S::Scheduled | S::Running, E::Suspend) => Cell::To(&[S::Suspended]),
        (S::Scheduled | S::Running | S::Polling, E::Poll) => Cell::To(&[S::Polling]),
        (S::Scheduled | S::Running | S::Polling, E::Report) => Cell::To(&[S::Succeeded, S::Failed]),

        // Answers from elsewhere.
        (S::Suspended, E::Callback | E::Approve) => Cell::To(&[S::Pending]),

        // Deadlines.
        (S::Scheduled, E::Expire) => Cell::To(&[S::Pending, S::Dead]),
        (S::Delayed, E::Expire) => Cell::To(&[S::Pending, S::TimedOut]),
        (S::Pending, E::Expire) => Cell::To(&[S::Failed, S::Skipped, S::TimedOut]),
        (S::Running, E::Expire) => Cell::To(&[S::Failed, S::Dead, S::Aborting]),
        (S::Suspended, E::Expire) => Cell::To(&[S::Pending, S::TimedOut]),
        (S::Polling, E::Expire) => Cell::To(&[S::Polling, S::TimedOut]),
        (S::Unstart, E::Expire) => Cell::No(Rule::NotDue),

        (
            S::Unstart | S::Pending | S::Delayed | S::Suspended,
            E::Ack
            | E::Nack
            | E::Heartbeat
            | E::Pause
            | E::Resume
            | E::Snooze
            | E::Suspend
            | E::Poll
            | E::Report
            | E::Callback,
        ) => Cell::No(Rule::StaleLease),
        _ => Cell::No(Rule::WrongState),
    }
}

/// The table as GitHub-flavoured Markdown: one line a move, refusals left out.
///
/// ```
/// assert!(tenon_jobqueue::table::markdown().starts_with('|'));
/// ```
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| from | event | to |\n|---|---|---|\n");
    for state in State::ALL {
        for event in EventKind::ALL {
            let line = match cell(state, event) {
                Cell::To(to) => join(to),
                Cell::New => String::from("a new attempt"),
                Cell::No(_) => continue,
            };
            let _ = writeln!(out, "| {state:?} | {event:?} | {line} |");
        }
    }
    out
}

/// The table as a Graphviz graph; moves within a state are left out.
#[must_use]
pub fn graphviz() -> String {
    let mut out = String::from("digraph job {\n  rankdir=LR;\n");
    for from in State::ALL {
        for to in State::ALL {
            let mut label = String::new();
            for event in EventKind::ALL {
                let moves = matches!(cell(from, event), Cell::To(states) if states.contains(&to));
                if moves && from != to {
                    let comma = if label.is_empty() { "" } else { ", " };
                    let _ = write!(label, "{comma}{event:?}");
                }
            }
            if !label.is_empty() {
                let _ = writeln!(out, "  {from:?} -> {to:?} [label=\"{label}\"];");
            }
        }
    }
    out.push_str("}\n");
    out
}

fn join(states: &[State]) -> String {
    let mut out = String::new();
    for state in states {
        let comma = if out.is_empty() { "" } else { ", " };
        let _ = write!(out, "{comma}{state:?}");
    }
    out
}

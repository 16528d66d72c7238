//! The thread that keeps rows: it takes what has gathered, makes all writes with one sync, and tells what became of each.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use tenon_jobqueue::{AskId, Change, Ticket, Want};

use super::Centre;
use crate::ci::store::{CiStore, Write, Written};

/// The most that is done with one sync.
const MOST: usize = 256;

/// Something for the thread.
#[derive(Debug)]
pub(super) enum Task {
    Persist(Ticket, Box<Write>),
    /// Rows, and the changes of the write that it asks about.
    Fetch(AskId, Want, Vec<Change>),
}

/// Starts the thread; it ends when nobody can hand it anything any more.
pub(super) fn start(centre: Weak<Centre>, store: Arc<CiStore>, tasks: Receiver<Task>) -> std::io::Result<()> {
    std::thread::Builder::new().name("ci-rows".into()).spawn(move || {
        let mut failures = 0;
        while let Ok(first) = tasks.recv() {
            let gathered: Vec<Task> = std::iter::once(first).chain(tasks.try_iter().take(MOST)).collect();
            let Some(centre) = centre.upgrade() else { return };
            work(&centre, &store, gathered, &mut failures);
        }
    })?;
    Ok(())
}

fn work(centre: &Centre, store: &CiStore, tasks: Vec<Task>, failures: &mut u32) {
    let (mut tickets, mut writes, mut fetches) = (Vec::new(), Vec::new(), Vec::new());
    for task in tasks {
        match task {
            Task::Persist(ticket, write) => {
                tickets.push(ticket);
                writes.push(*write);
            }
            Task::Fetch(ask, want, written) => fetches.push((ask, want, written)),
        }
    }
    if !tickets.is_empty() {
        let told = store.write(&writes);
        if told.is_ok() {
            *failures = 0;
        } else {
            // A full disk fails at once, and would be asked again at once.
            std::thread::sleep(crate::router::pause_after(*failures));
            *failures += 1;
        }
        centre.tell(|core, now| match told {
            Ok(all) => {
                for (ticket, written) in tickets.into_iter().zip(all) {
                    match written {
                        Written::Committed => core.engine.handle_committed(now, ticket),
                        Written::Conflicted(fresh) => core.engine.handle_conflicted(now, ticket, &fresh),
                    }
                }
            }
            Err(e) => {
                tracing::warn!("whether {} writes were made is not known: {e}", tickets.len());
                for ticket in tickets {
                    core.engine.handle_unknown(now, ticket);
                }
            }
        });
    }
    for (ask, want, written) in fetches {
        match store.fetch(want, &written) {
            Ok(rows) => {
                *failures = 0;
                centre.tell(|core, now| core.engine.handle_rows(now, ask, &rows));
            }
            Err(e) => {
                // The question stays open, and is put again.
                tracing::warn!("rows cannot be read: {e}");
                std::thread::sleep(crate::router::pause_after(*failures));
                *failures += 1;
                centre.view(|core| core.hand(Task::Fetch(ask, want, written)));
            }
        }
    }
}

//! What two engines, a database and workers say to each other.

use tenon_jobqueue::{Act, Answer, AskId, Assignment, Change, LeaseToken, Row, Ticket, Want, Worker};

/// What is under way. Words for a centre find whoever runs there now; what belongs to a life ends with it, except that
/// the database may still make a write whose author is dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Write { life: u64, ticket: Ticket, changes: Vec<Change> },
    Written { life: u64, ticket: Ticket, conflict: Option<Vec<Row>> },
    Read { life: u64, ask: AskId, want: Want },
    Rows { life: u64, ask: AskId, rows: Vec<Row> },
    Assign { centre: usize, assignment: Assignment },
    Word { centre: usize, worker: Worker, token: LeaseToken, act: Act },
    Reply { centre: usize, worker: Worker, token: LeaseToken, act: Act, answer: Answer },
}

impl Message {
    /// In one line.
    pub fn told(&self) -> String {
        let rows = |rows: &mut dyn Iterator<Item = &Row>| {
            let one = |row: &Row| match row {
                Row::Job(job) => format!("job {} v{} {:?}", job.id(), job.version, job.state),
                Row::Pipeline(row) => format!("pipeline v{}", row.version),
                Row::Key(row) => format!("key v{} {:?}", row.version, row.holder.map(|key| key.job)),
                other => format!("{:?} v{}", other.key(), other.version()),
            };
            rows.map(one).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Write { life, ticket, changes } => {
                format!("{life} writes {ticket}: {}", rows(&mut changes.iter().map(|change| &change.row)))
            }
            Self::Written { life, ticket, conflict: None } => format!("{life} hears that {ticket} is made"),
            Self::Written { life, ticket, conflict: Some(fresh) } => {
                format!("{life} hears that {ticket} is not made: {}", rows(&mut fresh.iter()))
            }
            Self::Read { life, want, .. } => format!("{life} reads {want:?}"),
            Self::Rows { life, rows: read, .. } => format!("{life} hears of {}", rows(&mut read.iter())),
            Self::Assign { centre, assignment } => {
                format!("worker {} hears from {centre} of job {}", assignment.worker.name, assignment.token.key.job)
            }
            Self::Word { centre, worker, token, act } => {
                format!("{centre} hears {act:?} of job {} from worker {}", token.key.job, worker.name)
            }
            Self::Reply { worker, token, act, answer, .. } => {
                format!("worker {} hears {answer:?} to {act:?} of job {}", worker.name, token.key.job)
            }
        }
    }
}

//! Orders to a node as plain data, and what a node does for each: the glue between a transport and a gate, without I/O.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::error::GateRefusal;
use crate::fence::{Admission, FenceGate, Report, StageOrder};
use crate::id::{Boot, Generation, NodeId, RepoId};
use crate::read::Route;
use crate::row::Row;

/// What a node is asked to do. It may come late, or twice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Order {
    /// Say how the gate stands.
    Probe(RepoId),
    /// Raise the gate to the row, and apply the vote that it proves.
    Raise(Row),
    /// Raise the gate to the order's row and apply what it proves; then keep the content and the vote. A host whose
    /// content travels beside the order leaves it empty here.
    Stage(StageOrder, Vec<u8>),
    /// Start the repository empty (no content at all).
    Initialise(Row),
    /// Copy exactly what the row shows, applied state only, from another node. A copy that cannot be made is refused,
    /// with what is held as it was, or lost ([`FenceGate::lost`]).
    Copy(Row, NodeId),
    /// Serve the content, if the gate admits it; a vote that the route proves is applied first.
    Read(Route),
    /// Promise the gate to a life of the store. A node that holds nothing promises with a new gate.
    Promise(RepoId, Generation),
    /// Cure the gate ([`FenceGate::cure`]) with this row, boot and serial.
    Cure(Row, Boot, u64),
    /// Throw the content away, if the row does not name the node: the gate comes first ([`FenceGate::discard`]). A host that
    /// never throws anything away refuses.
    Discard(Row),
}

impl Order {
    /// Which repository it concerns.
    #[must_use]
    pub const fn repo(&self) -> RepoId {
        match self {
            Self::Probe(repo) | Self::Promise(repo, _) => *repo,
            Self::Raise(row)
            | Self::Initialise(row)
            | Self::Copy(row, _)
            | Self::Cure(row, ..)
            | Self::Discard(row) => row.repo,
            Self::Stage(order, _) => order.base.repo,
            Self::Read(route) => route.proof.repo,
        }
    }
}

/// What a node says to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reply {
    /// How its gate for the order's repository stands now: as it is on disk.
    pub report: Report,
    /// What came of the order.
    pub done: Done,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Done {
    /// It is done, and durable.
    Yes,
    /// The gate refused, or it was meant for another life of the disk.
    Refused,
    /// A read's content.
    Content(Vec<u8>),
    /// The gate that promised, whole: as it is on disk.
    Promised(Box<FenceGate>),
}

/// One step of an order: persist `gate`, then do `act`; then [`FenceGate::obeyed`] says the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "persist the gate, then do what is asked"]
pub struct Duty {
    /// The gate to persist before anything else; it may be the one that is persisted already.
    pub gate: FenceGate,
    /// What to do once it is.
    pub act: Act,
}

/// What a node does between two persists of its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// The order is done: reply, with the report of the gate.
    Reply,
    /// Make the staged write what readers see.
    ShowStaged,
    /// Make the content of the order durable, invisible to readers.
    KeepStaged,
    /// Start the repository empty, durably.
    Empty,
    /// Copy the state that the order's row shows from this node, durably. If that cannot be done, end here: the order
    /// is refused, and a node that is half way from one state to the other keeps [`FenceGate::lost`].
    Copy(NodeId),
    /// Serve the read.
    Serve,
    /// Throw the content away.
    Discard,
}

/// Obeying orders.
impl FenceGate {
    /// The first step of an order that is meant for this gate. In one transaction with the content, or gate first:
    ///
    /// ```
    /// # use tenon_quorum::*;
    /// # fn persist(_: &FenceGate) {}
    /// # fn content(_: &Order, _: Act) {}
    /// fn handle(mut gate: FenceGate, order: &Order) -> Result<FenceGate, GateRefusal> {
    ///     let mut duty = gate.obey(order)?;
    ///     loop {
    ///         gate = duty.gate;
    ///         persist(&gate); // yours: durable once it returns
    ///         if duty.act == Act::Reply {
    ///             return Ok(gate); // reply with its report
    ///         }
    ///         content(order, duty.act); // yours: what the act says, durable once it returns
    ///         duty = gate.obeyed(order, duty.act)?;
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was: the order is refused. Send its report with the refusal.
    pub fn obey(&self, order: &Order) -> Result<Duty, GateRefusal> {
        let reply = |gate: Self| Ok(Duty { gate, act: Act::Reply });
        match order {
            Order::Probe(repo) if *repo == self.report().repo => reply(self.clone()),
            Order::Probe(_) => Err(GateRefusal::OtherRepository { mine: self.report().repo }),
            Order::Raise(row) => {
                let gate = self.raise(row)?;
                let act = if gate.proves_staged(&row.proof()) { Act::ShowStaged } else { Act::Reply };
                Ok(Duty { gate, act })
            }
            Order::Stage(order, _) => {
                let raised = self.raise(&order.base)?;
                if raised.proves_staged(&order.base.proof()) {
                    return Ok(Duty { gate: raised, act: Act::ShowStaged });
                }
                // Raising and voting is one persist: the gate changes once the content is there.
                let _vote = raised.stage(order)?;
                Ok(Duty { gate: self.clone(), act: Act::KeepStaged })
            }
            Order::Initialise(row) => self.take_over(row, Act::Empty),
            Order::Copy(row, source) => self.take_over(row, Act::Copy(*source)),
            Order::Read(route) => {
                let act = match self.admit_read(route)? {
                    Admission::Serve => Act::Serve,
                    Admission::ApplyFirst => Act::ShowStaged,
                };
                Ok(Duty { gate: self.clone(), act })
            }
            Order::Promise(_, generation) => reply(self.promise(*generation)?),
            Order::Cure(row, boot, serial) => reply(self.cure(row, *boot, *serial)?),
            Order::Discard(row) => Ok(Duty { gate: self.discard(row)?, act: Act::Discard }),
        }
    }

    /// The step after `act`, which is done and durable; [`Act::Reply`] ends the order.
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was: it moved on since the step before, and the order is refused.
    pub fn obeyed(&self, order: &Order, act: Act) -> Result<Duty, GateRefusal> {
        let (gate, act) = match (order, act) {
            (Order::Raise(row), Act::ShowStaged) => (self.apply(&row.proof())?, Act::Reply),
            (Order::Stage(order, _), Act::ShowStaged) => {
                let applied = self.apply(&order.base.proof())?;
                let _vote = applied.stage(order)?;
                (applied, Act::KeepStaged)
            }
            (Order::Stage(order, _), Act::KeepStaged) => (self.stage(order)?, Act::Reply),
            (Order::Initialise(row) | Order::Copy(row, _), Act::Empty | Act::Copy(_)) => {
                (self.install(&row.proof())?, Act::Reply)
            }
            (Order::Read(route), Act::ShowStaged) => (self.apply(&route.proof)?, Act::Serve),
            _ => (self.clone(), Act::Reply),
        };
        Ok(Duty { gate, act })
    }

    /// The gate is raised and persisted before the copy begins. One may come in after the fence rose again.
    fn take_over(&self, row: &Row, act: Act) -> Result<Duty, GateRefusal> {
        let gate = self.raise(row).unwrap_or_else(|_| self.clone());
        let there = gate.install(&row.proof())?.applied() == gate.applied();
        Ok(Duty { gate, act: if there { Act::Reply } else { act } })
    }
}

//! Orders to a node as plain data, and the steps that each takes: the glue between a transport and a gate, without I/O.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::error::GateRefusal;
use crate::fence::{Admission, FenceGate, Report, StageOrder};
use crate::id::{Boot, Generation, NodeId, RepoId};
use crate::read::Route;
use crate::row::Row;

/// An order to a node. It may arrive late, or twice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Order {
    /// Report the gate.
    Probe(RepoId),
    /// Raise the gate to the row, and apply the vote that the row proves.
    Raise(Row),
    /// Raise the gate to the order's row and apply what the row proves; then keep the content and the vote.
    ///
    /// A host whose content travels beside the order leaves the content empty here.
    Stage(StageOrder, Vec<u8>),
    /// Start the repository empty, without content.
    Initialise(Row),
    /// Copy exactly the applied state that the row shows from another node.
    ///
    /// A copy that cannot be made is refused, with the data as it was, or lost ([`FenceGate::lost`]).
    Copy(Row, NodeId),
    /// Serve the content, if the gate admits the read. A vote that the route proves is applied first.
    Read(Route),
    /// Promise the gate to a life of the store. A node that holds nothing promises with a new gate.
    Promise(RepoId, Generation),
    /// Cure the gate ([`FenceGate::cure`]) with this row, boot and serial.
    Cure(Row, Boot, u64),
    /// Discard the content, if the row does not name the node.
    ///
    /// The gate comes first ([`FenceGate::discard`]). A host that never discards anything refuses.
    Discard(Row),
}

impl Order {
    /// The repository that the order is about.
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

/// A node's reply to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reply {
    /// The report of the gate of the order's repository, as it is on disk now.
    pub report: Report,
    /// The result of the order.
    pub done: Done,
}

/// The result of an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Done {
    /// Done, and durable.
    Yes,
    /// Refused: the gate refused, or the order was meant for another life of the disk.
    Refused,
    /// The content that was read.
    Content(Vec<u8>),
    /// The gate that promised, whole, as it is on disk.
    Promised(Box<FenceGate>),
}

/// One step of an order: persist `gate`, then do `act`.
///
/// [`FenceGate::obeyed`] then says the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "persist the gate, then do what is asked"]
pub struct Duty {
    /// The gate to persist first. It may be the one that is persisted already.
    pub gate: FenceGate,
    /// The act to do once the gate is persisted.
    pub act: Act,
}

/// The act of a node between two persists of its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Reply with the report of the gate: the order is done.
    Reply,
    /// Make the staged write visible to readers.
    ShowStaged,
    /// Make the content of the order durable, but invisible to readers.
    KeepStaged,
    /// Make the empty state of the repository durable.
    Empty,
    /// Copy the state that the order's row shows from this node, and make the copy durable.
    ///
    /// If that cannot be done, end here: the order is refused, and a node that is half way from one state to the other
    /// keeps [`FenceGate::lost`].
    Copy(NodeId),
    /// Serve the read.
    Serve,
    /// Discard the content.
    Discard,
}

/// The steps of an order.
impl FenceGate {
    /// The first step of an order that is meant for this gate.
    ///
    /// In one transaction with the content, or gate first:
    ///
    /// ```
    /// # use tenon_quorum::{Act, FenceGate, GateRefusal, Order};
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

    /// The step after `act`, which is done and durable. [`Act::Reply`] ends the order.
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

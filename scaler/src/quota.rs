//! Quotas along the service tree: the maximum that a tenant may have, itself and under each of its parents.
//!
//! A quota is logical: the sum of all may be more than there is, and pools say what there is.

use alloc::vec::Vec;

use crate::error::Refused;
use crate::id::TenantId;

/// The quota of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Quota {
    /// The tenant.
    pub tenant: TenantId,
    /// The parent node in the service tree. The tenant's instances count there, too.
    pub parent: Option<TenantId>,
    /// Maximum number of instances, with everything below it in the tree.
    pub limit: u32,
}

/// A quota with its present use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QuotaUse {
    /// The quota.
    pub quota: Quota,
    /// The number of instances that count against it.
    pub used: u32,
}

/// How deep a service tree may be.
const MAX_DEPTH: usize = 16;

/// The tree: a tenant without a quota has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Quotas {
    /// In the order of their tenants.
    pub(crate) nodes: Vec<QuotaUse>,
}

impl Quotas {
    pub(crate) fn get(&self, tenant: TenantId) -> Option<&QuotaUse> {
        self.nodes.binary_search_by_key(&tenant, |node| node.quota.tenant).ok().map(|at| &self.nodes[at])
    }

    /// Adds a node or changes one; `used` is what counts against it now, for the tenant alone.
    ///
    /// # Errors
    /// [`Refused::QuotaCycle`] where the node would be its own ancestor or stand too deep, [`Refused::Full`]; nothing has
    /// changed.
    pub(crate) fn put(&mut self, quota: Quota, limit: usize) -> Result<(), Refused> {
        let mut above = quota.parent;
        for _ in 0..MAX_DEPTH {
            let Some(parent) = above else {
                let node = QuotaUse { quota, used: 0 };
                match self.nodes.binary_search_by_key(&quota.tenant, |node| node.quota.tenant) {
                    Ok(at) => self.nodes[at].quota = quota,
                    Err(_) if self.nodes.len() >= limit => return Err(Refused::Full(limit)),
                    Err(at) => self.nodes.insert(at, node),
                }
                return Ok(());
            };
            if parent == quota.tenant {
                break;
            }
            above = self.get(parent).and_then(|node| node.quota.parent);
        }
        Err(Refused::QuotaCycle(quota.tenant))
    }

    fn path(&self, tenant: TenantId) -> impl Iterator<Item = usize> {
        let mut next = Some(tenant);
        core::iter::from_fn(move || {
            let tenant = next?;
            let at = self.nodes.binary_search_by_key(&tenant, |node| node.quota.tenant).ok();
            next = at.and_then(|at| self.nodes[at].quota.parent);
            // A parent that has no quota of its own ends the path.
            at
        })
        .take(MAX_DEPTH + 1)
    }

    /// Whether `above` stands over `tenant`.
    pub(crate) fn is_under(&self, tenant: TenantId, above: TenantId) -> bool {
        self.path(tenant).any(|at| self.nodes[at].quota.tenant == above || self.nodes[at].quota.parent == Some(above))
    }

    /// How many more instances the tenant may have, and whose quota says so.
    pub(crate) fn room(&self, tenant: TenantId) -> (u32, Option<TenantId>) {
        let mut least = (u32::MAX, None);
        for at in self.path(tenant) {
            let QuotaUse { quota, used } = self.nodes[at];
            let room = quota.limit.saturating_sub(used);
            if room < least.0 {
                least = (room, Some(quota.tenant));
            }
        }
        least
    }

    pub(crate) fn take(&mut self, tenant: TenantId, count: u32) {
        for at in self.path(tenant).collect::<smallvec::SmallVec<[usize; 4]>>() {
            self.nodes[at].used = self.nodes[at].used.saturating_add(count);
        }
    }

    /// Counts anew: `groups` are the tenants that have instances, and how many.
    pub(crate) fn recount(&mut self, groups: impl Iterator<Item = (TenantId, u32)>) {
        for node in &mut self.nodes {
            node.used = 0;
        }
        for (tenant, count) in groups {
            self.take(tenant, count);
        }
    }

    pub(crate) fn give_back(&mut self, tenant: TenantId, count: u32) {
        for at in self.path(tenant).collect::<smallvec::SmallVec<[usize; 4]>>() {
            self.nodes[at].used = self.nodes[at].used.saturating_sub(count);
        }
    }

    /// Whether the tree is in order and without cycles.
    pub(crate) fn is_sound(&self) -> bool {
        self.nodes.windows(2).all(|two| two[0].quota.tenant < two[1].quota.tenant)
            && self.nodes.iter().all(|node| {
                let path: Vec<usize> = self.path(node.quota.tenant).collect();
                path.len() <= MAX_DEPTH
            })
    }
}

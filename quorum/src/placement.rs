//! Placement: which losses a shard survives, and which shard takes a new repository. Pure.

use alloc::vec::Vec;

use crate::id::{DomainId, RepoId, ShardId};
use crate::quorum::Quorum;
use crate::rng::mix;

/// The single losses that an operation survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Survives {
    /// The loss of any one node.
    pub a_node: bool,
    /// The loss of any one failure domain.
    pub a_domain: bool,
}

/// The losses that a shard survives, per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Survival {
    /// Survival of linearizable reads.
    pub reads: Survives,
    /// Survival of writes.
    pub writes: Survives,
}

/// The losses that N voters in these failure domains survive; `domains` has one entry per voter.
///
/// A write needs W voters. A linearizable read needs one voter that holds the newest state: the newest state is on W of
/// them, so a read is safe from the loss of any W − 1. Two domains cannot survive, for writes, the one with more
/// than N − W voters.
///
/// ```
/// use tenon_quorum::{DomainId, Quorum, survival};
///
/// let two_racks = survival(Quorum::THREE, &[DomainId(1), DomainId(1), DomainId(2)]);
/// assert!(two_racks.writes.a_node && !two_racks.writes.a_domain);
/// ```
#[must_use]
pub fn survival(quorum: Quorum, domains: &[DomainId]) -> Survival {
    let voters = u32::try_from(domains.len()).unwrap_or(u32::MAX);
    let crowd = |domain: &DomainId| domains.iter().filter(|other| *other == domain).count();
    let largest = u32::try_from(domains.iter().map(crowd).max().unwrap_or(0)).unwrap_or(u32::MAX);
    let writes = |lost: u32| voters.saturating_sub(lost) >= quorum.write();
    let reads = |lost: u32| voters >= quorum.write() && lost < quorum.write();
    Survival {
        reads: Survives { a_node: reads(1), a_domain: reads(largest) },
        writes: Survives { a_node: writes(1), a_domain: writes(largest) },
    }
}

/// A shard that could take a repository, with its load and its capacity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The shard's id.
    pub shard: ShardId,
    /// The domain of each of its voters.
    pub domains: Vec<DomainId>,
    /// The load, in any unit that compares across shards.
    pub load: u64,
    /// The capacity, in the same unit.
    pub room: u64,
}

/// Why no shard can take a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// No shard has room, or the family's shard has none.
    #[error("no shard has room")]
    Full,
    /// No shard with room survives the loss of a domain for writes.
    #[error("no shard with room survives the loss of a domain")]
    Fragile,
    /// The family's shard is not among the candidates.
    #[error("the family is on {shard}, which is not among the candidates")]
    FamilyElsewhere {
        /// The family's shard.
        shard: ShardId,
    },
}

/// The requirement on a shard besides room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// Any shard with room.
    #[default]
    Any,
    /// Only shards whose writes survive the loss of a domain.
    SurvivesADomain,
}

/// Chooses the shard for a new repository: of two candidates drawn by `repo`'s number, the one with the lower relative
/// load.
///
/// Candidates are the shards with room ("the power of two choices": even, and no herd on the emptiest). The same
/// arguments give the same shard.
///
/// A fork goes to `family`, the shard of its family, and nowhere else: forks share objects.
///
/// ```
/// use tenon_quorum::{DomainId, PlacementError, Quorum, RepoId, Shard, ShardId, Strictness, place};
///
/// let full = Shard { shard: ShardId(1), domains: [1, 2, 3].map(DomainId).to_vec(), load: 10, room: 10 };
/// let free = Shard { shard: ShardId(2), load: 4, ..full.clone() };
/// let found = place(Quorum::THREE, &[full.clone(), free], RepoId(7), None, Strictness::SurvivesADomain);
/// assert_eq!(found, Ok(ShardId(2)));
/// assert_eq!(place(Quorum::THREE, &[full], RepoId(7), None, Strictness::Any), Err(PlacementError::Full));
/// ```
///
/// # Errors
/// [`PlacementError`]: nothing fits.
pub fn place(
    quorum: Quorum,
    shards: &[Shard],
    repo: RepoId,
    family: Option<ShardId>,
    strictness: Strictness,
) -> Result<ShardId, PlacementError> {
    let has_room = |shard: &&Shard| shard.load < shard.room;
    if let Some(home) = family {
        let candidate = shards.iter().find(|shard| shard.shard == home);
        let candidate = candidate.ok_or(PlacementError::FamilyElsewhere { shard: home })?;
        return if has_room(&candidate) { Ok(home) } else { Err(PlacementError::Full) };
    }
    let open: Vec<&Shard> = shards.iter().filter(has_room).collect();
    if open.is_empty() {
        return Err(PlacementError::Full);
    }
    let firm = |shard: &&Shard| strictness == Strictness::Any || survival(quorum, &shard.domains).writes.a_domain;
    let open: Vec<&Shard> = open.into_iter().filter(firm).collect();
    let drawn = |salt: u64| {
        let count = u64::try_from(open.len()).ok().filter(|count| *count > 0)?;
        let at = mix(repo.0 ^ salt) % count;
        open.get(usize::try_from(at).ok()?).copied()
    };
    let (Some(a), Some(b)) = (drawn(0), drawn(0x5851_f42d_4c95_7f2d)) else {
        return Err(PlacementError::Fragile);
    };
    // load / room, compared without dividing.
    let share = |x: &Shard, y: &Shard| u128::from(x.load) * u128::from(y.room);
    Ok(if share(b, a) < share(a, b) { b.shard } else { a.shard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn domains(names: &[u32]) -> Vec<DomainId> {
        names.iter().copied().map(DomainId).collect()
    }

    fn shard(id: u32, names: &[u32], load: u64) -> Shard {
        Shard { shard: ShardId(id), domains: domains(names), load, room: 100 }
    }

    #[test]
    fn what_a_shard_survives() {
        for (names, [a, b, c, d]) in [
            (&[1, 2, 3][..], [true, true, true, true]),
            (&[1, 1, 2], [true, true, false, false]),
            (&[1, 1, 1], [true, true, false, false]),
            (&[1, 2], [true, false, true, false]),
        ] {
            let survival = survival(Quorum::THREE, &domains(names));
            let Survival { reads, writes } = survival;
            let is = [reads.a_node, writes.a_node, reads.a_domain, writes.a_domain];
            assert_eq!(is, [a, b, c, d], "{names:?}");
        }
    }

    #[test]
    fn loads_even_out() {
        let mut shards: Vec<Shard> = (0..8).map(|id| shard(id, &[1, 2, 3], 0)).collect();
        for repo in 0..400 {
            let home = place(Quorum::THREE, &shards, RepoId(repo), None, Strictness::Any).expect("room");
            shards.iter_mut().filter(|shard| shard.shard == home).for_each(|shard| shard.load += 1);
        }
        let loads: Vec<u64> = shards.iter().map(|shard| shard.load).collect();
        assert!(loads.iter().all(|load| (44..=56).contains(load)), "{loads:?}");
    }

    #[test]
    fn families_stay_together_and_full_is_full() {
        let shards = vec![shard(1, &[1, 1, 2], 0), shard(2, &[1, 2, 3], 99), shard(3, &[1, 2, 3], 100)];
        let go =
            |family: Option<u32>, strictness| place(Quorum::THREE, &shards, RepoId(9), family.map(ShardId), strictness);
        assert_eq!(go(Some(1), Strictness::Any), Ok(ShardId(1)));
        assert_eq!(go(Some(3), Strictness::Any), Err(PlacementError::Full));
        assert_eq!(go(Some(4), Strictness::Any), Err(PlacementError::FamilyElsewhere { shard: ShardId(4) }));
        assert_eq!(go(None, Strictness::SurvivesADomain), Ok(ShardId(2)));
        let fragile = place(Quorum::THREE, &shards[..1], RepoId(1), None, Strictness::SurvivesADomain);
        assert_eq!(fragile, Err(PlacementError::Fragile));
    }
}

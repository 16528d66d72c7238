//! Quorum arithmetic: how many replicas there are, and how many of them a read and a write need. Pure.

use crate::error::ConfigError;

/// A quorum: N voters, R to read without the store, W to commit a write.
///
/// R + W > N (a read meets the last write) and 2 W > N (two writes meet), after Gifford, "Weighted voting for
/// replicated data" (SOSP 1979). All three count *assigned* voters: a dead voter does not make the quorum smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "(u8, u8, u8)", into = "(u8, u8, u8)")
)]
pub struct Quorum {
    n: u8,
    r: u8,
    w: u8,
}

impl Quorum {
    /// The maximum number of voters (N) of a repository.
    pub const MOST: u8 = 15;

    /// The quorum 3/2/2: three voters, two to read, two to write.
    pub const THREE: Self = Self { n: 3, r: 2, w: 2 };

    /// A quorum of `n` voters, `r` to read, `w` to write.
    ///
    /// ```
    /// use tenon_quorum::{ConfigError, Quorum};
    ///
    /// let quorum = Quorum::new(5, 3, 3)?;
    /// assert_eq!((quorum.voters(), quorum.write(), quorum.blocking()), (5, 3, 3));
    /// assert_eq!(Quorum::new(4, 2, 2), Err(ConfigError::Quorum { n: 4, r: 2, w: 2 }));
    /// # Ok::<(), ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError::Quorum`] unless 1 ≤ r, w ≤ n ≤ [`Quorum::MOST`], r + w > n and 2 w > n.
    pub const fn new(n: u8, r: u8, w: u8) -> Result<Self, ConfigError> {
        let in_range = r >= 1 && w >= 1 && r <= n && w <= n && n <= Self::MOST;
        if in_range && r + w > n && 2 * w > n { Ok(Self { n, r, w }) } else { Err(ConfigError::Quorum { n, r, w }) }
    }

    /// The number of assigned voters (N).
    #[must_use]
    pub const fn voters(self) -> u32 {
        self.n as u32
    }

    /// The number of voters that a read without the store must hear (R).
    #[must_use]
    pub const fn read(self) -> u32 {
        self.r as u32
    }

    /// The number of voters that must hold a write before it commits (W).
    #[must_use]
    pub const fn write(self) -> u32 {
        self.w as u32
    }

    /// The smallest number of voters that intersects every write quorum: N − W + 1.
    ///
    /// Once as many gates are raised, no older write can gather W votes.
    ///
    /// ```
    /// use tenon_quorum::Quorum;
    ///
    /// // Of three voters with W = 2, two gates must be raised before no older write can commit.
    /// assert_eq!(Quorum::THREE.blocking(), 2);
    /// ```
    #[must_use]
    pub const fn blocking(self) -> u32 {
        (self.n - self.w) as u32 + 1
    }

    /// The probability that R voters (reads) and W voters (writes) are up, each up with probability `p` (0 to 1) on its
    /// own.
    ///
    /// ```
    /// use tenon_quorum::Quorum;
    ///
    /// let chance = Quorum::THREE.availability(0.99);
    /// assert!((chance.writes - 0.999_702).abs() < 1e-9);
    /// ```
    #[must_use]
    pub fn availability(self, p: f64) -> Availability {
        Availability { reads: at_least(self.n, self.r, p), writes: at_least(self.n, self.w, p) }
    }

    /// The same probability where voters also fail with their domain.
    ///
    /// `domains[i]` is the number of voters in the i-th domain. Each domain is up with probability `domain_p`, and a
    /// voter of a domain that is up is up with probability `p`.
    ///
    /// Voters that `domains` does not account for count as down. Domains beyond the first [`Quorum::MOST`] are not
    /// looked at, nor voters beyond N.
    ///
    /// ```
    /// use tenon_quorum::Quorum;
    ///
    /// let apart = Quorum::THREE.availability_by_domain(0.99, 0.999, &[1, 1, 1]);
    /// let together = Quorum::THREE.availability_by_domain(0.99, 0.999, &[3]);
    /// assert!(apart.writes > together.writes);
    /// ```
    #[must_use]
    pub fn availability_by_domain(self, p: f64, domain_p: f64, domains: &[u8]) -> Availability {
        // up[k] is the chance that exactly k voters are up, over the domains seen so far.
        let mut up = [0.0_f64; Self::MOST as usize + 1];
        up[0] = 1.0;
        let mut room = self.n;
        for &size in domains.iter().take(usize::from(Self::MOST)) {
            let size = size.min(room);
            room -= size;
            let mut next = [0.0_f64; Self::MOST as usize + 1];
            for (k, chance) in up.iter().enumerate() {
                for more in 0..=size {
                    let alive = domain_p * exactly(size, more, p) + if more == 0 { 1.0 - domain_p } else { 0.0 };
                    if let Some(slot) = next.get_mut(k + usize::from(more)) {
                        *slot += chance * alive;
                    }
                }
            }
            up = next;
        }
        let sum = |least: u8| up.iter().skip(usize::from(least)).sum();
        Availability { reads: sum(self.r), writes: sum(self.w) }
    }
}

impl Default for Quorum {
    fn default() -> Self {
        Self::THREE
    }
}

impl TryFrom<(u8, u8, u8)> for Quorum {
    type Error = ConfigError;

    fn try_from((n, r, w): (u8, u8, u8)) -> Result<Self, ConfigError> {
        Self::new(n, r, w)
    }
}

impl From<Quorum> for (u8, u8, u8) {
    fn from(quorum: Quorum) -> Self {
        (quorum.n, quorum.r, quorum.w)
    }
}

/// The probabilities (0 to 1) that an operation finds its quorum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Availability {
    /// The probability that R voters are up.
    pub reads: f64,
    /// The probability that W voters are up.
    pub writes: f64,
}

fn at_least(n: u8, k: u8, p: f64) -> f64 {
    (k..=n).map(|up| exactly(n, up, p)).sum()
}

/// The binomial chance that exactly `k` of `n` are up.
fn exactly(n: u8, k: u8, p: f64) -> f64 {
    let mut chance = 1.0;
    for i in 0..k {
        chance *= p * f64::from(n - i) / f64::from(i + 1);
    }
    for _ in k..n {
        chance *= 1.0 - p;
    }
    chance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quorums_that_meet_are_built() {
        for (n, r, w, good) in [
            (1, 1, 1, true),
            (2, 1, 2, true),
            (3, 2, 2, true),
            (3, 1, 3, true),
            (5, 3, 3, true),
            (5, 2, 4, true),
            (3, 1, 2, false),
            (4, 3, 2, false),
            (3, 3, 1, false),
            (0, 0, 0, false),
            (3, 0, 3, false),
            (3, 2, 4, false),
            (16, 9, 9, false),
        ] {
            assert_eq!(Quorum::new(n, r, w).is_ok(), good, "{n}/{r}/{w}");
        }
    }

    #[test]
    fn a_blocking_set_meets_every_write_quorum() {
        for n in 1..=Quorum::MOST {
            for w in 1..=n {
                let Ok(quorum) = Quorum::new(n, n, w) else {
                    continue;
                };
                assert_eq!(quorum.blocking() + quorum.write(), quorum.voters() + 1);
                assert!(quorum.write() >= quorum.blocking(), "a write's own votes fence what came before");
            }
        }
    }

    #[test]
    fn five_nines_at_3_2_2_need_a_node_at_about_998() {
        let at = |p: f64| Quorum::THREE.availability(p).writes;
        assert!((at(0.9) - 0.972).abs() < 1e-12);
        assert!(at(0.998) < 0.999_99 && at(0.9982) > 0.999_99, "{} {}", at(0.998), at(0.9982));
    }

    #[test]
    fn domains_change_what_survives() {
        let three = Quorum::THREE;
        let apart = three.availability_by_domain(0.99, 0.999, &[1, 1, 1]).writes;
        let paired = three.availability_by_domain(0.99, 0.999, &[2, 1]).writes;
        assert!(paired < apart);
        let alone = three.availability(0.99).writes;
        assert!((three.availability_by_domain(0.99, 1.0, &[2, 1]).writes - alone).abs() < 1e-12);
    }
}

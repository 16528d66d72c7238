//! Stabilisation and the limits of behaviour policies: the second half of the original's `horizontal.go`.

use alloc::vec::Vec;

use crate::Timestamp;

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rules {
    /// Which policy holds.
    pub select: Select,
    /// The policies.
    pub policies: Vec<Policy>,
    /// The stabilisation window, in ms.
    pub stabilization_ms: u64,
}

/// Which of several policies holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Select {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: no change in this direction.
    Disabled,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// Counted how.
    pub kind: PolicyKind,
    /// How much.
    pub value: u32,
    /// Within how long, in ms.
    pub period_ms: u64,
}

/// What a policy counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PolicyKind {
    /// In pods.
    Pods,
    /// In per cent of the size at the start of the period.
    Percent,
}

/// What was recommended at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recommendation {
    /// How many.
    pub replicas: u32,
    /// When.
    pub at: Timestamp,
}

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// By how many.
    pub change: u32,
    /// When.
    pub at: Timestamp,
    /// Whether its place may be taken by another.
    pub outdated: bool,
}

/// Changes of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Events(pub Vec<Event>);

impl Events {
    /// How much has changed within the last `period_ms`.
    #[must_use]
    pub fn within(&self, period_ms: u64, now: Timestamp) -> i64 {
        self.0.iter().filter(|event| now.millis_since(event.at) < period_ms).map(|event| i64::from(event.change)).sum()
    }

    /// Remembers a change, in the place of one that no policy looks at any more where there is one.
    pub fn store(&mut self, change: u32, policies: &[Policy], now: Timestamp) {
        let longest = policies.iter().map(|policy| policy.period_ms).max().unwrap_or(0);
        let mut place = None;
        for (at, event) in self.0.iter_mut().enumerate() {
            event.outdated |= now.millis_since(event.at) > longest;
            place = if event.outdated { Some(at) } else { place };
        }
        let event = Event { change, at: now, outdated: false };
        match place {
            Some(at) => self.0[at] = event,
            None => self.0.push(event),
        }
    }
}

/// What bounds a size: the original's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Bound {
    /// Nothing does.
    DesiredWithinRange,
    /// Growth is faster than allowed.
    ScaleUpLimit,
    /// Shrinking is faster than allowed.
    ScaleDownLimit,
    /// The maximum.
    TooManyReplicas,
    /// The minimum.
    TooFewReplicas,
}

/// A size, and what bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Limited {
    /// How many.
    pub replicas: u32,
    /// What bounds it.
    pub bound: Bound,
}

/// Without behaviour: the highest recommendation of the window (`stabilizeRecommendation`). The new one takes the place
/// of an old one where there is one.
pub fn stabilize_default(desired: u32, window_ms: u64, log: &mut Vec<Recommendation>, now: Timestamp) -> u32 {
    let mut most = desired;
    let mut place = None;
    for (at, held) in log.iter().enumerate() {
        if now.millis_since(held.at) > window_ms {
            place = Some(at);
        } else {
            most = most.max(held.replicas);
        }
    }
    remember(log, place, Recommendation { replicas: desired, at: now });
    most
}

/// With behaviour: within the lowest of the window for growing and the highest of the window for shrinking
/// (`stabilizeRecommendationWithBehaviors`). `windows` are in ms, growing first.
pub fn stabilize_behavior(
    current: u32,
    desired: u32,
    windows: (u64, u64),
    log: &mut Vec<Recommendation>,
    now: Timestamp,
) -> u32 {
    let (mut up, mut down) = (desired, desired);
    let mut place = None;
    for (at, held) in log.iter().enumerate() {
        let age = now.millis_since(held.at);
        if age < windows.0 {
            up = up.min(held.replicas);
        }
        if age < windows.1 {
            down = down.max(held.replicas);
        }
        if age > windows.0.max(windows.1) {
            place = Some(at);
        }
    }
    remember(log, place, Recommendation { replicas: desired, at: now });
    current.max(up).min(down.max(up))
}

fn remember(log: &mut Vec<Recommendation>, place: Option<usize>, new: Recommendation) {
    match place {
        Some(at) => log[at] = new,
        None => log.push(new),
    }
}

/// Without behaviour: the bounds, and growth to `factor` times the size or to `minimum` (`convertDesiredReplicasWithRules`).
pub fn limit_default(current: u32, desired: u32, bounds: (u32, u32), growth: (u32, u32)) -> Limited {
    let ceiling = current.saturating_mul(growth.0).max(growth.1);
    let (most, above) =
        if bounds.1 > ceiling { (ceiling, Bound::ScaleUpLimit) } else { (bounds.1, Bound::TooManyReplicas) };
    if desired < bounds.0 {
        Limited { replicas: bounds.0, bound: Bound::TooFewReplicas }
    } else if desired > most {
        Limited { replicas: most, bound: above }
    } else {
        Limited { replicas: desired, bound: Bound::DesiredWithinRange }
    }
}

/// With behaviour: the bounds and the policies (`convertDesiredReplicasWithBehaviorRate`). Rules and events come growing
/// first.
pub fn limit_by_policies(
    current: u32,
    desired: u32,
    bounds: (u32, u32),
    rules: (&Rules, &Rules),
    events: (&Events, &Events),
    now: Timestamp,
) -> Limited {
    if desired > current {
        let ceiling = rate_limit(crate::Direction::Out, current, rules.0, events, now).max(current);
        let (most, bound) =
            if bounds.1 > ceiling { (ceiling, Bound::ScaleUpLimit) } else { (bounds.1, Bound::TooManyReplicas) };
        if desired > most {
            return Limited { replicas: most, bound };
        }
    } else if desired < current {
        let floor = rate_limit(crate::Direction::In, current, rules.1, events, now).min(current);
        let (least, bound) =
            if bounds.0 < floor { (floor, Bound::ScaleDownLimit) } else { (bounds.0, Bound::TooFewReplicas) };
        if desired < least {
            return Limited { replicas: least, bound };
        }
    }
    Limited { replicas: desired, bound: Bound::DesiredWithinRange }
}

/// How far the policies of one direction let a size go now (`calculateScaleUpLimitWithScalingRules`,
/// `calculateScaleDownLimitWithBehaviors`).
#[must_use]
pub fn rate_limit(
    direction: crate::Direction,
    current: u32,
    rules: &Rules,
    events: (&Events, &Events),
    now: Timestamp,
) -> u32 {
    let counted = rules
        .policies
        .iter()
        .map(|policy| (*policy, events.0.within(policy.period_ms, now), events.1.within(policy.period_ms, now)));
    furthest(direction, current, rules.select, counted)
}

/// How far policies let a size go, each with what was added and what went within its period.
pub(crate) fn furthest(
    direction: crate::Direction,
    current: u32,
    select: Select,
    policies: impl Iterator<Item = (Policy, i64, i64)>,
) -> u32 {
    let up = direction == crate::Direction::Out;
    let proposals = policies.map(|(policy, added, gone)| {
        let start = i64::from(current).saturating_sub(added).saturating_add(gone);
        let value = i64::from(policy.value);
        match policy.kind {
            PolicyKind::Pods if up => start.saturating_add(value),
            PolicyKind::Pods => start.saturating_sub(value),
            PolicyKind::Percent => percent(start, if up { policy.value.into() } else { -f64::from(policy.value) }, up),
        }
    });
    let limit = match select {
        Select::Disabled => return current,
        Select::Max if up => proposals.max(),
        Select::Max => proposals.min(),
        Select::Min if up => proposals.min(),
        Select::Min => proposals.max(),
    };
    u32::try_from(limit.unwrap_or(i64::from(current)).max(0)).unwrap_or(u32::MAX)
}

/// `start` and so many per cent of it: rounded up where it grows, cut off where it shrinks.
fn percent(start: i64, by: f64, up: bool) -> i64 {
    #[expect(clippy::cast_precision_loss, reason = "the original calculates so")]
    let exact = start as f64 * (1.0 + by / 100.0);
    let whole = if up { libm::ceil(exact) } else { exact };
    #[expect(clippy::cast_possible_truncation, reason = "a float cast cuts off and saturates, as is meant")]
    let whole = whole as i64;
    whole
}

//! Stabilisation and the limits of behaviour policies: the second half of the original's `horizontal.go`.

use alloc::vec::Vec;

use crate::Timestamp;

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rules {
    /// The selection of the policy that applies.
    pub select: Select,
    /// The policies.
    pub policies: Vec<Policy>,
    /// The stabilisation window, in ms.
    pub stabilization_ms: u64,
}

/// The selection among several policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Select {
    /// The policy that allows the largest change.
    Max,
    /// The policy that allows the smallest change.
    Min,
    /// No policy: no change in this direction.
    Disabled,
}

/// A limit on the change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// The unit of the value.
    pub kind: PolicyKind,
    /// The maximum change.
    pub value: u32,
    /// The period, in ms.
    pub period_ms: u64,
}

/// The unit of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PolicyKind {
    /// Pods.
    Pods,
    /// Per cent of the size at the start of the period.
    Percent,
}

/// A recommendation at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recommendation {
    /// The recommended number of replicas.
    pub replicas: u32,
    /// The time of the recommendation.
    pub at: Timestamp,
}

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// The number of replicas added or removed.
    pub change: u32,
    /// The time of the change.
    pub at: Timestamp,
    /// Whether another change may take its place.
    pub outdated: bool,
}

/// The changes of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Events(pub Vec<Event>);

impl Events {
    /// The sum of changes within the last `period_ms`.
    #[must_use]
    pub fn within(&self, period_ms: u64, now: Timestamp) -> i64 {
        self.0.iter().filter(|event| now.millis_since(event.at) < period_ms).map(|event| i64::from(event.change)).sum()
    }

    /// Stores a change, in the place of one that no policy looks at any more if there is one.
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

/// The bound of a size, in the original's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Bound {
    /// No bound applies.
    DesiredWithinRange,
    /// Growth is limited by its rate.
    ScaleUpLimit,
    /// Shrinking is limited by its rate.
    ScaleDownLimit,
    /// The maximum applies.
    TooManyReplicas,
    /// The minimum applies.
    TooFewReplicas,
}

/// A size, and its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Limited {
    /// The number of replicas.
    pub replicas: u32,
    /// The bound that applies.
    pub bound: Bound,
}

/// Stabilises without behaviour: the highest recommendation of the window (`stabilizeRecommendation`).
///
/// The new one takes the place of an old one if there is one.
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

/// Stabilises with behaviour: within the lowest of the growing window and the highest of the shrinking window
/// (`stabilizeRecommendationWithBehaviors`).
///
/// `windows` are in ms, growing first.
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

/// Limits without behaviour: the bounds, and growth to `factor` times the size or to `minimum`
/// (`convertDesiredReplicasWithRules`).
///
/// ```
/// use tenon_scaler::hpa::{Bound, Limited, limit_default};
///
/// // From 3 replicas, growth is limited to the larger of twice the size and 4.
/// let limited = limit_default(3, 20, (1, 10), (2, 4));
/// assert_eq!(limited, Limited { replicas: 6, bound: Bound::ScaleUpLimit });
/// ```
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

/// Limits with behaviour: the bounds and the policies (`convertDesiredReplicasWithBehaviorRate`).
///
/// Rules and events come growing first.
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

/// The size to which the policies of one direction allow a change now.
///
/// `calculateScaleUpLimitWithScalingRules` and `calculateScaleDownLimitWithBehaviors` of the original.
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

//! Names as numbers: hosts map their texts to these once, at the edge.

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub $inner);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

id! {
    /// An elastic group, and the traffic group it is made from: the two are one to one.
    GroupId(u32);
    /// A rule of one group.
    RuleId(u16);
    /// A metric of one group.
    MetricId(u16);
    /// A pool of machines.
    PoolId(u16);
    /// A data centre: what instances are spread over.
    IdcId(u16);
    /// A host that instances stand on.
    HostId(u32);
    /// A shape of instance (so much CPU, memory and disk): what stock is counted in.
    ShapeId(u16);
    /// A tenant: a node of the service tree that quotas and dedicated pools belong to.
    TenantId(u32);
    /// A release group: which image new instances run.
    ReleaseId(u32);
    /// The image that a release group runs.
    VersionId(u64);
    /// A time zone in [`Zones`](crate::Zones); 0 is UTC.
    ZoneId(u16);
    /// A task for a chain of services.
    TaskId(u32);
    /// One launch or release that was asked of the host.
    RequestId(u64);
}

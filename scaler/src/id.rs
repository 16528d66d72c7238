//! Ids as numbers: hosts map their names to these once, at the edge.

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
    /// The id of an elastic group and of the traffic group it is made from: the two are one to one.
    GroupId(u32);
    /// The id of a rule within a group.
    RuleId(u16);
    /// The id of a metric within a group.
    MetricId(u16);
    /// The id of a pool of machines.
    PoolId(u16);
    /// The id of a data centre, which instances are spread over.
    IdcId(u16);
    /// The id of a host that instances stand on.
    HostId(u32);
    /// The id of a shape of instance (a size of CPU, memory and disk), which stock is counted in.
    ShapeId(u16);
    /// The id of a tenant: a node of the service tree that quotas and dedicated pools belong to.
    TenantId(u32);
    /// The id of a release group, which says the image that new instances run.
    ReleaseId(u32);
    /// The id of an image that a release group runs.
    VersionId(u64);
    /// The id of a time zone in [`Zones`](crate::Zones); 0 is UTC.
    ZoneId(u16);
    /// The id of a task for a chain of services.
    TaskId(u32);
    /// The id of a launch or a release that was asked of the host.
    RequestId(u64);
}

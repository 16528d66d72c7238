//! Pipelines: what a push to a repository with a CI file starts, the workers that run it, the fleet they
//! form, and the page that shows it all.

pub(crate) mod centre;
pub(crate) mod file;
pub(crate) mod logs;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod store;
pub(crate) mod view;
pub(crate) mod wire;
pub(crate) mod worker;

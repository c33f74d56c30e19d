//! Node mode: one process captures and serves all pods of its node that ask for it.

mod registry;

pub use self::registry::{Listed, Pods, Served, State};

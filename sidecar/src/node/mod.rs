//! Node mode: one process captures and serves all pods of its node that ask for it.

mod agent;
mod lane;
mod process;
mod registry;
mod settings;
mod slot;
mod term;
mod threads;
mod tree;
mod watch;

pub use self::{
    agent::{AFTERWARDS, Agent, HAND_OVER, Parts},
    registry::{Listed, Pods, Served, State},
    tree::root,
};

//! The kernel boundary: loads, attaches and pins the kernel side, and reads and writes its maps.
//!
//! The only module that names aya. What the proxy needs of the kernel it gets through the trait
//! [`Kernel`](crate::proxy::Kernel), which [`Sockets`] implements.

mod datapath;
mod error;
mod listener;
mod listening;
mod logger;
mod object;
pub mod pins;
pub mod probe;
mod rules;
mod sockets;
pub mod status;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::listening::listed;
pub use self::{
    datapath::{Datapath, own_netns},
    error::Error,
    listener::{Listeners, OwnListener},
    logger::forward_logs,
    rules::{RuleMaps, Rules},
    sockets::Sockets,
    status::Events,
};

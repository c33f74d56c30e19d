//! The kernel boundary: loads, attaches and pins the kernel side, and reads and writes its maps.
//!
//! The only module that names aya. What the proxy needs of the kernel it gets through the trait
//! [`Kernel`](crate::proxy::Kernel), which [`Sockets`] implements.

mod access;
pub mod agents;
pub mod beside;
mod datapath;
mod error;
mod listener;
mod listening;
mod logger;
mod maps;
mod object;
mod ownership;
mod pins;
pub mod probe;
mod programs;
mod refusal;
pub mod removal;
mod rules;
mod sockets;
mod statistics;
pub mod status;
mod sys;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::listening::listed;
pub use self::{
    access::Access,
    datapath::Datapath,
    error::Error,
    listener::{Listeners, OwnListener},
    logger::forward_logs,
    ownership::{Loss, Ownership},
    pins::{Pins, Turn},
    programs::{Place, Size},
    rules::{RuleMaps, Rules},
    sockets::Sockets,
    statistics::Statistics,
    status::Events,
};

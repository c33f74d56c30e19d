//! Which connections are steered, and which of them must be mutual TLS.
//!
//! Two questions, answered in this order:
//!
//! 1. Is the connection ours at all? [`Exclusions`] name what the kernel leaves alone.
//! 2. If it is ours, how strict are we? A [`ModeTable`] per [`Direction`] answers with a [`Mode`].

mod cidr;
mod direction;
mod exclusions;
mod failure;
mod mode;
mod mode_override;
mod mode_table;
mod port;
pub(crate) mod text;

pub use self::{
    cidr::{Cidr, ParseCidrError},
    direction::Direction,
    exclusions::Exclusions,
    failure::Failure,
    mode::{Mode, ParseModeError},
    mode_override::{ModeOverride, ParseOverrideError},
    mode_table::{ModeTable, OverrideError},
    port::{ParsePortError, Port},
};

/// What connections need, and who may open them. One value is always in force as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// What happens to connections from the network to the app.
    pub inbound: ModeTable,
    /// What happens to connections from the app to the network.
    pub outbound: ModeTable,
    /// What happens to connections from the network while no proxy serves.
    pub inbound_failure: Failure,
    /// What happens to connections of the app while no proxy serves.
    pub outbound_failure: Failure,
    /// What is left alone whatever the mode.
    pub exclusions: Exclusions,
}

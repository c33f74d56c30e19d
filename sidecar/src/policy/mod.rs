//! Which connections are steered, which of them must be mutual TLS, and with whom.
//!
//! Three questions, answered in this order:
//!
//! 1. Is the connection ours at all? [`Exclusions`] name what the kernel leaves alone.
//! 2. If it is ours, how strict are we? A [`ModeTable`] per [`Direction`] answers with a [`Mode`].
//! 3. Is the peer the right one? [`Authorization`] says who may reach the app, [`Expectations`] who
//!    must answer when the app dials.

pub mod authorization;
mod cidr;
mod direction;
mod exclusions;
mod expectations;
mod failure;
mod identity_pattern;
mod mode;
mod mode_override;
mod mode_table;
mod naming;
mod port;
mod port_range;
mod probes;
mod room;
pub(crate) mod text;

pub use self::{
    authorization::Authorization,
    cidr::{Cidr, ParseCidrError},
    direction::Direction,
    exclusions::Exclusions,
    expectations::{DuplicateExpectation, Expectation, Expectations},
    failure::Failure,
    identity_pattern::{IdentityPattern, ParsePatternError},
    mode::{Mode, ParseModeError},
    mode_override::{ModeOverride, ParseOverrideError},
    mode_table::{ModeTable, OverrideError},
    naming::Naming,
    port::{ParsePortError, Port},
    port_range::{ParsePortRangeError, PortRange},
    probes::Probes,
    room::NoRoom,
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
    /// Who may ask whether the app lives, whatever the mode.
    pub probes: Probes,
    /// Who may reach the app, where anything is said about that.
    pub authorization: Option<Authorization>,
    /// Who must answer when the app dials.
    pub expectations: Expectations,
    /// What happens where the cluster names others than who answers.
    pub naming: Naming,
}

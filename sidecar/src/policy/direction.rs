use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who dialled: the workload, or somebody else.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A client elsewhere connects to the workload.
    Inbound,
    /// The workload connects to a server elsewhere.
    Outbound,
}

impl Direction {
    /// The name used in flags, files, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

use std::{error::Error as _, time::Duration};

use kube::core::Status;
use thiserror::Error;

/// Why the API server did not tell what was asked.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// What was asked for lies too far back.
    #[error("it has forgotten what was asked for")]
    Forgotten,
    /// It does not want to.
    #[error("{}", refused(.0))]
    Refused(Box<Status>),
    /// It answers nothing.
    #[error("it says nothing for {0:?}")]
    Silent(Duration),
    /// It cannot be asked, or has hung up.
    #[error("it cannot be reached ({0})")]
    Unreachable(String),
    /// What it says makes no sense.
    #[error("it gives an answer that cannot be used ({0})")]
    Unusable(String),
}

impl Failure {
    /// For metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Forgotten => "forgotten",
            Self::Refused(_) => "refused",
            Self::Silent(_) => "silent",
            Self::Unreachable(_) => "unreachable",
            Self::Unusable(_) => "unusable",
        }
    }

    /// Is it in the nature of things?
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::Forgotten)
    }

    /// May something have been missed, so that only a new list tells what there is?
    pub fn needs_a_list(&self) -> bool {
        matches!(self, Self::Forgotten | Self::Unusable(_))
    }

    /// How long it wants us to wait, if it says so.
    pub fn wait(&self) -> Option<Duration> {
        /// No wish is granted beyond this.
        const LONGEST: u64 = 60;
        let Self::Refused(status) = self else {
            return None;
        };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        Some(Duration::from_secs(u64::from(seconds).min(LONGEST)))
    }
}

impl From<Box<Status>> for Failure {
    fn from(status: Box<Status>) -> Self {
        match status.code {
            // What kube makes of any object that is none of those it expects.
            0 => Self::Unusable("it is neither an event nor a status".to_owned()),
            410 => Self::Forgotten,
            _ => Self::Refused(status),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(status),
            kube::Error::SerdeError(error) => Self::Unusable(error.to_string()),
            kube::Error::FromUtf8(error) => Self::Unusable(error.to_string()),
            error => Self::Unreachable(cause(&error)),
        }
    }
}

/// The first cause, which is what the system answered.
fn cause(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match error.source() {
        Some(_) => cause.to_string(),
        None => error.to_string(),
    }
}

fn refused(status: &Status) -> String {
    let Status { code, message, .. } = status;
    let advice = match code {
        401 => "; check the token of the service account",
        403 => "; grant it with a ClusterRole",
        404 => "; Kubernetes has to be 1.21 or newer",
        _ => "",
    };
    format!("it refuses with status {code} ({message}){advice}")
}

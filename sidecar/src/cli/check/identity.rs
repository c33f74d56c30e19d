//! Who the workload is going to be.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{Context, Outcome};
use crate::identity::{Ca, Origin};

/// What should be left of the life of a development CA.
const AHEAD: Duration = Duration::from_hours(24);

pub(super) fn loadable(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    let origin = match &config.identity {
        // Loading would create the CA, and a check changes nothing.
        Origin::DevCa { dir, id } if !dir.exists() => {
            return Outcome::found(format!("{id}, by a development CA yet to be made"));
        }
        Origin::DevCa { .. } => ", by a development CA",
        Origin::Files(_) | Origin::Account(_) => "",
        Origin::Accounts(dir) => {
            return match std::fs::read_dir(dir) {
                Ok(_) => Outcome::found(format!("those of service accounts in {}", dir.display())),
                Err(error) => Outcome::error(&crate::identity::Error::Read {
                    path: dir.clone(),
                    error,
                }),
            };
        }
        Origin::WorkloadApi(_) => ", by the Workload API",
    };
    match config.identity.peek() {
        Ok(svid) => Outcome::found(format!("{}{origin}", svid.id())),
        Err(error) => Outcome::error(&error),
    }
}

pub(super) fn lasting(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    let now = SystemTime::now();
    match &config.identity {
        Origin::DevCa { dir, .. } if !dir.exists() => Outcome::PASS,
        Origin::DevCa { dir, .. } => match Ca::open(dir) {
            Ok(ca) => lasts("development CA", ca.not_after(), AHEAD, now),
            Err(_) => UNKNOWN,
        },
        // Each has its own end.
        Origin::Accounts(_) => Outcome::PASS,
        // Who renews a certificate does so when half of its life is left, or a third.
        origin => match origin.peek() {
            Ok(svid) => lasts("certificate", svid.not_after(), svid.lifetime() / 4, now),
            Err(_) => UNKNOWN,
        },
    }
}

pub(super) fn trust_readable(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    let mut count = 0;
    for file in config.trust_files.files() {
        if let Err(error) = file.load() {
            return Outcome::error(&error);
        }
        count += 1;
    }
    match count {
        0 => Outcome::PASS,
        1 => Outcome::found("1 file"),
        count => Outcome::found(format!("{count} files")),
    }
}

pub(super) fn fit_for_production(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    match &config.identity {
        Origin::Files(_) | Origin::WorkloadApi(_) | Origin::Accounts(_) | Origin::Account(_) => {
            Outcome::PASS
        }
        Origin::DevCa { dir, .. } => Outcome::warn(
            format!(
                "it comes from the development CA: who can read {} can be any workload",
                dir.display()
            ),
            "fine for trying things out; else set --workload-api, or --certificate, --key and --trust-bundle",
        ),
    }
}

const UNKNOWN: Outcome = Outcome::Skip {
    reason: "the identity could not be loaded",
};

/// Is the end of `what` farther from `now` than `ahead`?
fn lasts(what: &str, not_after: SystemTime, ahead: Duration, now: SystemTime) -> Outcome {
    let left = not_after.duration_since(now).unwrap_or_default();
    // Times beyond the calendar are far enough away not to be printed.
    let until = Timestamp::try_from(not_after).unwrap_or(Timestamp::MAX);
    if left < ahead {
        return Outcome::warn(
            format!("the {what} expires at {until:.0}"),
            "renew it in time; the sidecar takes the new one by itself",
        );
    }
    Outcome::found(format!("until {until:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::fixture::Fixture;

    /// A machine whose development CA is, or is going to be, in a directory of its own.
    fn with_dev_ca(dir: &std::path::Path) -> Fixture {
        Fixture::with(&[]).set(&format!(
            "{{dev-ca: {}, identity: 'spiffe://example.org/web'}}",
            dir.display()
        ))
    }

    #[test]
    fn a_check_makes_no_development_ca() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ca = dir.path().join("ca");
        let fixture = with_dev_ca(&ca);
        assert!(matches!(loadable(&fixture), Outcome::Pass { .. }));
        assert!(matches!(lasting(&fixture), Outcome::Pass { .. }));
        assert!(matches!(fit_for_production(&fixture), Outcome::Warn { .. }));
        assert!(!ca.exists());
    }

    #[test]
    fn a_directory_that_holds_no_ca_is_an_obstacle() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fixture = with_dev_ca(dir.path());
        assert!(matches!(loadable(&fixture), Outcome::Fail { .. }));
        assert!(matches!(lasting(&fixture), Outcome::Skip { .. }));
    }

    #[test]
    fn missing_files_are_an_obstacle_with_a_hint() {
        let fixture = Fixture::with(&[]).set("{certificate: /a, key: /b, trust-bundle: /c}");
        let Outcome::Fail { reason, .. } = loadable(&fixture) else {
            panic!("missing files pass");
        };
        assert!(reason.contains("/a"), "{reason}");
        assert_eq!(fit_for_production(&fixture), Outcome::PASS);
    }

    #[test]
    fn enough_of_its_life_has_to_be_left() {
        let now = SystemTime::UNIX_EPOCH;
        let outcome = lasts("certificate", now + AHEAD, AHEAD, now);
        assert_eq!(outcome, Outcome::found("until 1970-01-02T00:00:00Z"));
        let short = now + Duration::from_hours(23);
        assert_eq!(
            lasts("certificate", short, AHEAD, now),
            Outcome::warn(
                "the certificate expires at 1970-01-01T23:00:00Z",
                "renew it in time; the sidecar takes the new one by itself",
            )
        );
    }

    #[test]
    fn an_agent_that_is_not_there_is_an_obstacle() {
        let fixture = Fixture::with(&[]).set("workload-api: 'unix:/nonexistent/agent.sock'");
        let Outcome::Fail { reason, hint } = loadable(&fixture) else {
            panic!("an agent that is not there passes");
        };
        assert!(reason.contains("/nonexistent/agent.sock"), "{reason}");
        assert!(hint.contains("check that the agent runs"), "{hint}");
        assert_eq!(lasting(&fixture), UNKNOWN);
        assert_eq!(fit_for_production(&fixture), Outcome::PASS);
    }

    #[test]
    fn a_revocation_list_that_cannot_be_read_is_an_obstacle() {
        let fixture = Fixture::with(&[]).set("crl: [/nonexistent/crl.pem]");
        let Outcome::Fail { reason, .. } = trust_readable(&fixture) else {
            panic!("a list that is not there passes");
        };
        assert!(reason.contains("/nonexistent/crl.pem"), "{reason}");
        assert_eq!(trust_readable(&Fixture::with(&[])), Outcome::PASS);
    }
}

//! Who the workload is going to be.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{Context, Outcome};
use crate::identity::{self, Ca, Origin};

/// What should be left of a certificate's life.
const AHEAD: Duration = Duration::from_hours(24);

pub(super) fn loadable(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    match &config.identity {
        Origin::Files(files) => match files.load() {
            Ok(svid) => Outcome::found(svid.id().to_string()),
            Err(error) => Outcome::error(&error),
        },
        // Loading would create the CA, and a check changes nothing.
        Origin::DevCa { dir, id } if !dir.exists() => {
            Outcome::found(format!("{id}, by a development CA yet to be made"))
        }
        Origin::DevCa { dir, id } => {
            match Ca::open(dir).and_then(|ca| ca.issue(id, identity::SVID_LIFETIME)) {
                Ok(svid) => Outcome::found(format!("{}, by a development CA", svid.id())),
                Err(error) => Outcome::error(&error),
            }
        }
    }
}

pub(super) fn lasting(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    let (what, not_after) = match &config.identity {
        Origin::Files(files) => match files.load() {
            Ok(svid) => ("certificate", svid.not_after()),
            Err(_) => return UNKNOWN,
        },
        Origin::DevCa { dir, .. } if !dir.exists() => return Outcome::PASS,
        Origin::DevCa { dir, .. } => match Ca::open(dir) {
            Ok(ca) => ("development CA", ca.not_after()),
            Err(_) => return UNKNOWN,
        },
    };
    lasts(what, not_after, SystemTime::now())
}

pub(super) fn fit_for_production(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    match &config.identity {
        Origin::Files(_) => Outcome::PASS,
        Origin::DevCa { dir, .. } => Outcome::warn(
            format!(
                "it comes from the development CA: who can read {} can be any workload",
                dir.display()
            ),
            "fine for trying things out; else set --certificate, --key and --trust-bundle",
        ),
    }
}

const UNKNOWN: Outcome = Outcome::Skip {
    reason: "the identity could not be loaded",
};

/// Is the end of `what` far enough from `now`?
fn lasts(what: &str, not_after: SystemTime, now: SystemTime) -> Outcome {
    let left = not_after.duration_since(now).unwrap_or_default();
    // Times beyond the calendar are far enough away not to be printed.
    let until = Timestamp::try_from(not_after).unwrap_or(Timestamp::MAX);
    if left < AHEAD {
        return Outcome::warn(
            format!("the {what} expires at {until:.0}"),
            "renew it in time, and restart the sidecar, which reads it at its start",
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
    fn a_day_has_to_be_left() {
        let now = SystemTime::UNIX_EPOCH;
        let outcome = lasts("certificate", now + AHEAD, now);
        assert_eq!(outcome, Outcome::found("until 1970-01-02T00:00:00Z"));
        let short = now + Duration::from_hours(23);
        assert_eq!(
            lasts("certificate", short, now),
            Outcome::warn(
                "the certificate expires at 1970-01-01T23:00:00Z",
                "renew it in time, and restart the sidecar, which reads it at its start",
            )
        );
    }
}

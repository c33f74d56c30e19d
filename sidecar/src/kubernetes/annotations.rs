//! Settings in annotations: `sidecar.mesh/KEY: VALUE`, with the keys and values of environment
//! variables.

use std::collections::BTreeMap;

use clap::{Args as _, Command, FromArgMatches as _};
use thiserror::Error;

use crate::config::Settings;

/// What the names of our labels and annotations begin with.
pub const PREFIX: &str = "sidecar.mesh/";

/// An annotation that cannot be used.
#[derive(Debug, Error)]
#[error(
    "annotation {PREFIX}{key}: {value:?} cannot be used: {reason}; `sidecar run --help` tells what there is"
)]
pub struct AnnotationError {
    key: String,
    value: String,
    reason: String,
}

/// The settings among annotations. Those of others are left alone; one of ours that is no setting
/// is refused, unless it is among `others`.
pub fn settings(
    annotations: &BTreeMap<String, String>,
    others: &[&str],
) -> Result<Settings, AnnotationError> {
    let mut all = Settings::default();
    for (name, value) in annotations {
        let Some(key) = name
            .strip_prefix(PREFIX)
            .filter(|key| !others.contains(key))
        else {
            continue;
        };
        let one = setting(key, value).map_err(|reason| AnnotationError {
            key: key.to_owned(),
            value: value.clone(),
            reason,
        })?;
        all = all.or(one);
    }
    Ok(all)
}

fn setting(key: &str, value: &str) -> Result<Settings, String> {
    /// The one setting whose flag has another name than its key.
    const OVERRIDES: (&str, &str) = ("overrides", "override");
    let flag = if key == OVERRIDES.0 { OVERRIDES.1 } else { key };
    // What the process was given in its environment is not of this pod.
    let command = Settings::augment_args(Command::new("annotations").no_binary_name(true))
        .mut_args(|arg| arg.env(None::<&str>));
    if !command
        .get_arguments()
        .any(|arg| arg.get_long() == Some(flag))
    {
        return Err("there is no such setting".to_owned());
    }
    let parsed = command
        .try_get_matches_from([format!("--{flag}={value}")])
        .and_then(|matches| Settings::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let error = error.to_string();
        let first = error.lines().next().unwrap_or_default();
        first.trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Mode;

    fn of(annotations: &[(&str, &str)]) -> Result<Settings, AnnotationError> {
        let annotations = annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        settings(&annotations, &["image"])
    }

    #[test]
    fn annotations_are_settings() {
        let settings = of(&[
            ("sidecar.mesh/inbound", "strict"),
            ("sidecar.mesh/exclude-inbound-ports", "9090,9100"),
            ("sidecar.mesh/image", "registry/sidecar"),
            ("example.com/inbound", "nonsense"),
        ])
        .expect("valid");
        assert_eq!(settings.inbound, Some(Mode::Strict));
        assert_eq!(
            settings.exclude_inbound_ports.map(|ports| ports.len()),
            Some(2)
        );
        assert_eq!(settings.outbound, None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = of(&[("sidecar.mesh/inbound", "tight")]).expect_err("no such mode");
        let sentence = error.to_string();
        assert!(
            sentence.starts_with("annotation sidecar.mesh/inbound: \"tight\" cannot be used: "),
            "{sentence}"
        );
        let error = of(&[("sidecar.mesh/imbound", "strict")]).expect_err("no such setting");
        assert!(
            error.to_string().contains("there is no such setting"),
            "{error}"
        );
    }
}

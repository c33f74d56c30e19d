//! Prometheus metrics, read back.

use std::collections::BTreeMap;

/// A scrape of the sidecar's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Every sample, in the order of the text.
    samples: Vec<Sample>,
}

/// One line of the text format.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// The metric, such as `sidecar_connections_opened_total`.
    name: String,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// Its value.
    value: f64,
}

impl Metrics {
    /// Parses the Prometheus text format.
    ///
    /// # Panics
    ///
    /// When it is not that.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| Sample::parse(line).unwrap_or_else(|| panic!("not a sample: {line}")))
            .collect();
        Self { samples }
    }

    /// The sum of the samples of `name` that carry at least these labels; 0 when there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.samples
            .iter()
            .filter(fits)
            .map(|sample| sample.value)
            .sum()
    }

    /// Like [`Self::sum`], for metrics that count.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(
            sum >= 0.0 && sum.fract() == 0.0,
            "{name} does not count: {sum}"
        );
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked"
        )]
        let count = sum as u64;
        count
    }

    /// Whether there is any sample of `name`.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }
}

impl Sample {
    /// Parses one line. Label values with escapes do not occur in what the sidecar exports.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, labels)) = series.split_once('{') else {
            return Some(Self {
                name: series.to_owned(),
                labels: BTreeMap::new(),
                value,
            });
        };
        let labels = labels
            .strip_suffix('}')?
            .split_terminator("\",")
            .map(|label| {
                let (key, value) = label.trim_end_matches(',').split_once("=\"")?;
                Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
            });
        Some(Self {
            name: name.to_owned(),
            labels: labels.collect::<Option<_>>()?,
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        # TYPE opened counter\n\
        opened{direction=\"inbound\",peer=\"spiffe://a/b,c\"} 2\n\
        opened{direction=\"outbound\",peer=\"\"} 3\n\
        seconds_sum 0.25\n";

    #[test]
    fn samples_add_up_over_the_labels_not_asked_for() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.count("opened", &[]), 5);
        assert_eq!(metrics.count("opened", &[("direction", "outbound")]), 3);
        assert_eq!(metrics.count("opened", &[("peer", "spiffe://a/b,c")]), 2);
        assert_eq!(metrics.count("opened", &[("direction", "sideways")]), 0);
    }

    #[test]
    fn a_metric_without_labels_has_a_value() {
        assert!((Metrics::parse(TEXT).sum("seconds_sum", &[]) - 0.25).abs() < f64::EPSILON);
        assert!(!Metrics::parse(TEXT).has("minutes_sum"));
    }
}

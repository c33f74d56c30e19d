//! How what is counted becomes Prometheus' text.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use prometheus::{
    Histogram, HistogramOpts,
    core::Metric as _,
    proto::{self, LabelPair, MetricFamily, MetricType},
};

/// One metric: its name, what it says, and of what type it is.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    shape: Shape,
}

enum Shape {
    Counter,
    Gauge,
    /// The upper bounds of its buckets, ascending.
    Histogram(&'static [f64]),
}

impl Family {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        let shape = Shape::Counter;
        Self { name, help, shape }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        let shape = Shape::Gauge;
        Self { name, help, shape }
    }

    /// With these upper bounds of buckets, ascending.
    pub(super) const fn histogram(
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        let shape = Shape::Histogram(bounds);
        Self { name, help, shape }
    }

    const fn metric_type(&self) -> MetricType {
        match self.shape {
            Shape::Counter => MetricType::COUNTER,
            Shape::Gauge => MetricType::GAUGE,
            Shape::Histogram(_) => MetricType::HISTOGRAM,
        }
    }
}

/// A number that only grows.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// As many counts, all zero.
pub(super) fn counts<const N: usize>() -> [Count; N] {
    std::array::from_fn(|_| Count::default())
}

/// A number that grows and shrinks.
#[derive(Default)]
pub(super) struct Level(AtomicI64);

impl Level {
    pub(super) fn add(&self, more: i64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram that is made when it is first needed.
pub(super) struct Distribution {
    family: &'static Family,
    histogram: OnceLock<Histogram>,
}

impl Distribution {
    pub(super) const fn of(family: &'static Family) -> Self {
        Self {
            family,
            histogram: OnceLock::new(),
        }
    }

    pub(super) fn observe(&self, value: f64) {
        self.histogram.get_or_init(|| self.make()).observe(value);
    }

    /// How many values were observed, and their sum.
    #[cfg(test)]
    pub(super) fn observed(&self) -> (u64, f64) {
        let histogram = self.histogram.get();
        histogram.map_or((0, 0.0), |histogram| {
            (histogram.get_sample_count(), histogram.get_sample_sum())
        })
    }

    fn make(&self) -> Histogram {
        let Family { name, help, shape } = self.family;
        let bounds = match shape {
            Shape::Histogram(bounds) => bounds.to_vec(),
            Shape::Counter | Shape::Gauge => Vec::new(),
        };
        Histogram::with_opts(HistogramOpts::new(*name, *help).buckets(bounds))
            .expect("constants that a test makes a histogram of")
    }
}

/// The labels of a sample, in the order of their names.
#[derive(Clone)]
pub(super) struct Labels(Vec<LabelPair>);

impl Labels {
    pub(super) fn new<const N: usize>(pairs: [(&'static str, &str); N]) -> Self {
        Self(pairs.map(pair).into())
    }

    /// These and more, however many.
    pub(super) fn with<'a>(mut self, more: impl Iterator<Item = (&'static str, &'a str)>) -> Self {
        self.0.extend(more.map(pair));
        self.0.sort_by(|one, other| one.name().cmp(other.name()));
        self
    }

    /// These and more.
    pub(super) fn and<const N: usize>(&self, more: [(&'static str, &str); N]) -> Self {
        self.clone().with(more.into_iter())
    }
}

fn pair((name, value): (&'static str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// Adds labels to every sample.
pub(super) fn add_labels<'a>(
    family: &mut MetricFamily,
    labels: impl Iterator<Item = (&'static str, &'a str)>,
) {
    let more: Vec<_> = labels.map(pair).collect();
    if more.is_empty() {
        return;
    }
    for sample in family.mut_metric() {
        let mut all = sample.take_label();
        all.extend(more.iter().cloned());
        all.sort_by(|one, other| one.name().cmp(other.name()));
        sample.set_label(all);
    }
}

/// Families of one name put together, in the order of their names. Of samples of one family that
/// have the same labels the last one stays.
pub(super) fn merged(families: impl Iterator<Item = MetricFamily>) -> Vec<MetricFamily> {
    let mut merged: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in families {
        match merged.entry(family.name().to_owned()) {
            Entry::Vacant(first) => {
                first.insert(family);
            }
            Entry::Occupied(earlier) => {
                let samples = family.take_metric();
                earlier.into_mut().mut_metric().extend(samples);
            }
        }
    }
    let mut families: Vec<_> = merged.into_values().collect();
    for family in &mut families {
        let mut seen = HashSet::new();
        let mut samples = family.take_metric();
        samples.reverse();
        samples.retain(|sample| seen.insert(labels_of(sample)));
        samples.reverse();
        family.set_metric(samples);
    }
    families
}

fn labels_of(sample: &proto::Metric) -> Vec<(String, String)> {
    let labels = sample.get_label().iter();
    labels
        .map(|label| (label.name().to_owned(), label.value().to_owned()))
        .collect()
}

/// Samples, put together by metric.
#[derive(Default)]
pub(super) struct Exposition(BTreeMap<&'static str, MetricFamily>);

impl Exposition {
    pub(super) fn count(&mut self, family: &'static Family, labels: &Labels, count: &Count) {
        let mut counter = proto::Counter::default();
        #[expect(
            clippy::cast_precision_loss,
            reason = "the format has no other numbers"
        )]
        counter.set_value(count.get() as f64);
        let mut sample = proto::Metric::default();
        sample.set_counter(counter);
        self.push(family, labels, sample);
    }

    pub(super) fn level(&mut self, family: &'static Family, labels: &Labels, level: &Level) {
        let mut gauge = proto::Gauge::default();
        #[expect(
            clippy::cast_precision_loss,
            reason = "the format has no other numbers"
        )]
        gauge.set_value(level.get() as f64);
        let mut sample = proto::Metric::default();
        sample.set_gauge(gauge);
        self.push(family, labels, sample);
    }

    /// Nothing, if nothing was observed.
    pub(super) fn distribution(&mut self, labels: &Labels, distribution: &Distribution) {
        if let Some(histogram) = distribution.histogram.get() {
            self.push(distribution.family, labels, histogram.metric());
        }
    }

    /// What it takes to write it.
    pub(super) fn into_families(self) -> impl Iterator<Item = MetricFamily> {
        self.0.into_values()
    }

    fn push(&mut self, family: &'static Family, labels: &Labels, mut sample: proto::Metric) {
        sample.set_label(labels.0.clone());
        let samples = self.0.entry(family.name).or_insert_with(|| {
            let mut samples = MetricFamily::default();
            samples.set_name(family.name.to_owned());
            samples.set_help(family.help.to_owned());
            samples.set_field_type(family.metric_type());
            samples
        });
        samples.mut_metric().push(sample);
    }
}

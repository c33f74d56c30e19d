use std::sync::Arc;

use prometheus::{
    IntCounter,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Reads a count.
pub(super) type Read = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What is counted where it happens, as a metric: it is read when somebody asks.
pub(super) struct Counted {
    name: &'static str,
    help: &'static str,
    read: Read,
    /// Describes the metric; its own value is never shown.
    description: IntCounter,
}

impl Counted {
    pub(super) fn new(
        name: &'static str,
        help: &'static str,
        read: Read,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            name,
            help,
            read,
            description: IntCounter::new(name, help)?,
        })
    }
}

impl Collector for Counted {
    fn desc(&self) -> Vec<&Desc> {
        self.description.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counter) = IntCounter::new(self.name, self.help) else {
            return Vec::new();
        };
        counter.inc_by((self.read)());
        counter.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_shown_as_it_is() {
        let counted = Counted::new("name", "Help.", Arc::new(|| 7)).expect("a metric");
        let shown = counted.collect();
        let metric = shown.first().and_then(|family| family.get_metric().first());
        let value = metric.map(|metric| metric.get_counter().get_value());
        assert_eq!(value, Some(7.0));
    }
}

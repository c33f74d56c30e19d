use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounterVec, Opts, core::Collector};

/// Metrics of changed settings.
pub(super) struct Reloads {
    successful: Gauge,
    timestamp: Gauge,
    total: IntCounterVec,
}

impl Reloads {
    /// What the daemon starts with was read whole.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let reloads = Self {
            successful: Gauge::new(
                "sidecar_config_last_reload_successful",
                "Whether the settings are in force as they were last read: 1, or 0 if they were refused.",
            )?,
            timestamp: Gauge::new(
                "sidecar_config_last_reload_success_timestamp_seconds",
                "When settings were last taken over, in seconds since the epoch.",
            )?,
            total: IntCounterVec::new(
                Opts::new(
                    "sidecar_config_reloads_total",
                    "Times that changed settings were taken over, or refused.",
                ),
                &["outcome"],
            )?,
        };
        reloads.settings_hold();
        Ok(reloads)
    }

    pub(super) fn collectors(&self) -> [Box<dyn Collector>; 3] {
        [
            Box::new(self.successful.clone()),
            Box::new(self.timestamp.clone()),
            Box::new(self.total.clone()),
        ]
    }

    pub(super) fn reloaded(&self, is_taken_over: bool) {
        let outcome = if is_taken_over {
            self.settings_hold();
            "taken_over"
        } else {
            self.successful.set(0.0);
            "refused"
        };
        self.total.with_label_values(&[outcome]).inc();
    }

    fn settings_hold(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.successful.set(1.0);
        self.timestamp.set(now.unwrap_or_default().as_secs_f64());
    }
}

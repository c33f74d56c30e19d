//! Figures with their units, in few columns.

use std::time::Duration;

/// Bytes, in powers of 1024: `120B`, `4.0K`, `1.5G`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    scaled(bytes as f64, 1024.0)
}

/// A rate of anything, in powers of 1000, with two digits or three: `0.0`, `12`, `1.5K`.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        ..9.95 => format!("{rate:.1}"),
        ..999.5 => format!("{rate:.0}"),
        _ => scaled(rate, 1000.0),
    }
}

/// Bytes a second, in powers of 1024: `0B`, `12B`, `1.5M`.
pub(super) fn byte_rate(rate: f64) -> String {
    match rate {
        ..1023.5 => format!("{rate:.0}B"),
        _ => scaled(rate, 1024.0),
    }
}

/// A latency: `850µs`, `1.2ms`, `12ms`, `3.4s`.
pub(super) fn latency(latency: Duration) -> String {
    let seconds = latency.as_secs_f64();
    match seconds {
        ..0.000_999_5 => format!("{:.0}µs", seconds * 1e6),
        ..0.009_95 => format!("{:.1}ms", seconds * 1e3),
        ..0.999_5 => format!("{:.0}ms", seconds * 1e3),
        ..9.95 => format!("{seconds:.1}s"),
        _ => format!("{seconds:.0}s"),
    }
}

/// An age: `5s`, `12m`, `3h`, `9d`.
pub(super) fn age(seconds: f64) -> String {
    for (unit, length) in [("d", 86_400.0), ("h", 3600.0), ("m", 60.0)] {
        if seconds >= 2.0 * length {
            return format!("{:.0}{unit}", (seconds / length).floor());
        }
    }
    format!("{:.0}s", seconds.floor())
}

/// Part of a whole: `100%`, `99.9%`, never rounded up to all or down to nothing.
pub(super) fn share(share: f64) -> String {
    match share * 100.0 {
        percent @ (0.0 | 100.0) => format!("{percent:.0}%"),
        percent => format!("{:.1}%", percent.clamp(0.1, 99.9)),
    }
}

fn scaled(value: f64, base: f64) -> String {
    let mut value = value / base;
    for prefix in ["K", "M", "G", "T"] {
        if value < 9.95 {
            return format!("{value:.1}{prefix}");
        }
        if value < base - 0.5 {
            return format!("{value:.0}{prefix}");
        }
        value /= base;
    }
    format!("{value:.0}P")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_take_few_columns() {
        for (count, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (10 << 10, "10K"),
            ((1 << 20) - 1, "1.0M"),
            (3 << 29, "1.5G"),
            (u64::MAX, "16384P"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (value, text) in [
            (0.0, "0.0"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0K"),
            (123_456.0, "123K"),
        ] {
            assert_eq!(rate(value), text);
        }
        assert_eq!(byte_rate(1023.4), "1023B");
        assert_eq!(byte_rate(1_572_864.0), "1.5M");
    }

    #[test]
    fn times_are_in_the_unit_that_fits() {
        for (micros, text) in [
            (0, "0µs"),
            (999, "999µs"),
            (1_200, "1.2ms"),
            (9_960, "10ms"),
            (999_400, "999ms"),
            (3_400_000, "3.4s"),
            (105_000_000, "105s"),
        ] {
            assert_eq!(latency(Duration::from_micros(micros)), text);
        }
        for (seconds, text) in [
            (0.9, "0s"),
            (119.0, "119s"),
            (121.0, "2m"),
            (7_300.0, "2h"),
            (200_000.0, "2d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn one_failure_in_a_million_is_no_full_success() {
        assert_eq!(share(1.0), "100%");
        assert_eq!(share(0.999_999), "99.9%");
        assert_eq!(share(0.000_001), "0.1%");
        assert_eq!(share(0.0), "0%");
    }
}

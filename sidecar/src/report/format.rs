//! Numbers for people: three digits, and the unit.

/// What stands where nothing is known.
pub const NOTHING: &str = "–";

/// A number with about three digits, such as `0.042`, `12.4` or `5 120`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e15 || !value.is_finite() {
        return format!("{value:.2e}");
    }
    let digits = match size {
        _ if value.fract() == 0.0 => 0,
        100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        _ => 3,
    };
    grouped(&format!("{value:.digits$}"))
}

/// Narrow spaces between thousands.
fn grouped(text: &str) -> String {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let mut out = String::new();
    let digits = whole.trim_start_matches('-').len();
    for (at, character) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if left < digits && left % 3 == 0 && digits > 4 {
            out.push('\u{202f}');
        }
        out.push(character);
    }
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
    out
}

/// A share of all, such as `99.2 %`. What is not quite all is never shown as all.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        100.0 => "100 %".into(),
        99.9..100.0 => format!("{:.2} %", (percent * 100.0).floor() / 100.0),
        10.0.. => format!("{percent:.1} %"),
        _ if percent == 0.0 => "0 %".into(),
        _ => format!("{percent:.2} %"),
    }
}

/// A time, such as `420 µs`, `4.2 ms` or `1.5 s`.
pub fn seconds(value: f64) -> String {
    match value.abs() {
        1.0.. => format!("{} s", number(value)),
        0.001..1.0 => format!("{} ms", digits(value * 1e3)),
        _ if value == 0.0 => "0 s".into(),
        _ => format!("{} µs", digits(value * 1e6)),
    }
}

/// Three digits, without zeros at the end.
fn digits(value: f64) -> String {
    let places = match value {
        100.0.. => 0,
        10.0..100.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A long time, such as `23 h 59 min`, rounded down.
pub fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).floor();
    match minutes {
        2880.0.. => format!("{} d", number((minutes / 1440.0).floor())),
        60.0..2880.0 => format!("{} h {} min", (minutes / 60.0).floor(), minutes % 60.0),
        1.0..60.0 => format!("{minutes} min"),
        _ => format!("{} s", seconds.floor()),
    }
}

/// Bytes, in powers of 1000.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut scaled = value;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    while scaled >= 1000.0
        && let Some(next) = units.next()
    {
        scaled /= 1000.0;
        unit = next;
    }
    format!("{} {unit}", digits(scaled))
}

/// How it reads, or [`NOTHING`].
pub fn or_nothing(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| NOTHING.into(), format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.04217, "0.042"),
            (12.44, "12.4"),
            (512.3, "512"),
            (1234.0, "1234"),
            (1_234_567.0, "1\u{202f}234\u{202f}567"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn what_is_not_all_is_not_shown_as_all() {
        for (share, text) in [
            (1.0, "100 %"),
            (0.999_99, "99.99 %"),
            (0.992, "99.2 %"),
            (0.001, "0.10 %"),
            (0.0, "0 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn times_and_sizes_have_units() {
        for (value, text) in [
            (0.000_42, "420 µs"),
            (0.0042, "4.2 ms"),
            (1.5, "1.50 s"),
            (0.0, "0 s"),
        ] {
            assert_eq!(seconds(value), text);
        }
        for (value, text) in [
            (59.9, "59 s"),
            (86_340.0, "23 h 59 min"),
            (864_000.0, "10 d"),
        ] {
            assert_eq!(span(value), text);
        }
        for (value, text) in [(999.0, "999 B"), (1500.0, "1.5 kB"), (2e9, "2 GB")] {
            assert_eq!(bytes(value), text);
        }
    }
}

//! What the readings of all rounds say together.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::{load::Reading, site::NAMES};

/// Everything that was read, by what was measured and at which site.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    what: &'static str,
    unit: &'static str,
    /// The readings at each site, round by round.
    sites: [Vec<f64>; NAMES.len()],
}

impl Report {
    /// Adds what was read at the site with this number. Rows keep the order in which they came.
    pub fn add(&mut self, site: usize, readings: Vec<Reading>) {
        for Reading { what, unit, value } in readings {
            let known = self.rows.iter().position(|row| row.what == what);
            let index = known.unwrap_or_else(|| {
                let sites = Default::default();
                self.rows.push(Row { what, unit, sites });
                self.rows.len() - 1
            });
            self.rows[index].sites[site].push(value);
        }
    }

    /// Medians with their spread, and what they are in relation to those of the first site.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED.with_rounded_corners());
        let [first, others @ ..] = NAMES;
        let ratios = others.map(|name| format!("{name} : {first}"));
        let names = [""].into_iter().chain(NAMES).map(str::to_owned);
        table.set_header(names.chain(ratios));
        for Row { what, unit, sites } in &self.rows {
            let medians = sites.each_ref().map(|readings| median(readings));
            let values = sites.iter().map(|readings| with_spread(readings));
            let ratios = medians[1..].iter().map(|value| ratio(*value, medians[0]));
            let right = |number| Cell::new(number).set_alignment(CellAlignment::Right);
            let name = Cell::new(format!("{what}, {unit}"));
            table.add_row([name].into_iter().chain(values.chain(ratios).map(right)));
        }
        table
    }

    /// Every reading, for programs.
    pub fn json(&self) -> Value {
        self.rows
            .iter()
            .map(|Row { what, unit, sites }| {
                let sites: serde_json::Map<_, _> = NAMES
                    .iter()
                    .zip(sites)
                    .map(|(name, readings)| ((*name).to_owned(), json!(readings)))
                    .collect();
                json!({ "what": what, "unit": unit, "readings": sites })
            })
            .collect()
    }
}

fn median(readings: &[f64]) -> f64 {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The median and how far the readings are apart, half to each side.
fn with_spread(readings: &[f64]) -> String {
    let median = median(readings);
    if median <= 0.0 {
        return NOTHING.to_owned();
    }
    let lowest = readings.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = readings.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let spread = (highest - lowest) / 2.0 / median * 100.0;
    format!("{} ±{spread:.0} %", number(median))
}

fn ratio(value: f64, to: f64) -> String {
    if to > 0.0 {
        format!("{:.2}", value / to)
    } else {
        NOTHING.to_owned()
    }
}

/// Stands where there is nothing to compare: no sidecar takes no processor time.
const NOTHING: &str = "–";

/// About three digits that count.
fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sites: [&[f64]; NAMES.len()]) -> Report {
        let mut report = Report::default();
        for (site, readings) in sites.iter().enumerate() {
            for value in *readings {
                let (what, unit) = ("requests", "1/s");
                report.add(
                    site,
                    vec![Reading {
                        what,
                        unit,
                        value: *value,
                    }],
                );
            }
        }
        report
    }

    #[test]
    fn a_row_shows_medians_spreads_and_ratios() {
        let table = report([&[300.0, 100.0, 200.0], &[150.0, 250.0], &[50.0], &[40.0]]).table();

        let row = table.lines().find(|line| line.contains("requests"));
        let cells: Vec<_> = row
            .iter()
            .flat_map(|row| row.split(['│', '┆']))
            .map(str::trim)
            .collect();
        let expected = [
            "",
            "requests, 1/s",
            "200 ±50 %",
            "200 ±25 %",
            "50.0 ±0 %",
            "40.0 ±0 %",
            "1.00",
            "0.25",
            "0.20",
            "",
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn what_takes_nothing_without_a_sidecar_has_no_ratio() {
        assert_eq!(with_spread(&[0.0, 0.0]), NOTHING);
        assert_eq!(ratio(3.0, 0.0), NOTHING);
    }

    #[test]
    fn programs_get_every_reading() {
        let json = report([&[1.0, 2.0], &[], &[3.0], &[]]).json();

        assert_eq!(json[0]["readings"]["direct"], json!([1.0, 2.0]));
        assert_eq!(json[0]["readings"]["mutual TLS"], json!([3.0]));
    }
}

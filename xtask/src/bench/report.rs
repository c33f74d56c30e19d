//! What the readings of all rounds say together.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::load::{Better, Reading};

/// Everything that was read, by what was measured and at which site.
pub struct Report {
    sites: Vec<String>,
    /// How many of the sites, the last ones, are peers', and the number of the one they are compared
    /// with.
    peers: usize,
    ours: usize,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    unit: &'static str,
    better: Better,
    /// The readings at each site, round by round.
    sites: Vec<Vec<f64>>,
}

impl Report {
    /// An empty one, on sites of which the first is what the others are set in relation to, and the
    /// last ones, so many, are those of peers, that the one with the number `ours` is compared with.
    pub fn new(sites: Vec<String>, ours: usize, peers: usize) -> Self {
        Self {
            sites,
            peers,
            ours,
            rows: Vec::new(),
        }
    }

    /// What [`Self::json`] wrote of these sites.
    pub fn read(json: &Value, sites: Vec<String>, ours: usize, peers: usize) -> Option<Self> {
        let mut report = Self::new(sites, ours, peers);
        for row in json.as_array()? {
            // Nothing else is the better the more there is of it.
            let (unit, better) = match row["unit"].as_str()? {
                "1/s" => ("1/s", Better::Higher),
                "Gbit/s" => ("Gbit/s", Better::Higher),
                "µs" => ("µs", Better::Lower),
                "ms" => ("ms", Better::Lower),
                "s" => ("s", Better::Lower),
                "MB" => ("MB", Better::Lower),
                "KB" => ("KB", Better::Lower),
                "" => ("", Better::Lower),
                _ => return None,
            };
            let readings = |site: &String| {
                let readings = row["readings"][site].as_array();
                let readings = readings.into_iter().flatten();
                readings.filter_map(Value::as_f64).collect()
            };
            report.rows.push(Row {
                what: row["what"].as_str()?.to_owned(),
                unit,
                better,
                sites: report.sites.iter().map(readings).collect(),
            });
        }
        Some(report)
    }

    /// Adds what was read at the site with this number. Rows keep the order in which they came.
    pub fn add(&mut self, site: usize, readings: Vec<Reading>) {
        for Reading {
            what,
            unit,
            better,
            value,
        } in readings
        {
            let known = self.rows.iter().position(|row| row.what == what);
            let index = known.unwrap_or_else(|| {
                self.rows.push(Row {
                    what,
                    unit,
                    better,
                    sites: vec![Vec::new(); self.sites.len()],
                });
                self.rows.len() - 1
            });
            self.rows[index].sites[site].push(value);
        }
    }

    /// The lowest of all sites' medians of what was measured under this name.
    pub fn lowest(&self, what: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.what == what)?;
        let medians = row.sites.iter().map(|readings| median(readings));
        medians
            .filter(|median| median.is_finite())
            .min_by(f64::total_cmp)
    }

    /// What was measured, its unit, and each site's median.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, Vec<f64>)> {
        self.rows.iter().map(|row| {
            let medians = row.sites.iter().map(|readings| median(readings));
            (&*row.what, row.unit, medians.collect())
        })
    }

    pub fn sites(&self) -> &[String] {
        &self.sites
    }

    /// Medians with their spread.
    pub fn medians(&self) -> Table {
        let mut table = table(self.sites.iter().cloned());
        for row in &self.rows {
            let values = row.sites.iter().map(|readings| with_spread(readings));
            table.add_row(row.cells(values));
        }
        table
    }

    /// What the medians are in relation to those of the first site, and ours to the best peer's.
    pub fn ratios(&self) -> Table {
        let [_, others @ ..] = &*self.sites else {
            return Table::new();
        };
        let best = (self.peers > 0).then(|| format!("{} of best peer", self.sites[self.ours]));
        let ratios = others.iter().cloned();
        let mut table = table(ratios.chain(best));
        for row in &self.rows {
            let medians: Vec<_> = row.sites.iter().map(|readings| median(readings)).collect();
            let ratios = medians[1..].iter().map(|value| ratio(*value, medians[0]));
            let best = (self.peers > 0).then(|| self.to_best_peer(row.better, &medians));
            table.add_row(row.cells(ratios.chain(best)));
        }
        table
    }

    /// Our median in relation to that of the best peer, and whose that is.
    fn to_best_peer(&self, better: Better, medians: &[f64]) -> String {
        let peers = self
            .sites
            .iter()
            .zip(medians)
            .skip(self.sites.len() - self.peers);
        let peers = peers.filter(|(_, median)| median.is_finite());
        let best = match better {
            Better::Higher => peers.max_by(|(_, a), (_, b)| a.total_cmp(b)),
            Better::Lower => peers.min_by(|(_, a), (_, b)| a.total_cmp(b)),
        };
        best.map_or_else(
            || NOTHING.to_owned(),
            |(name, best)| format!("{} ({name})", ratio(medians[self.ours], *best)),
        )
    }

    /// Of one row: what is without, switched off, and with a sidecar, the ratio of the last to the first and to
    /// the best peer; and of another row what is with one.
    pub fn cells(&self, what: &str, and: Option<&str>) -> Option<[String; 6]> {
        let row = self.rows.iter().find(|row| row.what == what)?;
        let medians: Vec<_> = row.sites.iter().map(|readings| median(readings)).collect();
        let with_unit = |row: &Row, site: usize| {
            let median = median(&row.sites[site]);
            if median > 0.0 {
                format!("{} {}", number(median), row.unit)
            } else {
                NOTHING.to_owned()
            }
        };
        let (direct, off) = (0, 1);
        let other = match and {
            Some(and) => with_unit(self.rows.iter().find(|row| row.what == and)?, self.ours),
            None => NOTHING.to_owned(),
        };
        Some([
            with_unit(row, direct),
            ratio(medians[off], medians[direct]),
            with_unit(row, self.ours),
            ratio(medians[self.ours], medians[direct]),
            self.to_best_peer(row.better, &medians),
            other,
        ])
    }

    /// How far readings of these rows are apart, without a sidecar and with ours: the most, half to each side,
    /// in percent of the median.
    pub fn widest_spread<'a>(&self, rows: impl IntoIterator<Item = &'a str>) -> f64 {
        let rows = rows.into_iter();
        let rows = rows.filter_map(|what| self.rows.iter().find(|row| row.what == what));
        let readings = rows.flat_map(|row| [&row.sites[0], &row.sites[self.ours]]);
        readings
            .map(|readings| spread(readings))
            .fold(0.0, f64::max)
    }

    /// Every reading, for programs.
    pub fn json(&self) -> Value {
        self.rows
            .iter()
            .map(|row| {
                let sites: serde_json::Map<_, _> = { self.sites.iter().cloned() }
                    .zip(row.sites.iter().map(|readings| json!(readings)))
                    .collect();
                json!({ "what": row.what, "unit": row.unit, "readings": sites })
            })
            .collect()
    }
}

/// One with these columns after that of the rows' names.
fn table(columns: impl Iterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_header([String::new()].into_iter().chain(columns));
    table
}

impl Row {
    fn cells(&self, numbers: impl Iterator<Item = String>) -> Vec<Cell> {
        let name = if self.unit.is_empty() {
            Cell::new(&self.what)
        } else {
            Cell::new(format!("{}, {}", self.what, self.unit))
        };
        let right = |number| Cell::new(number).set_alignment(CellAlignment::Right);
        [name].into_iter().chain(numbers.map(right)).collect()
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
    if median.is_nan() || median <= 0.0 {
        return NOTHING.to_owned();
    }
    format!("{} ±{:.0} %", number(median), spread(readings))
}

/// How far they are apart, half to each side, in percent of the median.
fn spread(readings: &[f64]) -> f64 {
    let lowest = readings.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = readings.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (highest - lowest) / 2.0 / median(readings) * 100.0
}

fn ratio(value: f64, to: f64) -> String {
    if to > 0.0 && value.is_finite() {
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

    const SITES: [&str; 4] = ["direct", "mutual TLS", "first peer", "second peer"];

    fn report(better: Better, peers: usize, sites: [&[f64]; SITES.len()]) -> Report {
        let mut report = Report::new(SITES.map(str::to_owned).to_vec(), 1, peers);
        for (site, readings) in sites.iter().enumerate() {
            for value in *readings {
                let reading = Reading {
                    what: "requests".to_owned(),
                    unit: "1/s",
                    better,
                    value: *value,
                };
                report.add(site, vec![reading]);
            }
        }
        report
    }

    /// The cells of the row with this start.
    fn cells(table: &Table, start: &str) -> Vec<String> {
        let row = table.lines().find(|line| line.contains(start));
        let cells = row.iter().flat_map(|row| row.split(['│', '┆']));
        let cells: Vec<_> = cells.map(|cell| cell.trim().to_owned()).collect();
        cells[1..cells.len() - 1].to_vec()
    }

    #[test]
    fn a_row_shows_medians_spreads_and_ratios() {
        let report = report(
            Better::Higher,
            0,
            [&[300.0, 100.0, 200.0], &[150.0, 250.0], &[50.0], &[40.0]],
        );

        let medians = [
            "requests, 1/s",
            "200 ±50 %",
            "200 ±25 %",
            "50.0 ±0 %",
            "40.0 ±0 %",
        ];
        assert_eq!(cells(&report.medians(), "requests"), medians);
        let ratios = ["requests, 1/s", "1.00", "0.25", "0.20"];
        assert_eq!(cells(&report.ratios(), "requests"), ratios);
    }

    #[test]
    fn the_best_peer_has_most_of_what_is_good_and_least_of_what_is_not() {
        let best = |better| {
            let report = report(better, 2, [&[100.0], &[30.0], &[20.0], &[40.0]]);
            cells(&report.ratios(), "requests").pop()
        };

        assert_eq!(best(Better::Higher).as_deref(), Some("0.75 (second peer)"));
        assert_eq!(best(Better::Lower).as_deref(), Some("1.50 (first peer)"));
    }

    #[test]
    fn what_takes_nothing_without_a_sidecar_has_no_ratio() {
        assert_eq!(with_spread(&[0.0, 0.0]), NOTHING);
        assert_eq!(ratio(3.0, 0.0), NOTHING);
        assert_eq!(ratio(median(&[]), 3.0), NOTHING);
    }

    #[test]
    fn programs_get_every_reading() {
        let json = report(Better::Higher, 0, [&[1.0, 2.0], &[3.0], &[], &[]]).json();

        assert_eq!(json[0]["readings"]["direct"], json!([1.0, 2.0]));
        assert_eq!(json[0]["readings"]["mutual TLS"], json!([3.0]));
        let sites = SITES.map(str::to_owned).to_vec();
        let read = Report::read(&json, sites, 1, 0).expect("what was written");
        assert_eq!(read.json(), json);
    }
}

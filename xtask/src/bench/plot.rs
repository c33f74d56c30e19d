//! What was measured as pictures.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use plotters::{
    chart::ChartBuilder,
    drawing::IntoDrawingArea as _,
    element::{Rectangle, Text},
    prelude::SVGBackend,
    series::LineSeries,
    style::{Color as _, RGBColor, WHITE},
};

use super::report::Report;

/// Told apart also by those who do not see all colours (Okabe and Ito).
const COLOURS: [RGBColor; 9] = [
    RGBColor(0x99, 0x99, 0x99),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0xF0, 0xE4, 0x42),
];

/// In pixels.
const WIDTH: u32 = 900;
const ROW: u32 = 18;
const MARGIN: u32 = 40;
const NAMES: i32 = 330;

/// Draws each row of the report whose name ends so as a group of bars, one for each site: the longer, the
/// more. `to_first` sets them in relation to the first site, which has no bar then.
pub fn bars(report: &Report, ending: &str, to_first: bool, path: &Path) -> anyhow::Result<()> {
    let rows: Vec<_> = report
        .rows()
        .filter(|(what, ..)| what.ends_with(ending))
        .collect();
    let skipped = usize::from(to_first);
    let sites = &report.sites()[skipped..];
    let group = u32::try_from(sites.len() + 1)? * ROW;
    let height = MARGIN + group * u32::try_from(rows.len().max(1))?;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        root.fill(&WHITE)?;
        let font = ("sans-serif", 13);
        let note = if to_first {
            format!("{ending}, in relation to {}", report.sites()[0])
        } else {
            ending.to_owned()
        };
        root.draw(&Text::new(note, (10, 10), ("sans-serif", 15)))?;
        let mut top = i32::try_from(MARGIN)?;
        for (what, unit, medians) in &rows {
            let name = what.strip_suffix(ending).unwrap_or(what);
            let name = name.trim_end_matches([':', ' ']);
            root.draw(&Text::new(name.to_owned(), (10, top + 2), font))?;
            let values: Vec<_> = medians[skipped..]
                .iter()
                .map(|value| if to_first { value / medians[0] } else { *value })
                .collect();
            let most = values.iter().copied().filter(|value| value.is_finite());
            let most = most.fold(f64::MIN_POSITIVE, f64::max);
            let colours = COLOURS.iter().cycle().skip(skipped);
            for ((site, value), colour) in sites.iter().zip(&values).zip(colours) {
                top += i32::try_from(ROW)?;
                root.draw(&Text::new(site.clone(), (NAMES - 110, top + 2), font))?;
                if !value.is_finite() {
                    continue;
                }
                #[expect(clippy::cast_possible_truncation, reason = "it is within the picture")]
                let length = (value / most * f64::from(WIDTH - 430)) as i32;
                let corners = [(NAMES, top), (NAMES + length.max(1), top + 14)];
                root.draw(&Rectangle::new(corners, colour.filled()))?;
                let unit = if to_first { "" } else { unit };
                let text = format!("{value:.3} {unit}");
                root.draw(&Text::new(text, (NAMES + length + 6, top + 2), font))?;
            }
            top += i32::try_from(ROW)?;
        }
        root.present()?;
        Ok(())
    };
    drawn(draw(), path)
}

/// Draws how a number changes with the number of open connections, which the rows' names begin with.
pub fn over_open(report: &Report, ending: &str, path: &Path) -> anyhow::Result<()> {
    let middle = " open connections: ";
    let points: Vec<_> = report
        .rows()
        .filter_map(|(what, unit, medians)| {
            let (open, what) = what.split_once(middle)?;
            (what == ending).then(|| Some((open.parse::<f64>().ok()?, unit, medians)))?
        })
        .collect();
    let Some((most_open, unit, _)) = points.last() else {
        return Ok(());
    };
    let values = points.iter().flat_map(|(.., medians)| medians);
    let most = values.copied().filter(|value| value.is_finite());
    let most = most.fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let root = SVGBackend::new(path, (WIDTH, 360)).into_drawing_area();
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(format!("{ending}, {unit}"), ("sans-serif", 15))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..*most_open, 0.0..most)?;
        chart
            .configure_mesh()
            .x_desc("open connections beside")
            .disable_x_mesh()
            .max_light_lines(0)
            .x_label_formatter(&|open| format!("{open:.0}"))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .draw()?;
        for (column, site) in report.sites().iter().enumerate() {
            let line: Vec<_> = points
                .iter()
                .map(|(open, _, medians)| (*open, medians[column]))
                .filter(|(_, value)| value.is_finite())
                .collect();
            let Some(end) = line.last().copied() else {
                continue;
            };
            let colour = COLOURS[column % COLOURS.len()];
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            let label = Text::new(site.clone(), (end.0 * 0.9, end.1), ("sans-serif", 13));
            chart.draw_series([label])?;
        }
        root.present()?;
        Ok(())
    };
    drawn(draw(), path)
}

fn drawn(result: Result<(), Box<dyn std::error::Error>>, path: &Path) -> anyhow::Result<()> {
    result
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("cannot draw {}", path.display()))
}

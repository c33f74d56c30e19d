//! Histograms as curves: the share that took at most so long.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::{
    backend::DrawingBackend,
    chart::ChartBuilder,
    coord::combinators::IntoLogRange as _,
    drawing::{DrawingAreaErrorKind, IntoDrawingArea as _},
    element::Circle,
    prelude::SVGBackend,
    series::LineSeries,
    style::{Color as _, IntoFont as _, RGBColor, TextStyle},
};

use super::{format, histogram::Histogram};

/// In pixels, before the page scales it.
const SIZE: (u32, u32) = (520, 260);

/// Colours that the style sheet replaces by those of the page, in light and in dark.
const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);
const SERIES: [RGBColor; 2] = [RGBColor(0x00, 0x00, 0x01), RGBColor(0x00, 0x00, 0x02)];

/// One curve.
pub struct Curve<'a> {
    /// What it shows, for the legend.
    pub name: &'a str,
    /// What it is drawn from.
    pub histogram: &'a Histogram,
}

/// Draws at most two curves over a logarithmic axis of time. `None` if there is nothing to draw.
///
/// `number` tells pictures of a page apart; `title` and `description` are for those who do not see it.
pub fn curves(
    number: usize,
    title: &str,
    description: &str,
    curves: &[Curve<'_>],
) -> Option<Markup> {
    let curves: Vec<_> = curves
        .iter()
        .zip(SERIES)
        .map(|(curve, colour)| (curve, colour, points(curve.histogram)))
        .filter(|(.., points)| !points.is_empty())
        .collect();
    let range = range(curves.iter().flat_map(|(.., points)| points))?;
    let mut svg = String::new();
    let lines = curves.iter().map(|(_, colour, points)| (*colour, points));
    // Writing to a string cannot fail.
    draw(SVGBackend::with_string(&mut svg, SIZE), range, lines).ok()?;
    // The backend's own element has neither a title nor a size that adapts.
    let inner = svg.split_once('>').map(|(_, inner)| inner)?;
    let inner = inner.trim_end().strip_suffix("</svg>")?;
    let (width, height) = SIZE;
    let ids = (
        format!("plot-{number}-title"),
        format!("plot-{number}-desc"),
    );
    Some(html! {
        svg.plot viewBox={ "0 0 " (width) " " (height) } role="img"
            aria-labelledby={ (ids.0) " " (ids.1) } {
            title id=(ids.0) { (title) }
            desc id=(ids.1) { (description) }
            (PreEscaped(inner))
        }
        ul.legend {
            @for (at, (curve, ..)) in curves.iter().enumerate() {
                li { span class={ "key key-" (at + 1) } {} (curve.name) ": " (quantiles(curve.histogram)) }
            }
        }
    })
}

/// The usual three quantiles, in words.
pub fn quantiles(histogram: &Histogram) -> String {
    let named = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)].map(|(name, share)| {
        let value = format::or_nothing(histogram.quantile(share), format::seconds);
        format!("{name} {value}")
    });
    named.join(", ")
}

/// The part of the curve in which something happens: from the last bound below all to the first
/// above all.
fn points(histogram: &Histogram) -> Vec<(f64, f64)> {
    let shares = histogram.shares();
    let first = shares.iter().rposition(|(_, share)| *share <= 0.0);
    let last = shares.iter().position(|(_, share)| *share >= 1.0);
    let last = last.map_or(shares.len(), |last| last + 1);
    let mut points = shares[first.unwrap_or(0).min(last)..last].to_vec();
    // All in the first bucket: a curve takes two points.
    if let [(bound, share)] = points[..] {
        points.insert(0, (bound / 2.0, 0.0_f64.min(share)));
    }
    points
}

fn range<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Option<Range<f64>> {
    let range = points.fold(f64::INFINITY..0.0, |range, (bound, _)| {
        range.start.min(*bound)..range.end.max(*bound)
    });
    (range.start > 0.0 && range.start < range.end).then_some(range)
}

fn draw<'a, Backend: DrawingBackend>(
    backend: Backend,
    range: Range<f64>,
    lines: impl Iterator<Item = (RGBColor, &'a Vec<(f64, f64)>)>,
) -> Result<(), DrawingAreaErrorKind<Backend::ErrorType>> {
    let area = backend.into_drawing_area();
    let text = TextStyle::from(("sans-serif", 13).into_font()).color(&INK);
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .margin_right(24)
        .x_label_area_size(28)
        .y_label_area_size(46)
        .build_cartesian_2d(range.log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|bound| format::seconds(*bound))
        .y_label_formatter(&|share: &f64| format!("{:.0} %", share * 100.0))
        .label_style(text)
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .draw()?;
    for (colour, points) in lines {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart.draw_series(line)?;
        let dots = points
            .iter()
            .map(|point| Circle::new(*point, 3, colour.filled()));
        chart.draw_series(dots)?;
    }
    area.present()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::{pair::Pair, scrape::Scrape};

    fn histogram(text: &str) -> Histogram {
        let pair = Pair {
            source: String::new(),
            before: Scrape::default(),
            after: Scrape::parse(text).expect("a scrape"),
            interval: Duration::from_secs(1),
        };
        let mut histogram = Histogram::default();
        for (labels, count) in pair.counts("x_bucket") {
            histogram.count(labels, count);
        }
        histogram
    }

    fn drawn(histogram: &Histogram) -> Option<String> {
        let curve = Curve {
            name: "<whole>",
            histogram,
        };
        curves(1, "a & b", "how long", &[curve]).map(PreEscaped::into_string)
    }

    #[test]
    fn a_curve_has_a_point_for_each_bound_in_which_something_happens() {
        let histogram = histogram(
            "x_bucket{le=\"0.001\"} 0\nx_bucket{le=\"0.01\"} 5\nx_bucket{le=\"0.1\"} 10\n\
             x_bucket{le=\"1\"} 10\nx_bucket{le=\"+Inf\"} 10\n",
        );
        assert_eq!(points(&histogram), [(0.001, 0.0), (0.01, 0.5), (0.1, 1.0)]);
        let svg = drawn(&histogram).expect("a picture");
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        assert!(
            svg.contains("a &amp; b") && svg.contains("&lt;whole&gt;"),
            "{svg}"
        );
        assert_eq!(svg.matches("<svg").count(), 1);
    }

    #[test]
    fn all_in_one_bucket_is_still_a_curve() {
        for text in [
            "x_bucket{le=\"0.1\"} 3\nx_bucket{le=\"1\"} 3\nx_bucket{le=\"+Inf\"} 3\n",
            "x_bucket{le=\"0.1\"} 0\nx_bucket{le=\"1\"} 0\nx_bucket{le=\"+Inf\"} 3\n",
        ] {
            let histogram = histogram(text);
            assert!(points(&histogram).len() >= 2);
            drawn(&histogram).expect("a picture");
        }
    }

    #[test]
    fn nothing_is_no_picture() {
        assert_eq!(drawn(&Histogram::default()), None);
    }
}

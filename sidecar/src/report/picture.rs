//! The service graph, drawn.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{
    graph::{Layout, PORT, Point, WIDTH},
    network::{Edge, Network, Node},
};

/// Size of what is written at an edge.
const LABEL: (f64, f64) = (172.0, PORT - 10.0);

/// An upper left corner, and a size.
type Area = (Point, (f64, f64));

/// Draws it.
pub fn picture(network: &Network<'_>) -> Markup {
    let ends: Vec<_> = network
        .edges
        .iter()
        .map(|edge| (edge.client, edge.server))
        .collect();
    let layout = Layout::new(network.nodes.len(), &ends);
    let labels = labels(&layout);
    let (width, height) = (layout.width, layout.height);
    html! {
        svg.graph viewBox={ "0 0 " (width) " " (height) } style={ "max-width:" (width) "px" } role="img"
            aria-labelledby="graph-title graph-desc" {
            title id="graph-title" { "Service graph" }
            desc id="graph-desc" {
                @for edge in &network.edges { (sentence(network, edge)) " " }
            }
            defs {
                @for kind in ["mutual", "plain"] {
                    marker id={ "arrow-" (kind) } class={ "arrow " (kind) } viewBox="0 0 10 10" refX="9" refY="5"
                        markerWidth="7" markerHeight="7" orient="auto-start-reverse" {
                        path d="M0 0 L10 5 L0 10 z" {}
                    }
                }
            }
            @for (edge, path) in network.edges.iter().zip(&layout.edges) {
                path class={ "edge " (kind(edge)) } d=(curve(path, edge)) marker-end={ "url(#arrow-" (kind(edge)) ")" } {}
            }
            @for (node, place) in network.nodes.iter().zip(&layout.nodes) { (drawn(node, *place)) }
            @for (edge, at) in network.edges.iter().zip(labels) { (label(edge, at)) }
        }
    }
}

fn kind(edge: &Edge<'_>) -> &'static str {
    if edge.parties.is_mutual() {
        "mutual"
    } else {
        "plain"
    }
}

/// An edge in words, for those who do not see it.
fn sentence(network: &Network<'_>, edge: &Edge<'_>) -> String {
    format!(
        "{} to {}: {}, {}.",
        network.nodes[edge.client].name(),
        network.nodes[edge.server].name(),
        edge.traffic(),
        edge.manner()
    )
}

fn drawn(node: &Node, ((x, y), height): (Point, f64)) -> Markup {
    let class = match node {
        Node::Workload(_) => "node",
        _ => "node outside",
    };
    let middle = y + height / 2.0;
    html! {
        g class=(class) {
            title { (node.identity()) }
            rect x=(x) y=(y) width=(WIDTH) height=(height) rx="10" {}
            text.name x=(x + WIDTH / 2.0) y=(middle - 4.0) { (node.name()) }
            text.id x=(x + WIDTH / 2.0) y=(middle + 15.0) { (shortened(node.identity())) }
        }
    }
}

/// An identity that fits into a node: the middle is left out, for the ends tell more.
fn shortened(identity: &str) -> String {
    const LONGEST: usize = 46;
    const END: usize = 26;
    let count = identity.chars().count();
    if count <= LONGEST {
        return identity.to_owned();
    }
    let begin: String = identity.chars().take(LONGEST - END - 1).collect();
    let end: String = identity.chars().skip(count - END).collect();
    format!("{begin}…{end}")
}

fn label(edge: &Edge<'_>, ((x, y), (width, height)): Area) -> Markup {
    let middle = x + width / 2.0;
    html! {
        g class={ "label " (kind(edge)) } {
            rect x=(x) y=(y) width=(width) height=(height) rx="6" {}
            text x=(middle) y=(y + 15.0) { (edge.traffic()) }
            text.manner x=(middle) y=(y + 30.0) { (edge.manner()) }
        }
    }
}

/// Smooth from point to point; from a node to itself, round above it.
fn curve(path: &[Point], edge: &Edge<'_>) -> String {
    let [(x, y), .., (end_x, end_y)] = path[..] else {
        return String::new();
    };
    if edge.client == edge.server {
        let top = y.min(end_y) - 60.0;
        return format!(
            "M{x} {y} C{} {top} {} {top} {end_x} {end_y}",
            x + 40.0,
            end_x - 40.0
        );
    }
    let mut curve = format!("M{x} {y}");
    for pair in path.windows(2) {
        let ((from_x, from_y), (to_x, to_y)) = (pair[0], pair[1]);
        let bend = f64::midpoint(from_x, to_x);
        // Writing to a string cannot fail.
        let _ = write!(curve, " C{bend} {from_y} {bend} {to_y} {to_x} {to_y}");
    }
    curve
}

/// Where to write at each edge: on it, where nothing stands yet.
fn labels(layout: &Layout) -> Vec<Area> {
    let mut taken: Vec<Area> = layout
        .nodes
        .iter()
        .map(|(corner, height)| (*corner, (WIDTH, *height)))
        .collect();
    let mut labels = Vec::new();
    for path in &layout.edges {
        let candidates =
            || places(path).map(|(x, y)| ((x - LABEL.0 / 2.0, y - LABEL.1 / 2.0), LABEL));
        let free = candidates().find(|area| !taken.iter().any(|other| overlap(*area, *other)));
        let area = free.or_else(|| candidates().next());
        let area = area.unwrap_or(((0.0, 0.0), LABEL));
        taken.push(area);
        labels.push(area);
    }
    labels
}

/// Points of an edge between layers, those in the middle first; then beside it.
fn places(path: &[Point]) -> impl Iterator<Item = Point> + '_ {
    const PARTS: [f64; 7] = [0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74];
    const BESIDE: [f64; 5] = [0.0, -22.0, 22.0, -44.0, 44.0];
    BESIDE.iter().flat_map(move |beside| {
        PARTS.iter().flat_map(move |part| {
            // Every other piece lies in a layer.
            path.windows(2).step_by(2).map(move |pair| {
                let (x, y) = along(pair[0], pair[1], *part);
                (x, y + beside)
            })
        })
    })
}

/// A point of the curve between two: see [`curve`], whose controls are half-way across.
fn along((x, y): Point, (to_x, to_y): Point, part: f64) -> Point {
    let (t, u) = (part, 1.0 - part);
    let across = 1.5 * t * u * u + 1.5 * t * t * u + t * t * t;
    let down = 3.0 * t * t * u + t * t * t;
    (x + (to_x - x) * across, y + (to_y - y) * down)
}

fn overlap(((x, y), (width, height)): Area, ((other_x, other_y), (w, h)): Area) -> bool {
    x < other_x + w && other_x < x + width && y < other_y + h && other_y < y + height
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_at_edges_overlaps_nothing() {
        for edges in [
            &[(0, 2), (0, 3), (1, 2), (1, 3)][..],
            &[(0, 1), (0, 1), (1, 0)],
            &[(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)],
        ] {
            let layout = Layout::new(4, edges);
            let labels = labels(&layout);
            for (one, area) in labels.iter().enumerate() {
                for other in &labels[one + 1..] {
                    assert!(!overlap(*area, *other), "{edges:?}: {labels:?}");
                }
            }
        }
    }

    #[test]
    fn the_ends_of_a_long_identity_stay() {
        let long = "spiffe://cluster.example/ns/very-long-namespace/sa/checkout-service";
        let short = shortened(long);
        assert!(
            short.starts_with("spiffe://cluster.ex") && short.ends_with("/sa/checkout-service")
        );
        assert_eq!(short.chars().count(), 46);
        assert_eq!(shortened("spiffe://a/b"), "spiffe://a/b");
    }
}

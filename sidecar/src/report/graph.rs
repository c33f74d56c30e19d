//! Who talks to whom, as a picture: the layout of a layered graph.
//!
//! Clients stand left of their servers. Edges over several layers go through a bend in each, so that
//! they pass between nodes; within a layer, everything stands near what it is joined to.

/// Width of a node.
pub const WIDTH: f64 = 264.0;
/// Room between layers, where edges and what is written at them go.
const GAP: f64 = 280.0;
/// Height of a node with room for one edge.
const HEIGHT: f64 = 64.0;
/// Room between what stands in one layer.
const SPACE: f64 = 28.0;
/// Room that each edge takes at its node, so that what is written at two does not overlap.
pub const PORT: f64 = 46.0;
/// Room around the picture.
const MARGIN: f64 = 16.0;

/// A place in the picture.
pub type Point = (f64, f64);

/// Where everything goes.
#[derive(Debug)]
pub struct Layout {
    /// Of the whole picture.
    pub width: f64,
    /// Of the whole picture.
    pub height: f64,
    /// Upper left corner and height of each node.
    pub nodes: Vec<(Point, f64)>,
    /// Where each edge goes, from its client to its server.
    pub edges: Vec<Vec<Point>>,
}

/// What stands in a layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Slot {
    /// The node of this number.
    Node(usize),
    /// Where the edge of this number passes.
    Bend(usize),
}

impl Layout {
    /// Of so many nodes, and edges from one to another.
    pub fn new(nodes: usize, edges: &[(usize, usize)]) -> Self {
        let directed = without_cycles(nodes, edges);
        let layer_of = layers(nodes, &directed);
        let mut layers = fill(&layer_of, &directed);
        for _ in 0..4 {
            arrange(&mut layers, &directed);
        }
        place(&layers, edges, &directed)
    }
}

/// The edges, turned round where they would close a cycle; those from a node to itself stay.
fn without_cycles(nodes: usize, edges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut directed: Vec<(usize, usize)> = Vec::new();
    for &(from, to) in edges {
        let closes = from != to && reaches(nodes, &directed, to, from);
        directed.push(if closes { (to, from) } else { (from, to) });
    }
    directed
}

fn reaches(nodes: usize, edges: &[(usize, usize)], from: usize, to: usize) -> bool {
    let mut seen = vec![false; nodes];
    let mut next = vec![from];
    while let Some(node) = next.pop() {
        if node == to {
            return true;
        }
        if !std::mem::replace(&mut seen[node], true) {
            let on = edges.iter().filter(|(from, _)| *from == node);
            next.extend(on.map(|(_, to)| *to));
        }
    }
    false
}

/// The layer of each node: one right of the last of its clients.
fn layers(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut layer = vec![0; nodes];
    // Without cycles no path is longer than there are nodes.
    for _ in 0..nodes {
        for &(from, to) in edges.iter().filter(|(from, to)| from != to) {
            layer[to] = layer[to].max(layer[from] + 1);
        }
    }
    layer
}

fn fill(layer_of: &[usize], edges: &[(usize, usize)]) -> Vec<Vec<Slot>> {
    let count = layer_of.iter().max().map_or(0, |last| last + 1);
    let mut layers = vec![Vec::new(); count];
    for (node, layer) in layer_of.iter().enumerate() {
        layers[*layer].push(Slot::Node(node));
    }
    for (edge, &(from, to)) in edges.iter().enumerate() {
        let between = layer_of[from] + 1..layer_of[to].max(layer_of[from] + 1);
        for layer in &mut layers[between] {
            layer.push(Slot::Bend(edge));
        }
    }
    layers
}

/// What of a layer this edge goes through, or begins or ends at.
fn position(layer: &[Slot], edge: usize, (from, to): (usize, usize)) -> Option<usize> {
    let is_on = |slot: &Slot| match *slot {
        Slot::Node(node) => node == from || node == to,
        Slot::Bend(bend) => bend == edge,
    };
    layer.iter().position(is_on)
}

/// Sorts each layer by the middle of what it is joined to in the one before, and then in the one
/// behind.
fn arrange(layers: &mut [Vec<Slot>], edges: &[(usize, usize)]) {
    let last = layers.len();
    let forwards = (1..last).map(|layer| (layer, layer - 1));
    let backwards = (1..last).rev().map(|layer| (layer - 1, layer));
    for (moved, fixed) in forwards.chain(backwards) {
        let beside = layers[fixed].clone();
        let middle = |slot: &Slot, own: usize| {
            let joined = edges.iter().enumerate().filter(|(edge, ends)| match *slot {
                Slot::Node(node) => ends.0 == node || ends.1 == node,
                Slot::Bend(bend) => bend == *edge,
            });
            let places: Vec<_> = joined
                .filter_map(|(edge, ends)| position(&beside, edge, *ends))
                .collect();
            if places.is_empty() {
                return real(own);
            }
            real(places.iter().sum()) / real(places.len())
        };
        let mut keyed: Vec<_> = layers[moved]
            .iter()
            .enumerate()
            .map(|(own, slot)| (middle(slot, own), *slot))
            .collect();
        keyed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        layers[moved] = keyed.into_iter().map(|(_, slot)| slot).collect();
    }
}

fn place(layers: &[Vec<Slot>], edges: &[(usize, usize)], directed: &[(usize, usize)]) -> Layout {
    let height_of = |slot: &Slot| match *slot {
        Slot::Node(node) => {
            let out = directed.iter().filter(|(from, _)| *from == node).count();
            let into = directed.iter().filter(|(_, to)| *to == node).count();
            HEIGHT.max(real(out.max(into)) * PORT)
        }
        Slot::Bend(_) => PORT,
    };
    let height_of_layer = |layer: &Vec<Slot>| {
        layer.iter().map(height_of).sum::<f64>() + SPACE * real(layer.len().saturating_sub(1))
    };
    let tallest = layers.iter().map(height_of_layer).fold(0.0, f64::max);
    let nodes = layers.iter().flatten();
    let nodes = nodes.filter(|slot| matches!(slot, Slot::Node(_))).count();
    let mut layout = Layout {
        width: 2.0 * MARGIN + real(layers.len()) * (WIDTH + GAP) - GAP,
        height: 2.0 * MARGIN + tallest,
        nodes: vec![((0.0, 0.0), 0.0); nodes],
        edges: Vec::new(),
    };
    let mut bends = vec![Vec::new(); edges.len()];
    for (number, layer) in layers.iter().enumerate() {
        let x = MARGIN + real(number) * (WIDTH + GAP);
        let mut y = MARGIN + (tallest - height_of_layer(layer)) / 2.0;
        for slot in layer {
            let height = height_of(slot);
            match *slot {
                Slot::Node(node) => layout.nodes[node] = ((x, y), height),
                Slot::Bend(edge) => {
                    let middle = y + height / 2.0;
                    bends[edge].extend([(x, middle), (x + WIDTH, middle)]);
                }
            }
            y += height + SPACE;
        }
    }
    for (edge, ends) in directed.iter().enumerate() {
        let mut path = vec![port(&layout, directed, &bends, edge, Side::Right)];
        path.append(&mut bends[edge].clone());
        path.push(port(&layout, directed, &bends, edge, Side::Left));
        if *ends != edges[edge] {
            path.reverse();
        }
        layout.edges.push(path);
    }
    layout
}

/// A side of a node.
#[derive(Clone, Copy)]
enum Side {
    /// Where edges come in.
    Left,
    /// Where edges go out.
    Right,
}

/// Where an edge touches the side of a node: those of one side are in the order of where they go.
fn port(
    layout: &Layout,
    edges: &[(usize, usize)],
    bends: &[Vec<Point>],
    edge: usize,
    side: Side,
) -> Point {
    let end = |edge: usize| match side {
        Side::Left => edges[edge].1,
        Side::Right => edges[edge].0,
    };
    let towards = |edge: usize| {
        let (bend, other) = match side {
            Side::Left => (bends[edge].last(), edges[edge].0),
            Side::Right => (bends[edge].first(), edges[edge].1),
        };
        bend.map_or_else(
            || {
                let ((_, y), height) = layout.nodes[other];
                y + height / 2.0
            },
            |(_, y)| *y,
        )
    };
    let mut beside: Vec<_> = (0..edges.len())
        .filter(|other| end(*other) == end(edge))
        .collect();
    beside.sort_by(|one, other| towards(*one).total_cmp(&towards(*other)));
    let place = beside.iter().position(|other| *other == edge).unwrap_or(0);
    let ((x, y), height) = layout.nodes[end(edge)];
    let middle = real(beside.len() - 1) / 2.0;
    let y = y + height / 2.0 + (real(place) - middle) * PORT;
    match side {
        Side::Left => (x, y),
        Side::Right => (x + WIDTH, y),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a picture of 2^52 nodes is not drawn"
)]
fn real(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x(layout: &Layout, node: usize) -> f64 {
        layout.nodes[node].0.0
    }

    #[test]
    fn clients_stand_left_of_their_servers() {
        let layout = Layout::new(4, &[(2, 0), (0, 1), (2, 1), (3, 1)]);
        assert!(x(&layout, 2) < x(&layout, 0) && x(&layout, 0) < x(&layout, 1));
        assert!(x(&layout, 3) < x(&layout, 1));
    }

    #[test]
    fn nodes_do_not_overlap_and_stay_in_the_picture() {
        let edges: Vec<_> = (0..12).map(|n| (n % 5, 5 + n % 7)).collect();
        let layout = Layout::new(12, &edges);
        for (one, ((x, y), height)) in layout.nodes.iter().enumerate() {
            assert!(*x >= 0.0 && x + WIDTH <= layout.width);
            assert!(*y >= 0.0 && y + height <= layout.height);
            for ((other_x, other_y), other_height) in &layout.nodes[one + 1..] {
                let apart = x.total_cmp(other_x).is_ne()
                    || y + height <= *other_y
                    || other_y + other_height <= *y;
                assert!(apart, "{layout:?}");
            }
        }
    }

    #[test]
    fn edges_lead_from_client_to_server_also_round_a_cycle() {
        let edges = [(0, 1), (1, 2), (2, 0), (1, 0), (1, 1)];
        let layout = Layout::new(3, &edges);
        for ((from, to), path) in edges.iter().zip(&layout.edges) {
            for (node, (px, py)) in [(from, path.first()), (to, path.last())]
                .map(|(node, point)| (node, point.copied().expect("an edge has ends")))
            {
                let ((x, y), height) = layout.nodes[*node];
                assert!(px.total_cmp(&x).is_eq() || px.total_cmp(&(x + WIDTH)).is_eq());
                assert!(y <= py && py <= y + height);
            }
        }
    }

    #[test]
    fn edges_between_the_same_nodes_are_apart() {
        let layout = Layout::new(2, &[(0, 1), (0, 1), (1, 0)]);
        let mut heights: Vec<_> = layout.edges.iter().map(|path| path[0].1).collect();
        heights.sort_by(f64::total_cmp);
        assert!(
            heights.windows(2).all(|pair| pair[1] - pair[0] >= PORT),
            "{layout:?}"
        );
    }

    #[test]
    fn an_edge_over_several_layers_passes_beside_what_stands_between() {
        let layout = Layout::new(3, &[(0, 1), (1, 2), (0, 2)]);
        let [_, (_, y), ..] = layout.edges[2][..] else {
            panic!("no bend: {layout:?}")
        };
        let ((_, top), height) = layout.nodes[1];
        assert!(y < top || y > top + height, "{layout:?}");
    }
}

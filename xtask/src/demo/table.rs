//! The evidence as a table for people.

use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets,
};

use super::evidence::Evidence;

/// Without a terminal nothing says how wide the output may be.
const WIDTH: u16 = 120;

/// One row a claim, coloured on a terminal.
pub fn of(evidence: &[Evidence]) -> Table {
    let mut table = Table::new();
    table
        .load_style(
            presets::UTF8_FULL
                .with_rounded_corners()
                .with_solid_inner_borders(),
        )
        .set_content_arrangement(ContentArrangement::Dynamic);
    let width = table.width().map_or(WIDTH, |width| width.min(WIDTH));
    table.set_width(width);
    for Evidence { claim, seen, holds } in evidence {
        let (mark, colour) = if *holds {
            ("√", Color::Green)
        } else {
            ("×", Color::Red)
        };
        table.add_row([
            Cell::new(mark).fg(colour).add_attribute(Attribute::Bold),
            Cell::new(claim).add_attribute(Attribute::Bold),
            Cell::new(seen),
        ]);
    }
    if let Some(claims) = table.column_mut(1) {
        claims.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(30)));
    }
    table
}

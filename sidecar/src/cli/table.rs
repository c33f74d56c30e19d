//! Tables for people: columns are as wide as their cells, and identities give way when a terminal is
//! narrower.

use std::{
    fmt::{self, Write as _},
    io::{IsTerminal as _, stdout},
};

use ratatui::crossterm::terminal;

use super::output::harmless_line;

/// What is shown of an identity, at least, in columns.
const LEAST: usize = 12;

/// What identities are told by.
const SCHEME: &str = "://";

/// What stands before the identity of a peer that has proved it.
pub(super) const TICK: &str = "√";

/// What stands for nothing.
const NOTHING: &str = "-";

/// Between two columns.
const GAP: &str = "  ";

/// How the cells of a column stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Column {
    /// Words begin at the left.
    Left(&'static str),
    /// Numbers end at the right, so that digits of a kind stand below one another.
    Right(&'static str),
    /// Identities, behind a tick or not, lose their beginning where there is no room: what tells them
    /// apart is the end. Other words stay whole.
    Identity(&'static str),
    /// Words, for a column that is left out while it is empty.
    Rare(&'static str),
}

/// Rows below the names of their columns.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// How many columns there are room for; `None` for as many as are needed.
    width: Option<usize>,
}

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Self::Left(name) | Self::Right(name) | Self::Identity(name) | Self::Rare(name) => name,
        }
    }
}

impl Table {
    pub(super) fn new(columns: impl Into<Vec<Column>>, width: Option<usize>) -> Self {
        Self {
            columns: columns.into(),
            rows: Vec::new(),
            width,
        }
    }

    /// Adds a row; an empty cell is shown as a dash, and no cell ends the line.
    pub(super) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into().into_iter();
        let cells = cells.map(|cell| harmless_line(&cell).into_owned());
        self.rows.push(cells.collect());
    }

    /// Columns that are shown, by their number.
    fn shown(&self) -> impl Iterator<Item = (usize, Column)> {
        let columns = self.columns.iter().copied().enumerate();
        columns.filter(|(number, column)| {
            let is_filled =
                |row: &Vec<String>| row.get(*number).is_some_and(|cell| !cell.is_empty());
            !matches!(column, Column::Rare(_)) || self.rows.iter().any(is_filled)
        })
    }

    /// How wide each column is, those that are not shown included.
    fn widths(&self) -> Vec<usize> {
        let widest = |(number, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(number));
            let cells = cells.map(|cell| width(cell)).max().unwrap_or(0);
            cells.max(column.name().len())
        };
        let mut widths: Vec<_> = self.columns.iter().enumerate().map(widest).collect();
        let shown: Vec<_> = self.shown().collect();
        let gaps = shown.len().saturating_sub(1) * GAP.len();
        while let Some(room) = self.width {
            let needed = shown
                .iter()
                .map(|(number, _)| widths[*number])
                .sum::<usize>()
                + gaps;
            let identities = shown
                .iter()
                .filter(|(_, column)| matches!(column, Column::Identity(_)));
            // The widest one gives way first.
            let gives_way = identities
                .map(|(number, column)| (*number, self.least(*number, *column)))
                .filter(|(number, least)| widths[*number] > *least)
                .max_by_key(|(number, _)| widths[*number]);
            match gives_way {
                Some((number, _)) if needed > room => widths[number] -= 1,
                _ => break,
            }
        }
        widths
    }

    /// The least width of a column of identities.
    fn least(&self, number: usize, column: Column) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(number));
        let words = cells.filter(|cell| !cell.contains(SCHEME));
        let widest = words.map(|cell| width(cell)).max().unwrap_or(0);
        widest.max(column.name().len()).max(LEAST)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let shown: Vec<_> = self.shown().collect();
        let names: Vec<_> = self
            .columns
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        for row in std::iter::once(&names).chain(&self.rows) {
            let mut line = String::new();
            for (place, (number, column)) in shown.iter().enumerate() {
                let cell = row.get(*number).filter(|cell| !cell.is_empty());
                let cell = cell.map_or(NOTHING, String::as_str);
                let width = widths[*number];
                if place > 0 {
                    line.push_str(GAP);
                }
                match column {
                    Column::Right(_) => write!(line, "{cell:>width$}")?,
                    Column::Identity(_) => write!(line, "{:<width$}", fit(cell, width))?,
                    Column::Left(_) | Column::Rare(_) => write!(line, "{cell:<width$}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// How many columns there are room for: `None`, which is any number, unless it is for a terminal.
pub(super) fn room() -> Option<usize> {
    let is_terminal = stdout().is_terminal();
    let (columns, _) = is_terminal.then(|| terminal::size().ok()).flatten()?;
    Some(columns.into())
}

/// A cell of identities in so much room.
fn fit(cell: &str, room: usize) -> String {
    let ticked = cell.strip_prefix(TICK).map(str::trim_start);
    match ticked {
        Some(identity) => format!("{TICK} {}", shorten(identity, room.saturating_sub(2))),
        None => shorten(cell, room),
    }
}

/// The end of an identity, from a `/` on if that leaves a whole segment, behind a mark.
pub(super) fn shorten(identity: &str, room: usize) -> String {
    const CUT: char = '…';
    let length = width(identity);
    if length <= room {
        return identity.to_owned();
    }
    let Some(room) = room.checked_sub(1) else {
        return String::new();
    };
    let end: String = identity.chars().skip(length - room).collect();
    // Behind the two that end the scheme, none begins.
    let is_segment = |at: &usize| end[*at..].starts_with('/') && !end[*at..].starts_with("//");
    let segment = (0..end.len() / 2).find(is_segment);
    format!("{CUT}{}", &end[segment.unwrap_or(0)..])
}

/// How many columns a text takes: what is shown here is one each.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "spiffe://sidecar.local/ns/default/sa/shop";

    #[test]
    fn identities_keep_their_end() {
        assert_eq!(shorten(ID, 41), ID);
        assert_eq!(shorten(ID, 40), "…/sidecar.local/ns/default/sa/shop");
        assert_eq!(shorten(ID, 20), "…/ns/default/sa/shop");
        assert_eq!(shorten(ID, 19), "…/default/sa/shop");
        assert_eq!(shorten(ID, 12), "…/sa/shop");
        assert_eq!(shorten(ID, 4), "…hop");
        assert_eq!(shorten(ID, 1), "…");
        assert_eq!(shorten(ID, 0), "");
    }

    #[test]
    fn a_cell_is_one_line_whatever_it_says() {
        let mut table = Table::new([Column::Left("PEER")], None);
        table.row(["\x1b[2J\nroot".to_owned()]);
        assert_eq!(table.to_string(), "PEER\n\\u001b[2J\\u000aroot\n");
    }

    #[test]
    fn a_table_gives_way_in_identities_alone() {
        let table = |width| {
            let columns = [
                Column::Left("CLIENT"),
                Column::Identity("PEER"),
                Column::Right("BYTES"),
                Column::Rare("FAILED"),
            ];
            let mut table = Table::new(columns, width);
            table.row([
                "198.18.0.1".to_owned(),
                ID.to_owned(),
                "12".to_owned(),
                String::new(),
            ]);
            table.row([
                "198.18.0.1".to_owned(),
                String::new(),
                "1024".to_owned(),
                String::new(),
            ]);
            table.to_string()
        };
        assert_eq!(
            table(None),
            format!(
                "CLIENT      PEER                                       BYTES\n\
                 198.18.0.1  {ID}     12\n\
                 198.18.0.1  -                                           1024\n"
            )
        );
        let narrow = "CLIENT      PEER          BYTES\n\
                      198.18.0.1  …/sa/shop        12\n\
                      198.18.0.1  -              1024\n";
        assert_eq!(table(Some(31)), narrow);
        // It does not get narrower than that.
        assert_eq!(table(Some(10)), narrow);
    }
}

//! Tables for people: columns are as wide as their cells. Where a terminal is narrower, identities give
//! way first, then columns that can be done without, then words.

use std::{
    fmt::{self, Write as _},
    io::{IsTerminal as _, stdout},
};

use ratatui::crossterm::terminal;

use super::output::harmless_line;

/// What is shown of an identity or a word, at least, in columns.
const LEAST: usize = 12;

/// Where something is cut.
const CUT: char = '…';

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
    /// Identities, behind a tick or not, are the first to be shortened where there is no room.
    Identity(&'static str),
    /// Words, for a column that is left out while it is empty.
    Rare(&'static str),
}

/// Rows below the names of their columns.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// Names of columns that can be done without.
    spare: Vec<&'static str>,
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
            spare: Vec::new(),
            width,
        }
    }

    /// Adds a row; an empty cell is shown as a dash, and no cell ends the line.
    pub(super) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into().into_iter();
        let cells = cells.map(|cell| harmless_line(&cell).into_owned());
        self.rows.push(cells.collect());
    }

    /// Columns to do without, by their names, the first one first: where there is no room for them even
    /// if identities are as short as they can be.
    pub(super) fn spare(mut self, columns: impl Into<Vec<&'static str>>) -> Self {
        self.spare = columns.into();
        self
    }

    /// Whether there is room for every column and every word but identities.
    pub(super) fn fits(&self) -> bool {
        let shown = self.filled();
        let widths = self.give_way(&shown, self.widest(), |number, column| {
            self.polite(number, column)
        });
        self.has_room(&shown, &widths)
    }

    /// The columns that are shown, by their number, and how wide each is.
    fn layout(&self) -> (Vec<(usize, Column)>, Vec<usize>) {
        let mut shown = self.filled();
        let mut spare = self.spare.iter();
        loop {
            let widths = self.give_way(&shown, self.widest(), |number, column| {
                self.polite(number, column)
            });
            if self.has_room(&shown, &widths) {
                return (shown, widths);
            }
            let Some(name) = spare.next() else {
                let widths = self.give_way(&shown, widths, |_, column| Self::least(column));
                return (shown, widths);
            };
            shown.retain(|(_, column)| column.name() != *name);
        }
    }

    /// Columns but those that are left out while they are empty.
    fn filled(&self) -> Vec<(usize, Column)> {
        let columns = self.columns.iter().copied().enumerate();
        let filled = columns.filter(|(number, column)| {
            let is_filled =
                |row: &Vec<String>| row.get(*number).is_some_and(|cell| !cell.is_empty());
            !matches!(column, Column::Rare(_)) || self.rows.iter().any(is_filled)
        });
        filled.collect()
    }

    /// How wide each column is if nothing is shortened, those that are not shown included.
    fn widest(&self) -> Vec<usize> {
        let columns = self.columns.iter().enumerate();
        let widest = columns.map(|(number, column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(number));
            let cells = cells.map(|cell| width(cell)).max().unwrap_or(0);
            cells.max(column.name().len())
        });
        widest.collect()
    }

    fn has_room(&self, shown: &[(usize, Column)], widths: &[usize]) -> bool {
        let gaps = shown.len().saturating_sub(1) * GAP.len();
        let columns: usize = shown.iter().map(|(number, _)| widths[*number]).sum();
        self.width.is_none_or(|room| columns + gaps <= room)
    }

    /// Makes the widest columns narrower, as long as there is no room and they have not come to their
    /// least width, which those that do not give way have none of.
    fn give_way(
        &self,
        shown: &[(usize, Column)],
        mut widths: Vec<usize>,
        least: impl Fn(usize, Column) -> Option<usize>,
    ) -> Vec<usize> {
        let bounds = shown
            .iter()
            .filter_map(|(number, column)| Some((*number, least(*number, *column)?)));
        let bounds: Vec<_> = bounds.collect();
        while !self.has_room(shown, &widths) {
            let widest = bounds
                .iter()
                .filter(|(number, least)| widths[*number] > *least)
                .max_by_key(|(number, _)| widths[*number]);
            let Some((number, _)) = widest else {
                break;
            };
            widths[*number] -= 1;
        }
        widths
    }

    /// The least width at which identities alone are shortened.
    fn polite(&self, number: usize, column: Column) -> Option<usize> {
        if !matches!(column, Column::Identity(_)) {
            return None;
        }
        let cells = self.rows.iter().filter_map(|row| row.get(number));
        let words = cells.filter(|cell| !cell.contains(SCHEME));
        let widest = words.map(|cell| width(cell)).max().unwrap_or(0);
        Some(widest.max(column.name().len()).max(LEAST))
    }

    /// The least width at which all words are shortened. Numbers never are.
    fn least(column: Column) -> Option<usize> {
        let is_number = matches!(column, Column::Right(_));
        (!is_number).then(|| column.name().len().max(LEAST))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, widths) = self.layout();
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
                    _ => write!(line, "{:<width$}", fit(cell, width))?,
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
    // Some terminals do not know.
    (columns > 0).then(|| columns.into())
}

/// A cell in so much room.
fn fit(cell: &str, room: usize) -> String {
    // Identities and addresses are told apart by their end, words by their beginning.
    let has_parts = |text: &str| text.contains(['/', ':', '.']);
    match cell.strip_prefix(TICK).map(str::trim_start) {
        Some("") => cell.to_owned(),
        Some(identity) => format!("{TICK} {}", shorten(identity, room.saturating_sub(2))),
        None if has_parts(cell) => shorten(cell, room),
        None => beginning(cell, room),
    }
}

/// As much of a word as there is room for, with a mark where it is cut.
pub(super) fn beginning(word: &str, room: usize) -> String {
    if width(word) <= room {
        return word.to_owned();
    }
    let kept = word.chars().take(room.saturating_sub(1));
    kept.chain([CUT]).collect()
}

/// The end of an identity, from a `/` on if that leaves a whole segment, behind a mark.
pub(super) fn shorten(identity: &str, room: usize) -> String {
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
    fn a_table_gives_way_in_identities_then_in_spare_columns_then_in_words() {
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
        // It does not get narrower than that, for numbers stay and are told from one another.
        assert_eq!(table(Some(10)), narrow);

        let table = |width| {
            let columns = [
                Column::Left("CLIENT"),
                Column::Right("BYTES"),
                Column::Left("REASON"),
                Column::Right("AGE"),
            ];
            let mut table = Table::new(columns, width).spare(["AGE", "BYTES"]);
            let address = "[fd00:5ca:0:1::a]:40000".to_owned();
            table.row([address, "7".into(), "no_peer_option".into(), "5s".into()]);
            (table.fits(), table.to_string())
        };
        let line = |width| {
            let (fits, table) = table(Some(width));
            (fits, table.lines().nth(1).expect("a row").to_owned())
        };
        let whole = "[fd00:5ca:0:1::a]:40000      7  no_peer_option   5s";
        assert_eq!(line(51), (true, whole.into()));
        let young = "[fd00:5ca:0:1::a]:40000      7  no_peer_option";
        assert_eq!(line(50), (false, young.into()));
        let words = "[fd00:5ca:0:1::a]:40000  no_peer_option";
        assert_eq!(line(45), (false, words.into()));
        assert_eq!(line(30), (false, "…0:1::a]:40000  no_peer_option".into()));
        assert_eq!(line(26), (false, "…1::a]:40000  no_peer_opt…".into()));
    }
}

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Cell, Row as Cells, Table},
};

use super::{field::Field, rows::Row};
use crate::cli::{
    table::{TICK, beginning, shorten, width},
    units,
};

/// What is shown of a reason, at least, in columns.
const LEAST_OF_REASON: usize = 5;

/// What the screen shows, and how.
#[derive(Debug)]
pub(super) struct View {
    /// Who is asked.
    title: String,
    palette: Palette,
    rows: Vec<Row>,
    /// Seconds since the sidecar began.
    uptime: f64,
    /// Why there is nothing newer.
    problem: Option<String>,
    sort: Field,
    is_reversed: bool,
    /// Only peers with this in their name are shown.
    filter: String,
    is_typing: bool,
    is_paused: bool,
    /// Rows above the first that is shown.
    above: usize,
}

/// What the terminal and its user like to see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Palette {
    Colours,
    Plain,
}

/// What a key asks for beyond the view.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    GoOn,
    Quit,
}

impl View {
    pub(super) fn new(title: String, palette: Palette) -> Self {
        Self {
            title,
            palette,
            rows: Vec::new(),
            uptime: 0.0,
            problem: None,
            sort: Field::default(),
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            above: 0,
        }
    }

    /// Shows these from now on, unless it is paused.
    pub(super) fn show(&mut self, rows: Vec<Row>, uptime: f64) {
        if !self.is_paused {
            self.rows = rows;
            self.uptime = uptime;
            self.problem = None;
        }
    }

    /// Tells why there is nothing newer.
    pub(super) fn tell(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Wish::Quit,
            code if self.is_typing => self.type_filter(code),
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Left | KeyCode::Char('<') => self.sort = self.sort.step(-1),
            KeyCode::Right | KeyCode::Char('>') => self.sort = self.sort.step(1),
            KeyCode::Up => self.above = self.above.saturating_sub(1),
            KeyCode::Down => self.above = self.above.saturating_add(1),
            KeyCode::Home => self.above = 0,
            _ => {}
        }
        Wish::GoOn
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ]);
        let [title, sums, table, keys] = areas.areas(frame.area());
        frame.render_widget(self.title(), title);
        frame.render_widget(self.sums(), sums);
        self.draw_table(frame, table);
        frame.render_widget(self.keys(), keys);
    }

    fn title(&self) -> Line<'_> {
        let mut spans = vec![
            Span::from("sidecar top ").bold(),
            Span::from(self.title.as_str()),
            Span::from(format!("  up {}", units::age(self.uptime))),
        ];
        let arrow = if self.is_reversed { '▲' } else { '▼' };
        spans.push(Span::from(format!("  by {} {arrow}", self.sort.name())));
        if self.is_paused {
            spans.push(Span::from("  paused").bold());
        }
        Line::from(spans)
    }

    /// All peers in one line, or why they are old.
    fn sums(&self) -> Line<'_> {
        if let Some(problem) = &self.problem {
            return Line::styled(problem.as_str(), self.colour(Color::Red));
        }
        let encrypted = self.rows.iter().filter(|row| row.plain.is_none()).count();
        let open: u64 = self.rows.iter().map(|row| row.open).sum();
        let rates = self.rows.iter().filter_map(|row| row.rates);
        let requests = rates
            .map(|rates| rates.requests)
            .reduce(|sum, more| sum + more);
        let requests = or_dash(requests.map(units::rate).unwrap_or_default());
        let failed: u64 = self.rows.iter().map(|row| row.failed).sum();
        Line::from(format!(
            "{encrypted} of {} encrypted  {open} open  {requests} req/s  {failed} failed",
            self.rows.len()
        ))
    }

    fn keys(&self) -> Line<'_> {
        if self.is_typing {
            return Line::from(format!("peers with: {}_  Enter keep  Esc all", self.filter));
        }
        let filter = match &*self.filter {
            "" => String::new(),
            filter => format!("  with: {filter} (Esc all)"),
        };
        Line::from(format!(
            "q quit  p pause  ←→ sort  r reverse  / filter  ↑↓ scroll{filter}"
        ))
        .dim()
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.sorted();
        let room = usize::from(area.height.saturating_sub(1));
        let above = self.above.min(rows.len().saturating_sub(room));
        let shown = &rows[above..];
        let fields = Field::ALL.map(|field| (field, length(field)));
        // Who it is and how it is secured share what the others leave.
        let others: u16 = fields.iter().filter_map(|(_, length)| *length).sum();
        let gaps = u16::try_from(fields.len() - 2).unwrap_or_default();
        let peer = usize::from(area.width.saturating_sub(others + gaps));
        let fields = fields
            .into_iter()
            .filter(|(field, _)| *field != Field::Secured);
        let (fields, widths): (Vec<_>, Vec<_>) = fields
            .map(|(field, length)| {
                (
                    field,
                    length.map_or(Constraint::Fill(1), Constraint::Length),
                )
            })
            .unzip();
        let head = fields.iter().map(|field| {
            let line = align(*field, Line::from(field.name()));
            Cell::from(if *field == self.sort {
                line.reversed()
            } else {
                line.bold()
            })
        });
        let cells = shown.iter().map(|row| {
            let cell = |field: &Field| match field {
                Field::Peer => Cell::from(self.peer(row, peer)),
                Field::Failed if row.failed > 0 => {
                    Cell::from(align(*field, Line::from(field.cell(row))))
                        .style(self.colour(Color::Red))
                }
                _ => Cell::from(align(*field, Line::from(or_dash(field.cell(row))))),
            };
            Cells::new(fields.iter().map(cell))
        });
        let table = Table::new(cells, widths).header(Cells::new(head));
        frame.render_widget(table, area);
        self.above = above;
    }

    /// A tick and who it is; or who it is not proved to be, and why.
    fn peer(&self, row: &Row, room: usize) -> Line<'static> {
        match &row.plain {
            None => Line::from(vec![
                Span::styled(TICK, self.colour(Color::Green)),
                Span::from(format!(" {}", shorten(&row.peer, room.saturating_sub(2)))),
            ]),
            Some(reason) => {
                // There are few reasons, which are known by their beginning, and many addresses.
                let address = shorten(&row.peer, room.saturating_sub(LEAST_OF_REASON + 1));
                let room = room.saturating_sub(width(&address) + 1);
                Line::from(vec![
                    Span::from(format!("{address} ")),
                    Span::styled(beginning(reason, room), self.colour(Color::Yellow)),
                ])
            }
        }
    }

    fn sorted(&self) -> Vec<Row> {
        let fits = |row: &&Row| row.peer.contains(&self.filter);
        let mut rows: Vec<_> = self.rows.iter().filter(fits).cloned().collect();
        rows.sort_by(|left, right| self.sort.compare(left, right));
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    fn colour(&self, colour: Color) -> Style {
        match self.palette {
            Palette::Colours => Style::new().fg(colour),
            Palette::Plain => Style::new(),
        }
    }
}

/// How wide a column is; `None` for those that take what is left.
const fn length(field: Field) -> Option<u16> {
    match field {
        Field::Peer | Field::Secured => None,
        Field::Direction => Some(3),
        Field::Open | Field::Failed => Some(4),
        _ => Some(5),
    }
}

fn align(field: Field, line: Line<'_>) -> Line<'_> {
    match field {
        Field::Direction | Field::Peer | Field::Secured => line.left_aligned(),
        _ => line.right_aligned(),
    }
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() { "-".into() } else { cell }
}

#[cfg(test)]
mod tests;

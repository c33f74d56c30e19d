mod field;
mod rows;
mod screen;
mod view;

use std::{
    env,
    io::{IsTerminal as _, stdin, stdout},
    thread::sleep,
};

use jiff::Timestamp;

use self::{
    field::Field,
    rows::{Row, rows},
};
use super::{
    endpoint::{self, Endpoint},
    output::{Output, print},
    table::{Table, room},
};
use crate::{config::Timeout, telemetry::Graph};

/// Options of `sidecar top`.
#[derive(clap::Args, Debug)]
pub struct Top {
    #[command(flatten)]
    endpoint: endpoint::OfPod,

    /// How long to wait between one look and the next
    #[arg(long, value_name = "TIME", default_value = "2s")]
    interval: Timeout,

    /// Print one table, over one interval, and leave
    #[arg(long)]
    once: bool,

    /// Show every column and identity whole where a table is printed
    #[arg(long)]
    wide: bool,
}

impl Top {
    /// Shows rates: on the whole screen of a terminal that can, else as one table after another.
    pub fn run(self) -> anyhow::Result<()> {
        let (runtime, endpoint) = self.endpoint.enter()?;
        let interval = self.interval.duration();
        let width = || room().filter(|_| !self.wide);
        let mut before = runtime.block_on(look(&endpoint))?;
        if !self.once && can_draw() {
            return screen::run(runtime, endpoint, interval, before);
        }
        loop {
            sleep(interval);
            let now = runtime.block_on(look(&endpoint))?;
            let mut text = table(&rows(&before, &now), width());
            if !self.once {
                text = format!("{:.0} {}\n{text}\n", Timestamp::now(), endpoint.name());
            }
            if print(&text, Output::Text)?.is_break() || self.once {
                return Ok(());
            }
            before = now;
        }
    }
}

async fn look(endpoint: &Endpoint) -> anyhow::Result<Graph> {
    endpoint.get("/edges").await
}

/// Whether there is a terminal whose cursor can be moved.
fn can_draw() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !is_dumb && stdin().is_terminal() && stdout().is_terminal()
}

fn table(rows: &[Row], width: Option<usize>) -> String {
    if rows.is_empty() {
        return "nobody has talked to this workload or been talked to\n".into();
    }
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|left, right| Field::default().compare(left, right));
    let spare = [Field::New, Field::P50, Field::Out, Field::In].map(Field::name);
    let mut table = Table::new(Field::ALL.map(Field::column), width).spare(spare);
    for row in rows {
        table.row(Field::ALL.map(|field| field.cell(row)));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    #[test]
    fn rows_are_one_line_each() {
        let (before, now) = rows::tests::graphs();
        golden::assert("top-wide.txt", &table(&rows(&before, &now), None));
        golden::assert_narrow("top.txt", &table(&rows(&before, &now), Some(80)));
    }

    #[test]
    fn a_peer_with_a_long_address_has_room_too() {
        let (before, mut now) = rows::tests::graphs();
        for edge in &mut now.edges {
            edge.peer = None;
            edge.client = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".parse().ok();
            edge.tls = "plaintext_refused".into();
        }
        golden::assert_narrow("top-v6.txt", &table(&rows(&before, &now), Some(80)));
    }
}

use std::{
    env,
    sync::mpsc::{Receiver, channel},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::runtime::Runtime;

use super::{
    look,
    rows::rows,
    view::{Palette, View, Wish},
};
use crate::{cli::endpoint::Endpoint, telemetry::Graph};

/// How long what has come waits for the screen, at most.
const BREATH: Duration = Duration::from_millis(50);

/// Fills the screen until somebody quits. A sidecar that goes away is waited for.
pub(super) fn run(
    runtime: Runtime,
    endpoint: Endpoint,
    interval: Duration,
    first: Graph,
) -> anyhow::Result<()> {
    // Keys are heard also while a sidecar takes its time to answer.
    let (sender, looks) = channel();
    thread::spawn(move || {
        loop {
            sleep(interval);
            if sender.send(look(&runtime, endpoint)).is_err() {
                return;
            }
        }
    });
    // https://no-color.org
    let palette = match env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => Palette::Plain,
        _ => Palette::Colours,
    };
    let mut view = View::new(endpoint.address().to_string(), palette);
    view.show(rows(&first, &first), first.uptime);
    let terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let ended = draw(terminal, &mut view, &looks, first);
    ratatui::restore();
    ended
}

fn draw(
    mut terminal: DefaultTerminal,
    view: &mut View,
    looks: &Receiver<anyhow::Result<Graph>>,
    mut before: Graph,
) -> anyhow::Result<()> {
    let mut is_old = true;
    loop {
        if is_old {
            terminal
                .draw(|frame| view.draw(frame))
                .context("cannot draw on the terminal")?;
        }
        is_old = event::poll(BREATH).context("cannot read from the terminal")?;
        if is_old
            && let Event::Key(key) = event::read().context("cannot read from the terminal")?
            && key.kind == KeyEventKind::Press
            && view.press(key) == Wish::Quit
        {
            return Ok(());
        }
        for look in looks.try_iter() {
            is_old = true;
            match look {
                Ok(now) => {
                    view.show(rows(&before, &now), now.uptime);
                    before = now;
                }
                Err(error) => view.tell(error.to_string()),
            }
        }
    }
}

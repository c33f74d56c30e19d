use std::{
    env,
    future::poll_fn,
    sync::mpsc::{Receiver, channel},
    task::Poll,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    look,
    rows::rows,
    view::{Palette, View, Wish},
};
use crate::{cli::endpoint::Endpoint, telemetry::Graph};

/// How long what has come waits for the screen, at most.
const BREATH: Duration = Duration::from_millis(50);

/// What the screen waits for, besides keys.
enum News {
    /// What the sidecar answers.
    Look(anyhow::Result<Graph>),
    /// A signal to end.
    Stop,
}

/// Fills the screen until somebody quits. A sidecar that goes away is waited for.
pub(super) fn run(
    runtime: Runtime,
    endpoint: Endpoint,
    interval: Duration,
    first: Graph,
) -> anyhow::Result<()> {
    // Whoever ends it gets the terminal back as it was.
    let mut signals = {
        let _runtime = runtime.enter();
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
        ];
        let signals: Result<Vec<_>, _> = kinds.into_iter().map(signal).collect();
        signals.context("cannot wait for signals")?
    };
    let name = endpoint.name();
    // Keys are heard also while a sidecar takes its time to answer.
    let (sender, news) = channel();
    thread::spawn(move || {
        runtime.block_on(async move {
            loop {
                let look = async {
                    sleep(interval).await;
                    look(&endpoint).await
                };
                let stop = poll_fn(|context| {
                    let mut signals = signals.iter_mut();
                    let is_stopped = signals.any(|signal| signal.poll_recv(context).is_ready());
                    if is_stopped {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                });
                let new = tokio::select! {
                    look = look => News::Look(look),
                    () = stop => News::Stop,
                };
                if sender.send(new).is_err() {
                    return;
                }
            }
        });
    });
    // https://no-color.org
    let palette = match env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => Palette::Plain,
        _ => Palette::Colours,
    };
    let mut view = View::new(name, palette);
    view.show(rows(&first, &first), first.uptime);
    let terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let ended = draw(terminal, &mut view, &news, first);
    ratatui::restore();
    ended
}

fn draw(
    mut terminal: DefaultTerminal,
    view: &mut View,
    news: &Receiver<News>,
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
        for new in news.try_iter() {
            is_old = true;
            match new {
                News::Look(Ok(now)) => {
                    view.show(rows(&before, &now), now.uptime);
                    before = now;
                }
                News::Look(Err(error)) => view.tell(error.to_string()),
                News::Stop => return Ok(()),
            }
        }
    }
}

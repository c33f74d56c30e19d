use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::endpoint::{self, Endpoint};
use crate::{
    config::Timeout,
    report::{Pair, Report as Drawn, Scrape},
};

/// The time between two scrapes that are made, unless another is asked for.
const INTERVAL: Duration = Duration::from_secs(10);

/// Options of `sidecar report`.
#[derive(clap::Args, Debug)]
pub struct Report {
    #[command(flatten)]
    endpoints: endpoint::Several,

    /// Two scrapes of a sidecar that were kept, instead of scraping; may be given several times
    #[arg(long, value_name = "BEFORE,AFTER", value_parser = files, requires = "interval")]
    from: Vec<(PathBuf, PathBuf)>,

    /// How long to wait between the two scrapes [default: 10s]; with --from, the time between those
    #[arg(long, value_name = "TIME")]
    interval: Option<Timeout>,

    /// Where to write the page; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

impl Report {
    /// Draws the page, and says where it is.
    pub fn run(self) -> anyhow::Result<()> {
        let interval = self.interval.map_or(INTERVAL, Timeout::duration);
        let report = if self.from.is_empty() {
            let (runtime, endpoints) = self.endpoints.enter()?;
            runtime.block_on(scraped(&endpoints, interval))?
        } else {
            kept(&self.from, interval)?
        };
        let html = report.html();
        if self.output == Path::new("-") {
            return std::io::stdout()
                .write_all(html.as_bytes())
                .context("cannot write to standard output");
        }
        let output = self.output.display();
        fs::write(&self.output, html).with_context(|| format!("cannot write {output}"))?;
        eprintln!("the report is in {output}");
        Ok(())
    }
}

/// Scrapes each sidecar twice. One may take its time to answer, so what counts is when it did.
async fn scraped(endpoints: &[Endpoint], interval: Duration) -> anyhow::Result<Drawn> {
    let mut first = Vec::new();
    for endpoint in endpoints {
        first.push(scrape(endpoint).await?);
    }
    let mut pairs = Vec::new();
    for (endpoint, (before, at)) in endpoints.iter().zip(first) {
        sleep_until(at + interval).await;
        let (after, later) = scrape(endpoint).await?;
        pairs.push(Pair {
            source: endpoint.name(),
            before,
            after,
            interval: later - at,
        });
    }
    Ok(Drawn {
        at: Timestamp::now(),
        pairs,
    })
}

/// A scrape, and when it came.
async fn scrape(endpoint: &Endpoint) -> anyhow::Result<(Scrape, Instant)> {
    let text = endpoint.text("/metrics").await?;
    let at = Instant::now();
    let scrape = Scrape::parse(&text)
        .with_context(|| format!("what {} answers is no scrape", endpoint.name()))?;
    Ok((scrape, at))
}

/// Reads what was kept. The page is of the time at which the last file was written.
fn kept(from: &[(PathBuf, PathBuf)], interval: Duration) -> anyhow::Result<Drawn> {
    let mut at = Timestamp::UNIX_EPOCH;
    let mut pairs = Vec::new();
    for (before, after) in from {
        let written = fs::metadata(after).and_then(|metadata| metadata.modified());
        let written = written.with_context(|| format!("cannot read {}", after.display()))?;
        at = at.max(Timestamp::try_from(written).unwrap_or_default());
        pairs.push(Pair {
            source: after.display().to_string(),
            before: read(before)?,
            after: read(after)?,
            interval,
        });
    }
    Ok(Drawn { at, pairs })
}

fn read(path: &Path) -> anyhow::Result<Scrape> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Scrape::parse(&text).with_context(|| format!("{} is no scrape", path.display()))
}

/// Two names of files with a comma between them.
fn files(text: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    match text.split_once(',') {
        Some((before, after)) if !before.is_empty() && !after.is_empty() => {
            Ok((before.into(), after.into()))
        }
        _ => bail!("two files are expected, with a comma between them"),
    }
}

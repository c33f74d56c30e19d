use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::scrape;
use crate::{
    config::Timeout,
    report::{Pair, Report as Drawn, Scrape},
};

/// Options of `sidecar report`.
#[derive(clap::Args, Debug)]
pub struct Report {
    /// A sidecar to scrape, by its admin endpoint; several are drawn in one picture
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4195")]
    admin: Vec<std::net::SocketAddr>,

    /// Two scrapes of a sidecar that were kept, instead of scraping; may be given several times
    #[arg(long, value_name = "BEFORE,AFTER", value_parser = files, conflicts_with = "admin")]
    from: Vec<(PathBuf, PathBuf)>,

    /// The time between the two scrapes
    #[arg(long, value_name = "TIME", default_value = "10s")]
    interval: Timeout,

    /// Where to write the page; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

impl Report {
    /// Draws the page, and says where it is.
    pub fn run(self) -> anyhow::Result<()> {
        let report = if self.from.is_empty() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start a runtime")?;
            runtime.block_on(self.scraped())?
        } else {
            self.kept()?
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

    /// Scrapes each sidecar twice.
    async fn scraped(&self) -> anyhow::Result<Drawn> {
        let interval = self.interval.duration();
        let started = Instant::now();
        let mut before = Vec::new();
        for admin in &self.admin {
            before.push(scrape::scrape(*admin).await?);
        }
        sleep_until(started + interval).await;
        let mut pairs = Vec::new();
        for (admin, before) in self.admin.iter().zip(before) {
            pairs.push(Pair {
                source: admin.to_string(),
                before,
                after: scrape::scrape(*admin).await?,
            });
        }
        Ok(drawn(interval, Timestamp::now(), pairs))
    }

    /// Reads what was kept. The page is of the time at which the last file was written.
    fn kept(&self) -> anyhow::Result<Drawn> {
        let mut at = Timestamp::UNIX_EPOCH;
        let mut pairs = Vec::new();
        for (before, after) in &self.from {
            let written = fs::metadata(after).and_then(|metadata| metadata.modified());
            let written = written.with_context(|| format!("cannot read {}", after.display()))?;
            at = at.max(Timestamp::try_from(written).unwrap_or_default());
            pairs.push(Pair {
                source: after.display().to_string(),
                before: read(before)?,
                after: read(after)?,
            });
        }
        Ok(drawn(self.interval.duration(), at, pairs))
    }
}

fn drawn(interval: Duration, at: Timestamp, pairs: Vec<Pair>) -> Drawn {
    Drawn {
        at,
        interval,
        pairs,
    }
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

use std::num::NonZeroU64;

use anyhow::Context as _;
use form_urlencoded::Serializer;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{signal::ctrl_c, time::sleep};

use super::{
    endpoint::{self, Endpoint},
    output::{self, Output},
};
use crate::{config::Timeout, telemetry::Filter};

/// Options of `sidecar tap`.
#[derive(clap::Args, Debug)]
pub struct Tap {
    #[command(flatten)]
    endpoint: endpoint::OfPod,

    #[command(flatten)]
    filter: Filter,

    /// How to show it; json is one object per line
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// End after so many lines
    #[arg(long, value_name = "NUMBER")]
    max: Option<NonZeroU64>,

    /// End after so long, such as 30s
    #[arg(long = "for", value_name = "TIME")]
    period: Option<Timeout>,
}

impl Tap {
    /// Prints a line about each event as it happens, until it has been long enough.
    pub fn run(self) -> anyhow::Result<()> {
        let (runtime, endpoint) = self.endpoint.enter()?;
        let path = path(&self.filter, self.output);
        let period = self.period.map(Timeout::duration);
        runtime.block_on(async {
            let lines = endpoint.open(&path).await?;
            // Standard output has the lines alone.
            eprintln!("watching {}; Ctrl-C ends it", endpoint.name());
            let enough = async {
                match period {
                    Some(period) => sleep(period).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = print(&endpoint, lines, self.max, self.output) => ended,
                () = enough => Ok(()),
                interrupted = ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
            }
        })
    }
}

fn path(filter: &Filter, output: Output) -> String {
    const PAGE: &str = "/tap?";
    let format = match output {
        Output::Json => "json",
        Output::Text => "text",
    };
    let mut query = Serializer::for_suffix(PAGE.to_owned(), PAGE.len());
    query.append_pair("format", format);
    query.extend_pairs(filter.conditions());
    query.finish()
}

/// Prints whole lines as they come, at most `max`.
async fn print(
    endpoint: &Endpoint,
    mut lines: Incoming,
    max: Option<NonZeroU64>,
    output: Output,
) -> anyhow::Result<()> {
    let mut left = max.map(NonZeroU64::get);
    let mut begun = Vec::new();
    while let Some(Ok(frame)) = lines.frame().await {
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        begun.extend_from_slice(&bytes);
        let mut whole = 0;
        for line in begun.split_inclusive(|byte| *byte == b'\n') {
            if !line.ends_with(b"\n") || left == Some(0) {
                break;
            }
            whole += line.len();
            left = left.map(|left| left - 1);
        }
        let printed: Vec<u8> = begun.drain(..whole).collect();
        let printed = String::from_utf8_lossy(&printed);
        if output::print(&printed, output)?.is_break() {
            return Ok(());
        }
        if left == Some(0) {
            return Ok(());
        }
    }
    anyhow::bail!("the sidecar on {} has ended", endpoint.name())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tap: Tap,
    }

    #[test]
    fn a_filter_is_asked_for_in_the_query() {
        let line = [
            "tap",
            "--kind",
            "denied,failed",
            "--port=80,8000-8099",
            "--status=5xx",
            "--direction=inbound",
            "--peer=spiffe://example.org/*",
        ];
        let Line { tap } = Line::try_parse_from(line).expect("a command line");
        assert_eq!(
            path(&tap.filter, Output::Json),
            "/tap?format=json&kind=denied&kind=failed&direction=inbound&port=80&port=8000-8099\
             &peer=spiffe%3A%2F%2Fexample.org%2F*&status=5xx"
        );
    }

    #[test]
    fn what_is_no_filter_is_named() {
        for (flag, named) in [
            ("--kind=close", "denied, failed, opened, request"),
            ("--port=http", "`http`"),
            ("--status=6xx", "`6xx`"),
            ("--peer=shop", "`shop`"),
            ("--max=0", "0"),
            ("--for=soon", "`soon`"),
        ] {
            let Err(error) = Line::try_parse_from(["tap", flag]) else {
                panic!("{flag} is taken");
            };
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

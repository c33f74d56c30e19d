//! `sidecar webhook`: `sidecar inject`, asked by the API server.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{injection::Injection, run};
use crate::{
    bound,
    config::{LogFilter, LogFormat},
    inject::Unasked,
    logging,
    webhook::{self, Certificate},
};

/// Threads that answer: a pod is a millisecond's work.
const WORKERS: usize = 1;

/// Options of `sidecar webhook`.
#[derive(clap::Args, Debug)]
pub struct Webhook {
    /// Where the API server asks, by HTTPS
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:8443")]
    listen: SocketAddr,

    /// The certificate that the API server verifies, a PEM file; taken again when it changes
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/webhook/tls.crt"
    )]
    certificate: PathBuf,

    /// The private key of the certificate, a PEM file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/webhook/tls.key"
    )]
    key: PathBuf,

    /// Give a sidecar to every pod that the API server asks about, unless it says
    /// `sidecar.mesh/inject: disabled` or `node`; else those get one that say `enabled`
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    injection: Injection,

    /// Our own messages on standard error: a level, or TARGET=LEVEL,… [default: info]
    #[arg(long, env = "SIDECAR_LOG", value_name = "LEVEL")]
    log: Option<LogFilter>,

    /// How our own messages are written [default: text]
    #[arg(long, env = "SIDECAR_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Webhook {
    /// Serves until SIGTERM or SIGINT. What is wrong with the options or the certificate is
    /// refused before it listens.
    pub fn run(self) -> anyhow::Result<()> {
        let options = self.injection.options()?;
        let certificate = Certificate::open(self.certificate, self.key)?;
        let filter = self.log.unwrap_or_default().to_string();
        let messages = logging::init(&filter, self.log_format.unwrap_or_default());
        let _flush = messages.queue();
        let unasked = if self.all {
            Unasked::Inject
        } else {
            Unasked::Skip
        };
        let webhook = webhook::Webhook::new(certificate, options, unasked)?;
        run::runtime(WORKERS)?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let listener = bound::listen(self.listen)
                .and_then(TcpListener::from_std)
                .with_context(|| format!("cannot listen on {}", self.listen))?;
            tracing::info!("the webhook listens on {}", listener.local_addr()?);
            let stop = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            webhook.serve(listener, stop).await;
            Ok(())
        })
    }
}

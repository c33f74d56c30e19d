//! `sidecar ca`: a certificate authority for development, by hand.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use jiff::{Span, SpanRelativeTo, Timestamp};
use spiffe::SpiffeId;

use crate::{
    config::TrustDomainName,
    identity::{Ca, Files},
};

/// Make a development CA, issue a workload's identity from one, or revoke it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a CA: a root certificate and its private key.
    Root {
        /// Where to put it.
        #[arg(long)]
        dir: PathBuf,
        /// The trust domain it issues for.
        #[arg(long, default_value = "sidecar.local")]
        trust_domain: TrustDomainName,
        /// How long it lasts, as in 365d; a hundred years at most.
        #[arg(long, default_value = "365d", value_parser = lifetime)]
        lifetime: Duration,
    },
    /// Issue an identity: a certificate, its private key and the trust bundle, in three files.
    Issue {
        /// Where the CA is.
        #[arg(long)]
        dir: PathBuf,
        /// Who the workload is.
        #[arg(long, value_name = "SPIFFE_ID")]
        id: SpiffeId,
        /// The directory to write to; made if need be. Files of an earlier issue are replaced.
        #[arg(long)]
        out: PathBuf,
        /// How long the identity lasts, as in 24h; no longer than the CA.
        #[arg(long, default_value = "24h", value_parser = lifetime)]
        lifetime: Duration,
    },
    /// Revoke certificates: write a revocation list that names these and no others.
    Revoke {
        /// Where the CA is.
        #[arg(long)]
        dir: PathBuf,
        /// The file to write; one that is there is replaced.
        #[arg(long)]
        out: PathBuf,
        /// When the list is to be replaced, as in 7d.
        #[arg(long, default_value = "7d", value_parser = lifetime)]
        lifetime: Duration,
        /// Certificates that the CA has issued; none to revoke none.
        #[arg(value_name = "CERTIFICATE")]
        certificates: Vec<PathBuf>,
    },
}

impl Args {
    /// Does what was asked for and says what it wrote.
    pub fn run(self) -> anyhow::Result<()> {
        let said = match self.command {
            Command::Root {
                dir,
                trust_domain: TrustDomainName(trust_domain),
                lifetime,
            } => {
                let ca = Ca::create(&dir, &trust_domain, lifetime)?;
                format!(
                    "CA for trust domain {trust_domain} in {}, valid until {}",
                    dir.display(),
                    Timestamp::try_from(ca.not_after())?,
                )
            }
            Command::Issue {
                dir,
                id,
                out,
                lifetime,
            } => {
                let svid = Ca::open(&dir)?.issue(&id, lifetime)?;
                fs::create_dir_all(&out)
                    .with_context(|| format!("cannot make the directory {}", out.display()))?;
                let files = Files::in_dir(&out);
                files.save(&svid)?;
                format!(
                    "{id}, valid until {}\n--certificate {} --key {} --trust-bundle {}",
                    Timestamp::try_from(svid.not_after())?,
                    files.certificate.display(),
                    files.key.display(),
                    files.trust_bundle.display(),
                )
            }
            Command::Revoke {
                dir,
                out,
                lifetime,
                certificates,
            } => {
                Ca::open(&dir)?.revoke(&certificates, lifetime, &out)?;
                format!("{} revoked\n--crl {}", certificates.len(), out.display())
            }
        };
        writeln!(io::stdout(), "{said}").context("cannot write to standard output")
    }
}

/// A day has 24 hours here.
fn lifetime(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a number and a unit, as in 30m, 24h or 365d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Stands in for the program.
    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        ca: Args,
    }

    fn run(arguments: &[&str]) -> anyhow::Result<()> {
        let arguments = [&["sidecar-ca"], arguments].concat();
        Cli::try_parse_from(arguments)?.ca.run()
    }

    fn refusal(arguments: &[&str]) -> String {
        run(arguments).expect_err("refused").to_string()
    }

    #[test]
    fn what_it_issues_can_be_loaded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ca = dir.path().join("ca");
        let out = dir.path().join("web/svid");
        let (ca, out_arg) = (ca.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
        let id = "spiffe://example.org/web";
        run(&["root", "--dir", ca, "--trust-domain", "example.org"]).expect("root");
        for lifetime in ["24h", "5s"] {
            run(&[
                "issue",
                "--dir",
                ca,
                "--id",
                id,
                "--out",
                out_arg,
                "--lifetime",
                lifetime,
            ])
            .expect("issue");
        }
        let svid = Files::in_dir(&out).load().expect("identity");
        assert_eq!(svid.id().to_string(), id);
        assert!(svid.not_after() <= std::time::SystemTime::now() + Duration::from_secs(5));
    }

    #[test]
    fn a_ca_is_never_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ca = dir.path().to_str().expect("UTF-8");
        run(&["root", "--dir", ca]).expect("root");
        assert_eq!(
            refusal(&["root", "--dir", ca]),
            format!("{ca} already holds a development CA; remove it or choose another directory"),
        );
    }

    #[test]
    fn wrong_arguments_are_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ca = dir.path().to_str().expect("UTF-8");
        let issue = |id, lifetime| {
            refusal(&[
                "issue",
                "--dir",
                ca,
                "--out",
                ca,
                "--id",
                id,
                "--lifetime",
                lifetime,
            ])
        };
        let id = "spiffe://sidecar.local/web";
        assert!(issue(id, "soon").contains("'soon'"));
        assert!(issue(id, "0s").contains("'0s'"));
        assert!(issue(id, "1h ago").contains("'1h ago'"));
        assert!(issue("http://sidecar.local/web", "24h").contains("'http://sidecar.local/web'"));
        assert!(issue(id, "24h").contains("`sidecar ca root --dir"));

        run(&["root", "--dir", ca]).expect("root");
        assert!(issue("spiffe://example.org/web", "24h").contains("spiffe://sidecar.local/"));
    }

    #[test]
    fn lifetimes_are_given_as_people_say_them() {
        assert_eq!(lifetime("365d"), Ok(Duration::from_hours(365 * 24)));
        assert_eq!(lifetime("1h 30m"), Ok(Duration::from_mins(90)));
    }
}

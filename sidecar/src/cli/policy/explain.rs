use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use anyhow::bail;
use spiffe::SpiffeId;

use super::answer::Answer;
use crate::{
    cli::{USAGE, output::Output, sentence},
    config,
    policy::{Policy, Port, authorization::Access},
};

/// Options of `sidecar policy explain`.
#[derive(clap::Args, Debug)]
#[group(id = "who", required = true, multiple = false, args = ["from", "unauthenticated"])]
pub(super) struct Explain {
    /// The client's identity, as its certificate names it
    #[arg(long, value_name = "SPIFFE_ID", value_parser = workload)]
    from: Option<SpiffeId>,

    /// The client speaks plaintext
    #[arg(long)]
    unauthenticated: bool,

    /// The destination port
    #[arg(long, value_name = "PORT")]
    to: Port,

    /// The client's address; needed where the policy asks for it
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,

    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    #[command(flatten)]
    config: config::Args,
}

impl Explain {
    /// Prints the answer, which is also the exit code.
    pub(super) fn run(self) -> ExitCode {
        match self.answer() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            // A script must not take this for an answer.
            Err(error) => {
                eprintln!("sidecar: {}", sentence(&error));
                ExitCode::from(USAGE)
            }
        }
    }

    /// Is the client let in?
    fn answer(self) -> anyhow::Result<bool> {
        let policy = self.config.load()?.policy;
        if self.source.is_none()
            && let Some(who) = asks_for_source(&policy)
        {
            bail!("{who} asks where the client is; add --source");
        }
        let access = Access {
            peer: self.from.as_ref(),
            // Nothing depends on it.
            source: self.source.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            port: self.to.number(),
        };
        let answer = Answer::new(&policy, &access);
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
            Output::Text => print!("{}", answer.text(&access)),
        }
        Ok(answer.is_let_in())
    }
}

/// What in the policy depends on where the client is.
fn asks_for_source(policy: &Policy) -> Option<String> {
    if policy.inbound.asks_for_remote() {
        return Some("an override of the inbound mode".to_owned());
    }
    let rule = policy.authorization.as_ref()?.asks_for_source()?;
    Some(format!("the rule `{rule}`"))
}

fn workload(text: &str) -> Result<SpiffeId, &'static str> {
    text.parse::<SpiffeId>()
        .ok()
        .filter(|id| !id.path().is_empty())
        .ok_or("write the SPIFFE ID of a workload, such as spiffe://example.org/ns/default/sa/web")
}

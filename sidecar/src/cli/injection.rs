use anyhow::Context as _;

use crate::{
    config::TrustDomainName,
    inject::{IdentitySource, Options},
};

/// What is added to pods, for `sidecar inject` and `sidecar webhook`. A pod's annotations win.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(id = "injection", multiple = true)]
pub(super) struct Injection {
    /// The image of the containers that are added [default: sidecar and this version]
    #[arg(long, value_name = "IMAGE", help_heading = "Added to pods")]
    image: Option<String>,

    /// Where identities come from: secret=NAME, csi=DRIVER[,ATTRIBUTE=VALUE…],
    /// workload-api=PATH on the node, or dev-ca[=SECRET]
    /// [default: secret=sidecar-{service-account}]
    #[arg(long, value_name = "SOURCE", help_heading = "Added to pods")]
    identity: Option<IdentitySource>,

    /// The trust domain, where a source has to be told [default: sidecar.local]
    #[arg(long, value_name = "NAME", help_heading = "Added to pods")]
    trust_domain: Option<TrustDomainName>,

    /// The `ConfigMap` whose `sidecar.yaml` is the file of settings, in each pod's namespace
    #[arg(long, value_name = "NAME", help_heading = "Added to pods")]
    config_map: Option<String>,

    /// A setting of `sidecar run`, by its key: inbound=strict. Repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, help_heading = "Added to pods")]
    set: Vec<(String, String)>,

    /// Prove that connections are captured before the app starts
    #[arg(long, help_heading = "Added to pods")]
    validate: bool,
}

impl Injection {
    /// What is chosen, with defaults for the rest, unless anything about it is wrong.
    pub(super) fn options(self) -> anyhow::Result<Options> {
        let default = Options::default();
        let options = Options {
            admin_port: default.admin_port,
            image: self.image.unwrap_or(default.image),
            identity: self.identity.unwrap_or(default.identity),
            trust_domain: self
                .trust_domain
                .map_or(default.trust_domain, |name| name.0),
            config_map: self.config_map,
            resources: default.resources,
            validate: self.validate,
            settings: self.set.into_iter().collect(),
        };
        options
            .check()
            .context("what is set cannot be added to pods")?;
        Ok(options)
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

use std::process::ExitCode;

use super::bpffs::BpfFs;
use crate::bpf::removal;

/// Options of `sidecar cleanup`.
#[derive(clap::Args, Debug)]
pub struct Cleanup {
    #[command(flatten)]
    bpffs: BpfFs,
}

impl Cleanup {
    /// Removes every pin of ours, and with it every program, map and link that nothing else holds.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let removal = removal::remove_all(&self.bpffs.path)?;
        if removal.pods.is_empty() {
            println!("nothing of ours was attached");
        }
        for pod in &removal.pods {
            println!("removed what was pinned at {}", pod.display());
        }
        for failure in &removal.failures {
            eprintln!("sidecar: {failure}");
        }
        Ok(if removal.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

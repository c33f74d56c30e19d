use super::bpffs::BpfFs;
use crate::bpf::pins;

/// Options of `sidecar cleanup`.
#[derive(clap::Args, Debug)]
pub struct Cleanup {
    #[command(flatten)]
    bpffs: BpfFs,
}

impl Cleanup {
    /// Removes every pin of ours, and with it every program, map and link that nothing else holds.
    pub fn run(self) -> anyhow::Result<()> {
        let removed = pins::remove_all(&self.bpffs.path)?;
        if removed.is_empty() {
            println!("nothing of ours was attached");
        }
        for generation in removed {
            println!(
                "detached what sidecar {} had attached to cgroup {}",
                generation.pid, generation.cgroup
            );
        }
        Ok(())
    }
}

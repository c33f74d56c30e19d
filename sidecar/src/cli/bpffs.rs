use std::path::PathBuf;

/// Where to look for what is pinned.
#[derive(clap::Args, Debug)]
pub(super) struct BpfFs {
    /// Where the BPF file system is mounted
    #[arg(
        long = "bpffs",
        env = "SIDECAR_BPFFS",
        value_name = "PATH",
        default_value = "/sys/fs/bpf"
    )]
    pub(super) path: PathBuf,
}

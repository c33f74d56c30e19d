use super::Error;

/// The kernel side, compiled by `cargo xtask build-ebpf`; empty when it was not there.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidecar.o"));

/// The kernel side as an ELF object.
pub(super) fn object() -> Result<&'static [u8], Error> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject);
    }
    Ok(OBJECT)
}

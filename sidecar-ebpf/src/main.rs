//! The kernel side: it steers a pod's TCP connections into the proxy and rewrites nothing else.
//!
//! Every decision is counted ([`sidecar_common::Event`]). Programs touch UAPI contexts only,
//! because objects compiled from Rust carry no CO-RE relocations.

#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

mod cgroup_skb;
mod ctx;
mod headers;
mod maps;
mod sk_lookup;
mod sock_addr;
mod sock_ops;
mod statistics;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses any program in which this can be reached.
    loop {}
}

// Some helpers may only be called by programs under a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

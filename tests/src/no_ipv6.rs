//! What a program sees on a kernel that was built or started without IPv6.

use std::{collections::BTreeMap, env::consts::ARCH, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// A filter under which the kernel knows no sockets of IPv6. To turn IPv6 off by sysctl would be
/// something else: sockets can be bound to `::` then.
pub(crate) fn filter() -> BpfProgram {
    let is_ipv6 = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        nix::libc::AF_INET6 as u64,
    );
    let rule = SeccompRule::new(vec![is_ipv6.expect("it is an argument")]);
    let calls = BTreeMap::from([(nix::libc::SYS_socket, vec![rule.expect("a condition")])]);
    let refuse = SeccompAction::Errno(nix::libc::EAFNOSUPPORT as u32);
    let arch = TargetArch::try_from(ARCH).expect("the tests run on it");
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refuse, arch);
    let compiled = filter.expect("the actions differ").try_into();
    compiled.expect("it is short")
}

/// Has the calling thread, and those that it will start, know no IPv6 any more.
pub fn forget_it() -> io::Result<()> {
    apply_filter(&filter()).map_err(io::Error::other)
}

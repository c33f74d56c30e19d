"""Runs a command as the first process of a container: in a cgroup, and in cgroup, pid and mount namespaces, of its own.

    container.py CGROUP [own-tree] [host-tree] [bpffs=DIRECTORY] -- COMMAND...

`own-tree` mounts cgroup v2 as a runtime does, which then shows the container's own cgroup alone; `host-tree` mounts the
machine's tree beside it. The network namespace is the caller's. SIGTERM is passed on, and the command's exit status is ours.
"""

import ctypes
import os
import signal
import subprocess
import sys

NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x20000000  # CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWPID
HOST_TREE = "/run/sidecar/cgroup"
TREE = "/sys/fs/cgroup"


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def become_container(options):
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "tmpfs", "tmpfs", "/run")
    if "host-tree" in options:
        os.makedirs(HOST_TREE)
        mount("--rbind", TREE, HOST_TREE)
    subprocess.run(["umount", "-R", "-l", TREE], check=True)
    if "own-tree" in options:
        mount("-t", "cgroup2", "cgroup2", TREE)
    for option in options:
        name, _, value = option.partition("=")
        if name == "bpffs":
            mount("--bind", value, "/sys/fs/bpf")


def main():
    split = sys.argv.index("--")
    cgroup, *options = sys.argv[1:split]
    os.makedirs(cgroup, exist_ok=True)
    with open(os.path.join(cgroup, "cgroup.procs"), "w") as procs:
        procs.write("0")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAMESPACES) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    child = os.fork()
    if child == 0:
        become_container(options)
        command = sys.argv[split + 1 :]
        os.execvp(command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


main()

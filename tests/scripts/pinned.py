"""Writes a number into the first entry of a pinned array, as no command of the sidecar does.

Usage: pinned.py PATH NUMBER [SIZE]

SIZE is that of the entry in bytes, 4 by default.
"""

import ctypes
import os
import platform
import struct
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
BPF_MAP_UPDATE_ELEM = 2
BPF_OBJ_GET = 7

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    """Calls bpf(2)."""
    result = libc.syscall(SYS_BPF, command, attributes, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


path = ctypes.create_string_buffer(sys.argv[1].encode())
key = ctypes.create_string_buffer(struct.pack("=I", 0))
size = int(sys.argv[3]) if len(sys.argv) > 3 else 4
value = ctypes.create_string_buffer(int(sys.argv[2]).to_bytes(size, sys.byteorder))
fd = bpf(BPF_OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))
pointers = ctypes.addressof(key), ctypes.addressof(value)
bpf(BPF_MAP_UPDATE_ELEM, struct.pack("=IIQQQ", fd, 0, *pointers, 0))

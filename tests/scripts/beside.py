"""A program of somebody else's on a hook that the sidecar uses too, attached until SIGTERM.

Usage: beside.py HOW PLACE translate SERVICE PORT SERVER PORT
       beside.py HOW PLACE steer PORT keep|replace
       beside.py HOW PLACE follow add|set OPERATION,... FLAG [option]

HOW is `link`, or one of the ways that were there before links: `multi`, `override`, `exclusive`. PLACE
is a cgroup, or a network namespace.

`translate` replaces the address of a service in connect(), `steer` has connections to a port come to
a listener of this process, and `follow` asks for callbacks of TCP sockets when one of these operations
has happened to them, and tells what it has counted at each SIGUSR1. Written in instructions, because that
takes no compiler.
"""

import contextlib
import ctypes
import ipaddress
import itertools
import os
import platform
import resource
import signal
import socket
import struct
import sys
import threading

from peer import DEADLINE, report, text

# bpf(2): its number, its commands, and what its commands are told, from linux/bpf.h.
SYSTEM_CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, PROG_LOAD, PROG_ATTACH, PROG_DETACH, LINK_CREATE = 0, 1, 2, 5, 8, 9, 28
ARRAY, SOCKMAP = 2, 15
SOCK_OPS, SOCK_ADDR, SK_LOOKUP = 13, 18, 30
AT_SOCK_OPS, AT_CONNECT4, AT_CONNECT6, AT_SK_LOOKUP = 3, 10, 11, 36
ATTACH = {"exclusive": 0, "override": 1, "multi": 2}

# Helpers.
LOOKUP_ELEM, CB_FLAGS_SET, SK_RELEASE, SK_ASSIGN, STORE_HDR_OPT, RESERVE_HDR_OPT = 1, 59, 86, 124, 143, 144

# What happens to a socket, and which callbacks it can have.
OPERATIONS = {"connect": 3, "connected": 4, "accepted": 5, "state": 10, "listen": 11, "reserve": 14, "write": 15}
STATE_FLAG, PARSE_FLAG, WRITE_FLAG = 4, 16, 64
FLAGS = {"state": STATE_FLAG, "all": STATE_FLAG | PARSE_FLAG, "write": WRITE_FLAG}
TCP_CLOSE = 7
# Another experiment than ours.
OPTION = bytes([254, 6, 0xBE, 0x51, 7, 7])

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    result = libc.syscall(SYSTEM_CALL, command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def address(buffer):
    return ctypes.addressof(buffer)


def code(opcode, to=0, source=0, offset=0, value=0):
    """One instruction; the offset of a jump may be the name of a label."""
    return opcode, to, source, offset, value


def load32(to, source, offset):
    return code(0x61, to, source, offset)


def store32(to, offset, source):
    return code(0x63, to, source, offset)


def move(to, source):
    return code(0xBF, to, source)


def put(to, value):
    """The 32 bits of `value`, whatever its sign."""
    return code(0xB4, to, value=value)


def unless_equal(register, value, label):
    return code(0x56, register, offset=label, value=value)


def if_equal(register, value, label):
    return code(0x16, register, offset=label, value=value)


def call(helper):
    return code(0x85, value=helper)


def go(label):
    return code(0x05, offset=label)


def stack(to, offset):
    return [move(to, 10), code(0x07, to, value=offset)]


def map_of(to, fd):
    """The address of a map, which takes two instructions."""
    return [code(0x18, to, 1, value=fd), code(0)]


def end(verdict):
    return [put(0, verdict), code(0x95)]


def assemble(items):
    """Instructions as the kernel takes them. What is a text is the label of what follows."""
    places, listing = {}, []
    for item in items:
        if isinstance(item, str):
            places[item] = len(listing)
        else:
            listing += item if isinstance(item, list) else [item]
    binary = b""
    for place, (opcode, to, source, offset, value) in enumerate(listing):
        if isinstance(offset, str):
            offset = places[offset] - place - 1
        binary += struct.pack("<BBhI", opcode, source << 4 | to, offset, value & 0xFFFFFFFF)
    return binary


def load(kind, attach_type, name, items):
    binary = assemble(items)
    instructions = ctypes.create_string_buffer(binary, len(binary))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(1 << 16)
    attributes = struct.pack("<IIQQIIQII16sII", kind, len(binary) // 8, address(instructions), address(licence),
                             1, len(log), address(log), 0, 0, name.encode(), 0, attach_type)
    try:
        return bpf(PROG_LOAD, attributes)
    except OSError:
        print(log.value.decode(), file=sys.stderr)
        raise


def new_map(kind, value_size, entries):
    return bpf(MAP_CREATE, struct.pack("<IIII", kind, 4, value_size, entries))


def attach(how, place, program, attach_type):
    """Attaches the program; what detaches it."""
    target = os.open(place, os.O_RDONLY)
    if how == "link":
        link = bpf(LINK_CREATE, struct.pack("<IIII", program, target, attach_type, 0))
        return lambda: os.close(link)
    bpf(PROG_ATTACH, struct.pack("<IIII", target, program, attach_type, ATTACH[how]))
    return lambda: bpf(PROG_DETACH, struct.pack("<III", target, program, attach_type))


def words(ip):
    """An address as contexts have it: words in network order."""
    packed = ipaddress.ip_address(ip).packed
    return [int.from_bytes(packed[at:at + 4], "little") for at in range(0, len(packed), 4)]


def network_port(port):
    return socket.htons(int(port))


def translate(service, port, server, server_port):
    """As Cilium and Calico do it."""
    is_v4 = len(words(service)) == 1
    # Of struct bpf_sock_addr.
    ip, port_offset = (4 if is_v4 else 8), 24
    items = []
    for at, word in enumerate(words(service)):
        items += [load32(2, 1, ip + 4 * at), unless_equal(2, word, "out")]
    items += [load32(2, 1, port_offset), unless_equal(2, network_port(port), "out")]
    for at, word in enumerate(words(server)):
        items += [put(2, word), store32(1, ip + 4 * at, 2)]
    items += [put(2, network_port(server_port)), store32(1, port_offset, 2), "out", end(1)]
    attach_type = AT_CONNECT4 if is_v4 else AT_CONNECT6
    return load(SOCK_ADDR, attach_type, "lb_connect", items), attach_type


def steer(port, insist):
    """Has connections to `port` come to a listener on another, as Cloudflare's tubular does it."""
    listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=serve, args=[listener], daemon=True).start()
    sockets = new_map(SOCKMAP, 8, 1)
    key, value = ctypes.c_uint32(0), ctypes.c_uint64(listener.fileno())
    bpf(MAP_UPDATE, struct.pack("<IIQQQ", sockets, 0, address(key), address(value), 0))
    # Of struct bpf_sk_lookup.
    protocol, local_port = 12, 60
    program = load(SK_LOOKUP, AT_SK_LOOKUP, "dispatcher", [
        move(6, 1),
        load32(2, 6, protocol), unless_equal(2, socket.IPPROTO_TCP, "out"),
        load32(2, 6, local_port), unless_equal(2, int(port), "out"),
        put(2, 0), store32(10, -4, 2),
        map_of(1, sockets), stack(2, -4), call(LOOKUP_ELEM),
        # A pointer: all of it counts.
        code(0x15, 0, offset="out"),
        move(7, 0),
        move(1, 6), move(2, 7), put(3, insist == "replace"), call(SK_ASSIGN),
        move(1, 7), call(SK_RELEASE),
        "out", end(1),
    ])
    return program, AT_SK_LOOKUP


def serve(listener):
    while True:
        sock, peer = listener.accept()
        host = ipaddress.ip_address(peer[0]).ipv4_mapped or peer[0]
        sock.settimeout(DEADLINE)
        with sock:
            try:
                if sock.recv(1024):
                    print(text((str(host), peer[1])), flush=True)
                    sock.sendall(b"steered\n")
            except ConnectionResetError:
                pass


LABELS = itertools.count()

# What `follow` counts, by operation, and beside.
COUNTS = {**OPERATIONS, "written": 20, "kept": 21}


def follow(counts, way, operations, flag, option=None):
    """Asks for callbacks, beside those that are asked for already or in their place."""
    wanted = FLAGS[flag]
    # Of struct bpf_sock_ops.
    operation, state, callbacks = 0, 8, 84
    items = [move(6, 1), load32(7, 6, operation), *count(counts, 7)]
    items += [if_equal(7, OPERATIONS[name], "ask") for name in operations.split(",")]
    items += [
        if_equal(7, OPERATIONS["state"], "state"),
        if_equal(7, OPERATIONS["reserve"], "reserve" if option else "out"),
        if_equal(7, OPERATIONS["write"], "write" if option else "out"),
        go("out"),
        "ask", put(2, wanted),
    ]
    if way == "add":
        items += [load32(3, 6, callbacks), code(0x4F, 2, 3)]
    items += [
        move(1, 6), call(CB_FLAGS_SET), go("out"),
        # Of what closes: has it kept the callbacks that were asked for?
        "state", load32(2, 6, state), unless_equal(2, TCP_CLOSE, "out"),
        load32(2, 6, callbacks), code(0x57, 2, value=wanted), unless_equal(2, wanted, "out"),
        put(7, COUNTS["kept"]), *count(counts, 7), go("out"),
    ]
    if option:
        low, high = struct.unpack("<II", OPTION.ljust(8, b"\0"))
        items += [
            "reserve", move(1, 6), put(2, len(OPTION)), put(3, 0), call(RESERVE_HDR_OPT), go("out"),
            "write", put(2, low), store32(10, -16, 2), put(2, high), store32(10, -12, 2),
            move(1, 6), stack(2, -16), put(3, len(OPTION)), put(4, 0), call(STORE_HDR_OPT),
            unless_equal(0, 0, "out"),
            put(7, COUNTS["written"]), *count(counts, 7),
        ]
    return load(SOCK_OPS, AT_SOCK_OPS, "tcp_watch", [*items, "out", end(1)]), AT_SOCK_OPS


def count(counts, register):
    """Adds one to the counter whose number is in `register`."""
    label = f"counted {next(LABELS)}"
    return [
        store32(10, -4, register), map_of(1, counts), stack(2, -4), call(LOOKUP_ELEM),
        code(0x15, 0, offset=label), put(1, 1), code(0xDB, 0, 1), label,
    ]


def counted(counts, number):
    key, value = ctypes.c_uint32(number), ctypes.c_uint64()
    bpf(MAP_LOOKUP, struct.pack("<IIQQ", counts, 0, address(key), address(value)))
    return value.value


def main():
    how, place, what, *arguments = sys.argv[1:]
    # Of all threads.
    signals = [signal.SIGTERM, signal.SIGUSR1]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    # Before Linux 5.11 maps count as locked memory. Not everywhere may root have more of that.
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, [resource.RLIM_INFINITY] * 2)
    counts = new_map(ARRAY, 8, 32)
    if what == "follow":
        program, attach_type = follow(counts, *arguments)
    else:
        program, attach_type = {"steer": steer, "translate": translate}[what](*arguments)
    detach = attach(how, place, program, attach_type)
    print("attached", file=sys.stderr, flush=True)
    while signal.sigwait(signals) == signal.SIGUSR1:
        report(**{name: counted(counts, number) for name, number in COUNTS.items()})
    detach()


main()

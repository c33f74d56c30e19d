"""Puts a SYN on the wire, from any address to any address.

Usage: wire_syn.py SOURCE DESTINATION MAC PORT
"""

import socket
import struct
import sys

from peer import report
from raw_peer import DEVICE, SYN, checksum


def main():
    source, destination, mac, port = sys.argv[1:]
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    segment = struct.pack("!HHIIBBHHH", 40000, int(port), 1, 0, 5 << 4, SYN, 65535, 0, 0)
    total = checksum(ends + struct.pack("!II", len(segment), 6) + segment)
    segment = segment[:16] + struct.pack("!H", total) + segment[18:]
    if family == socket.AF_INET:
        header = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(segment), 0, 0, 64, 6)
        header += struct.pack("!H", checksum(header + b"\0\0" + ends)) + ends
        kind = b"\x08\x00"
    else:
        header = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + ends
        kind = b"\x86\xdd"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((DEVICE, 0))
        own = sock.getsockname()[4]
        sock.send(bytes.fromhex(mac.replace(":", "")) + own + kind + header + segment)
    report(sent=True)


main()

"""Writes TCP segments by hand, past the TCP of its kernel, in every way that raw sockets offer.

Usage: raw_segment.py OWN_IP4 PEER_IP4 OWN_IP6 PEER_IP6 PORT

Each carries PAYLOAD, and is a SYN, so that a capture takes it for the start of a connection. It
reports for each way the error that sending failed with, or null.
"""

import socket
import struct
import sys

from peer import attempt, report

PAYLOAD = b"violet rhinoceros"
SYN, RST = 2, 4
TCP, UDP, FRAGMENT, DESTINATION_OPTIONS = 6, 17, 44, 60
# A destination option of padding alone: next header TCP, eight bytes long.
PADDING = bytes([TCP, 0, 1, 4, 0, 0, 0, 0])


def segment(port, own_port, flags=SYN, payload=PAYLOAD):
    """A TCP segment without a checksum, which nobody on the way looks at."""
    return struct.pack("!HHIIBBHHH", own_port, port, 1, 0, 5 << 4, flags, 65535, 0, 0) + payload


def v4(own, peer, payload, offset=0, more=False, protocol=TCP):
    """An IPv4 packet; the kernel fills in length and checksum."""
    fragment = (more << 13) | offset
    ends = socket.inet_aton(own) + socket.inet_aton(peer)
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 7, fragment, 64, protocol, 0) + ends + payload


def v6(own, peer, payload, following=TCP):
    """An IPv6 packet."""
    ends = socket.inet_pton(socket.AF_INET6, own) + socket.inet_pton(socket.AF_INET6, peer)
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + ends + payload


def send(family, protocol, peer, packet):
    """Sends a packet from a raw socket; what it failed with."""
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        return attempt(lambda: sock.sendto(packet, (peer, 0)))


def main():
    own4, peer4, own6, peer6, port = sys.argv[1:]
    port = int(port)
    four, six = socket.AF_INET, socket.AF_INET6
    raw = socket.IPPROTO_RAW
    behind = struct.pack("!BBHI", TCP, 0, 8 << 3, 7)
    report(
        of_protocol_tcp4=send(four, TCP, peer4, segment(port, 40001)),
        of_protocol_tcp6=send(six, TCP, peer6, segment(port, 40002)),
        with_header4=send(four, raw, peer4, v4(own4, peer4, segment(port, 40003))),
        with_header6=send(six, raw, peer6, v6(own6, peer6, segment(port, 40004))),
        behind_extension6=send(
            six, raw, peer6, v6(own6, peer6, PADDING + segment(port, 40005), DESTINATION_OPTIONS)
        ),
        first_fragment4=send(
            four, raw, peer4, v4(own4, peer4, segment(port, 40006), more=True)
        ),
        tiny_fragment4=send(four, raw, peer4, v4(own4, peer4, b"violet", more=True)),
        later_fragment4=send(four, raw, peer4, v4(own4, peer4, PAYLOAD, offset=3)),
        later_fragment6=send(six, raw, peer6, v6(own6, peer6, behind + PAYLOAD, FRAGMENT)),
        udp4=send(four, UDP, peer4, struct.pack("!HHHH", 1, 2, 8, 0)),
        udp_fragment4=send(four, raw, peer4, v4(own4, peer4, b"12345678", 3, protocol=UDP)),
        bare_reset4=send(four, TCP, peer4, segment(port, 40007, flags=RST, payload=b"")),
        reset_with_bytes4=send(four, TCP, peer4, segment(port, 40008, flags=RST)),
    )


main()

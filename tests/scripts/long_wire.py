"""A long wire between two ports, with a delay and losses, in the place of a bridge.

Usage: long_wire.py PORT PORT MILLISECONDS [LOST]

Each frame comes out of the other port so many milliseconds later. Of the frames that carry much,
one in LOST never does. Kernels that lack a queueing discipline for this have packet sockets.
"""

import collections
import select
import socket
import sys
import time

from peer import KIB, MIB, report

ETH_P_ALL = 3
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE = 263, 15, 23, 33
LARGEST = 70 * KIB
MUCH = 500

DELAY = int(sys.argv[3]) / 1000
LOST = int(sys.argv[4]) if len(sys.argv) > 4 else 0


def port(name):
    """What comes in by a device, whole: with what is left to do of segmentation and checksums."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * MIB)
    sock.bind((name, ETH_P_ALL))
    return sock


one, other = port(sys.argv[1]), port(sys.argv[2])
across = {one: other, other: one}
# All take the same time, so what came first leaves first.
under_way = collections.deque()
heavy = 0
report(ready=True)
while True:
    wait = max(0, under_way[0][0] - time.monotonic()) if under_way else None
    for sock in select.select(across, [], [], wait)[0]:
        frame = sock.recv(LARGEST)
        heavy += len(frame) > MUCH
        if LOST and len(frame) > MUCH and heavy % LOST == 0:
            continue
        under_way.append((time.monotonic() + DELAY, across[sock], frame))
    while under_way and under_way[0][0] <= time.monotonic():
        _, sock, frame = under_way.popleft()
        sock.send(frame)

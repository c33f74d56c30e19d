"""A long wire between two ports, with a delay, losses and packets that overtake others, in the place of
a bridge.

Usage: long_wire.py PORT PORT MILLISECONDS [LOST [LATE]]

Each frame comes out of the other port so many milliseconds later. Of the frames that carry much, one
in LOST never does. With LATE, little ones are lost as well, and of all frames one in LATE takes three
times as long, so that those behind overtake it. What happens to which frame is drawn from a seed. Kernels
that lack a queueing discipline for this have packet sockets.
"""

import heapq
import itertools
import random
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
LATE = int(sys.argv[5]) if len(sys.argv) > 5 else 0


def port(name):
    """What comes in by a device, whole: with what is left to do of segmentation and checksums."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * MIB)
    sock.bind((name, ETH_P_ALL))
    return sock


def fates():
    """For each frame of which some are lost and some late: whether it is lost, and how long it takes."""
    draw = random.Random(4).random
    for count in itertools.count(1):
        if not LATE:
            yield LOST and count % LOST == 0, DELAY
        else:
            yield draw() < 1 / LOST, DELAY * (3 if draw() < 1 / LATE else 1)


one, other = port(sys.argv[1]), port(sys.argv[2])
across = {one: other, other: one}
under_way, numbers, fate = [], itertools.count(), fates()
report(ready=True)
while True:
    wait = max(0, under_way[0][0] - time.monotonic()) if under_way else None
    for sock in select.select(across, [], [], wait)[0]:
        frame = sock.recv(LARGEST)
        lost, takes = next(fate) if LATE or len(frame) > MUCH else (False, DELAY)
        if lost:
            continue
        # Of two that are due at once, the one that came first leaves first.
        heapq.heappush(under_way, (time.monotonic() + takes, next(numbers), across[sock], frame))
    while under_way and under_way[0][0] <= time.monotonic():
        _, _, sock, frame = heapq.heappop(under_way)
        sock.send(frame)

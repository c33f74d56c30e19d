"""A TCP peer made by hand, that speaks the mesh option and then whatever it likes.

It sends and receives whole frames under an address that its kernel does not own, so that the kernel
does not interfere.

Usage: raw_peer.py client OWN_IP PEER_IP PEER_MAC PORT HEX
       raw_peer.py plain-client OWN_IP PEER_IP PEER_MAC PORT HEX
       raw_peer.py server OWN_IP PEER_IP PEER_MAC PORT HEX

All but the plain client offer or accept the mesh in the handshake. They send HEX, and then report
whether the peer spoke the option too, what it sent, and how it ended the connection.
"""

import socket
import struct
import sys
import time

from peer import DEADLINE, report

DEVICE = "eth0"
FIN, SYN, RST, ACK = 1, 2, 4, 16
MESH = bytes([253, 6, 0x5C, 0xA1, 1, 0])
MSS = bytes([2, 4, 0x05, 0x78])
OPTIONS = MSS + MESH + bytes([1, 1])


def checksum(data):
    """The sum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Peer:
    """One connection, seen from its peer's far end."""

    def __init__(self, own_ip, peer_ip, peer_mac, own_port, peer_port):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self.sock.bind((DEVICE, 0))
        self.own_ip, self.peer_ip = socket.inet_aton(own_ip), socket.inet_aton(peer_ip)
        own_mac = self.sock.getsockname()[4]
        self.ethernet = bytes.fromhex(peer_mac.replace(":", "")) + own_mac + b"\x08\x00"
        self.own_port, self.peer_port = own_port, peer_port
        self.sequence, self.acknowledged = 1000, 0
        self.deadline = time.monotonic() + DEADLINE

    def send(self, flags, options=b"", payload=b""):
        """Sends one segment."""
        offset = (20 + len(options)) // 4
        ports = struct.pack("!HH", self.own_port, self.peer_port)
        numbers = struct.pack("!IIBBH", self.sequence, self.acknowledged, offset << 4, flags, 65535)
        segment = ports + numbers + b"\0\0\0\0" + options + payload
        pseudo = self.own_ip + self.peer_ip + struct.pack("!BBH", 0, 6, len(segment))
        total = struct.pack("!H", checksum(pseudo + segment))
        segment = segment[:16] + total + segment[18:]
        header = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(segment), 0, 0, 64, 6)
        ends = self.own_ip + self.peer_ip
        total = struct.pack("!H", checksum(header + b"\0\0" + ends))
        self.sock.send(self.ethernet + header + total + ends + segment)
        self.sequence += len(payload) + bool(flags & (SYN | FIN))

    def receive(self):
        """Receives one segment of the connection: flags, options and payload."""
        while True:
            self.sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
            packet = self.sock.recv(65536)[14:]
            start, end = (packet[0] & 15) * 4, struct.unpack("!H", packet[2:4])[0]
            if packet[9] != 6 or packet[12:16] != self.peer_ip or packet[16:20] != self.own_ip:
                continue
            segment = packet[start:end]
            source, destination, sequence = struct.unpack("!HHI", segment[:8])
            if destination != self.own_port or self.peer_port not in (None, source):
                continue
            self.peer_port = source
            offset, flags = (segment[12] >> 4) * 4, segment[13]
            payload = segment[offset:]
            if flags & SYN:
                self.acknowledged = sequence + 1
            elif sequence != self.acknowledged and not flags & RST:
                self.send(ACK)
                continue
            self.acknowledged += len(payload) + bool(flags & FIN)
            return flags, segment[20:offset], payload

    def open(self, role):
        """Completes the handshake; tells whether the peer spoke the option."""
        if role != "server":
            self.send(SYN, OPTIONS if role == "client" else MSS)
            _, options, _ = self.receive()
            self.send(ACK)
        else:
            _, options, _ = self.receive()
            self.send(SYN | ACK, OPTIONS)
        return MESH in options

    def end(self):
        """Reads to the end: what it was, and what came before."""
        received = b""
        while True:
            flags, _, payload = self.receive()
            received += payload
            if flags & RST:
                return "reset", received
            if payload or flags & FIN:
                self.send(ACK)
            if flags & FIN:
                return "eof", received


def main():
    role, own_ip, peer_ip, peer_mac, port, garbage = sys.argv[1:]
    if role != "server":
        peer = Peer(own_ip, peer_ip, peer_mac, 40000, int(port))
    else:
        peer = Peer(own_ip, peer_ip, peer_mac, int(port), None)
        report(listening=True)
    meshed = peer.open(role)
    if garbage:
        peer.send(ACK, payload=bytes.fromhex(garbage))
    end, received = peer.end()
    report(meshed=meshed, end=end, received=received.hex())


if __name__ == "__main__":
    main()

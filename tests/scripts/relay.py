"""Relays what a packet filter has redirected to where it was going; a line for each."""
import asyncio
import socket
import struct
import sys

SO_ORIGINAL_DST = 80


def destination(sock):
    if sock.family == socket.AF_INET6:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]
    raw = sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
    return socket.inet_ntoa(raw[4:8]), struct.unpack("!H", raw[2:4])[0]


async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def relay(reader, writer):
    there = destination(writer.get_extra_info("socket"))
    print(*there, flush=True)
    there_reader, there_writer = await asyncio.open_connection(*there)
    await asyncio.gather(
        pump(reader, there_writer), pump(there_reader, writer), return_exceptions=True
    )


async def main(port):
    servers = [
        await asyncio.start_server(relay, host, port) for host in ("0.0.0.0", "::")
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(int(sys.argv[1])))

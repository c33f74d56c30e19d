"""Many connections at once.

Usage: load.py server PORT
       load.py exchange COUNT PORT ADDRESS
       load.py hold COUNT PORT ADDRESS...

A client says in a header how much it will send and wants to get. Both directions run at the same
time, and each side checks what it got: the bytes follow from the header.
"""

import asyncio
import hashlib
import random
import resource
import struct
import sys

from peer import KIB, MIB, report

HEADER = struct.Struct("!III")
BLOCK = 64 * KIB


def content(seed, length):
    """The bytes that belong to a seed."""
    return random.Random(seed).randbytes(length)


async def send(writer, data):
    """Sends with regard to the reader."""
    for start in range(0, len(data), BLOCK):
        writer.write(data[start : start + BLOCK])
        await writer.drain()


async def receive(reader, seed, length):
    """Receives what belongs to a seed; tells whether it did."""
    digest = hashlib.sha256()
    while length:
        data = await reader.read(min(length, BLOCK))
        if not data:
            return False
        digest.update(data)
        length -= len(data)
    return digest


async def serve(reader, writer):
    """Does what the header asks for, and answers whether all went well."""
    seed, up, down = HEADER.unpack(await reader.readexactly(HEADER.size))
    digest, _ = await asyncio.gather(
        receive(reader, seed, up), send(writer, content(seed + 1, down))
    )
    writer.write(digest.digest() if digest else b"\0" * 32)
    await writer.drain()
    # The client closes first, so that it is the one whose ports stay in TIME_WAIT.
    await reader.read()
    writer.close()


async def exchange(address, port, seed):
    """One connection of random size each way; tells whether every byte arrived."""
    sizes = random.Random(seed)
    up, down = (sizes.choice([0, 1, 1000, sizes.randrange(MIB)]) for _ in range(2))
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(HEADER.pack(seed, up, down))
    sent = content(seed, up)
    got, _ = await asyncio.gather(receive(reader, seed + 1, down), send(writer, sent))
    answer = await reader.readexactly(32)
    writer.close()
    await writer.wait_closed()
    whole = got.digest() == hashlib.sha256(content(seed + 1, down)).digest()
    return whole and answer == hashlib.sha256(sent).digest()


async def open_one(address, port, seed):
    """A connection over which a little has gone, still open."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(HEADER.pack(seed, 16, 16))
    await send(writer, content(seed, 16))
    got = await receive(reader, seed + 1, 16)
    await reader.readexactly(32)
    return writer, got and got.digest() == hashlib.sha256(content(seed + 1, 16)).digest()


async def hold(addresses, port, count):
    """Opens all, a batch at a time, and closes none before all are open."""
    held, answered = [], 0
    batch = 250
    for start in range(0, count, batch):
        seeds = range(start, min(start + batch, count))
        opened = await asyncio.gather(
            *(open_one(addresses[seed % len(addresses)], port, seed) for seed in seeds)
        )
        held += [writer for writer, _ in opened]
        answered += sum(bool(right) for _, right in opened)
    open_at_once = sum(not writer.transport.is_closing() for writer in held)
    for writer in held:
        writer.close()
    report(open_at_once=open_at_once, answered=answered)


async def main():
    role, *rest = sys.argv[1:]
    if role == "server":
        server = await asyncio.start_server(serve, None, int(rest[0]), backlog=4096)
        await server.serve_forever()
    count, port, addresses = int(rest[0]), int(rest[1]), rest[2:]
    if role == "exchange":
        all_of_them = (exchange(addresses[0], port, seed * 2) for seed in range(count))
        report(intact=sum(await asyncio.gather(*all_of_them)))
    else:
        await hold(addresses, port, count)


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asyncio.run(main())

"""New connections without end, and streams that stay.

Usage: churn.py server PORT
       churn.py load WORKERS STREAMS PORT ADDRESS

The server sends a line back: the one of a connection that begins with `once` and then closes, all
of one that begins with `stay`. The load reports once the streams are open, and then every hundred
connections of a phase. SIGUSR1 begins the next phase, SIGTERM ends the load. A connection belongs
to the phase in which it began.
"""

import asyncio
import collections
import resource
import signal
import sys

from peer import DEADLINE, report

# What nobody on the way should hear.
SECRET = "violet rhinoceros"
# Between two lines of a stream.
PERIOD = 0.25
STEP = 100


async def serve(reader, writer):
    """Sends back one line, or all of them."""
    try:
        line = await reader.readline()
        while line:
            writer.write(line)
            await writer.drain()
            if line.startswith(b"once"):
                break
            line = await reader.readline()
    except ConnectionError:
        pass
    writer.close()


class Load:
    """What has happened so far."""

    def __init__(self, address, port):
        self.address, self.port = address, port
        self.ended = False
        self.phase = 0
        self.done = collections.Counter()
        self.failed = collections.defaultdict(collections.Counter)
        self.broken = collections.Counter()
        self.lines = 0

    def next_phase(self):
        self.phase += 1

    def end(self):
        self.ended = True

    async def once(self):
        """One connection: a line there and back, and the end."""
        phase, line = self.phase, f"once {SECRET}\n".encode()
        try:
            async with asyncio.timeout(DEADLINE):
                reader, writer = await asyncio.open_connection(self.address, self.port)
                try:
                    writer.write(line)
                    answer = await reader.read()
                finally:
                    writer.close()
            if answer != line:
                raise EOFError(f"{len(answer)} bytes")
        except (OSError, EOFError, TimeoutError) as error:
            self.failed[phase][type(error).__name__] += 1
            # A refusal takes no time, and there may be many.
            await asyncio.sleep(0.01)
            return
        self.done[phase] += 1
        if self.done[phase] % STEP == 0:
            report(phase=phase, done=self.done[phase])

    async def worker(self):
        while not self.ended:
            await self.once()

    async def stream(self, opened):
        """A connection on which lines go there and back until the end."""
        reader, writer = await asyncio.open_connection(self.address, self.port)
        number = 0
        try:
            while not self.ended:
                line = f"stay {SECRET} {number}\n".encode()
                writer.write(line)
                async with asyncio.timeout(DEADLINE):
                    answer = await reader.readline()
                if answer != line:
                    raise EOFError(f"{len(answer)} bytes")
                number += 1
                self.lines += 1
                if number == 1:
                    opened.release()
                await asyncio.sleep(PERIOD)
        except (OSError, EOFError, TimeoutError) as error:
            self.broken[type(error).__name__] += 1
        writer.close()


async def load(workers, streams, port, address):
    state = Load(address, port)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, state.next_phase)
    loop.add_signal_handler(signal.SIGTERM, state.end)
    opened = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(state.stream(opened))
        for _ in range(streams):
            await opened.acquire()
        report(open=streams)
        for _ in range(workers):
            group.create_task(state.worker())
    phases = range(state.phase + 1)
    report(
        done=[state.done[phase] for phase in phases],
        failed=[dict(state.failed[phase]) for phase in phases],
        broken=dict(state.broken),
        lines=state.lines,
    )


async def main():
    role, *rest = sys.argv[1:]
    if role == "server":
        server = await asyncio.start_server(serve, None, int(rest[0]), backlog=4096)
        await server.serve_forever()
    workers, streams, port = (int(number) for number in rest[:3])
    await load(workers, streams, port, rest[3])


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asyncio.run(main())

"""A server that behaves in one of a few ways and reports every connection as a line of JSON.

Usage: server.py BEHAVIOUR PORT[,PORT...] [BIND]
"""

import hashlib
import resource
import signal
import socket
import sys
import threading

from peer import DEADLINE, KIB, abort, drain, read_line, report, text

GREETING = b"hello, the server speaks first\n"
FAREWELL = b"goodbye, the server closes first\n"

released = threading.Event()


def echo(sock):
    """Sends back what it reads, and closes after the client has."""
    digest, count = hashlib.sha256(), 0
    try:
        while data := sock.recv(64 * KIB):
            digest.update(data)
            count += len(data)
            sock.sendall(data)
        end = "eof"
    except (ConnectionResetError, BrokenPipeError):
        end = "reset"
    return {"received": count, "sha256": digest.hexdigest(), "end": end}


def greet(sock):
    """Speaks first, like SMTP or MySQL; then like `echo`."""
    sock.sendall(GREETING)
    return echo(sock)


def digest(sock):
    """Reads to the end, and only then answers: how much it was, and its digest."""
    count, digest, end = drain(sock)
    if end == "eof":
        sock.sendall(f"{count} {digest}\n".encode())
    return {"received": count, "sha256": digest, "end": end}


def farewell(sock):
    """Closes its direction first, and reads on until the client closes the other."""
    sock.sendall(FAREWELL)
    sock.shutdown(socket.SHUT_WR)
    count, digest, end = drain(sock)
    return {"received": count, "sha256": digest, "end": end}


def reset(sock):
    """Reads a line and resets the connection."""
    line = read_line(sock)
    abort(sock)
    return {"received": len(line), "end": "own"}


def stall(sock):
    """Reads nothing until SIGUSR1; then like `digest`."""
    released.wait()
    return digest(sock)


def wait(sock):
    """Sends nothing, whatever it reads, and waits for the client to end it."""
    return {"end": drain(sock)[2]}


BEHAVIOURS = [echo, greet, digest, farewell, reset, stall, wait]


def serve(behaviour, sock, address):
    """Sees one connection through."""
    local = text(sock.getsockname())
    with sock:
        facts = behaviour(sock)
    report(peer=text(address), local=local, **facts)


def listen(host, port):
    """A socket that any number of apps may have."""
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=4096,
        reuse_port=True,
        dualstack_ipv6=host == "::",
    )


def accept(behaviour, listener):
    """Takes one connection after the other, and lets each run by itself."""
    while True:
        sock, address = listener.accept()
        sock.settimeout(DEADLINE)
        threading.Thread(target=serve, args=(behaviour, sock, address), daemon=True).start()


def main():
    behaviour = {function.__name__: function for function in BEHAVIOURS}[sys.argv[1]]
    ports = [int(port) for port in sys.argv[2].split(",")]
    host = sys.argv[3] if len(sys.argv) > 3 else "::"
    signal.signal(signal.SIGUSR1, lambda *_: released.set())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    first, *others = [listen(host, port) for port in ports]
    print("listening", file=sys.stderr, flush=True)
    for listener in others:
        threading.Thread(target=accept, args=(behaviour, listener), daemon=True).start()
    # Here, so that signals find this thread.
    accept(behaviour, first)


main()

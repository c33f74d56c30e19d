"""What the scripts and the snippets in the tests share. Everything is blocking, with a deadline."""

import hashlib
import json
import socket
import struct

# Nothing here takes this long; a socket call that does is a bug, and ends the script.
DEADLINE = 30

KIB = 1024
MIB = 1024 * KIB


def report(**facts):
    """Prints one line of JSON for the test to read."""
    # Whole, also where several threads do so at once.
    print(json.dumps(facts) + "\n", end="", flush=True)


def text(address):
    """A socket address as Rust prints and parses it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dial(host, port, source=None):
    """A connection."""
    return socket.create_connection((host, int(port)), timeout=DEADLINE, source_address=source)


def drain(sock):
    """Reads to the end: how many bytes, their digest, and what the end was."""
    digest, count = hashlib.sha256(), 0
    while True:
        try:
            data = sock.recv(64 * KIB)
        except ConnectionResetError:
            return count, digest.hexdigest(), "reset"
        if not data:
            return count, digest.hexdigest(), "eof"
        digest.update(data)
        count += len(data)


def read(sock, length):
    """Exactly `length` bytes."""
    data = b""
    while len(data) < length:
        more = sock.recv(length - len(data))
        if not more:
            raise EOFError(f"the end came after {len(data)} of {length} bytes")
        data += more
    return data


def read_line(sock):
    """The bytes up to the next newline."""
    line = b""
    while not line.endswith(b"\n"):
        line += read(sock, 1)
    return line.decode().rstrip()


def ending(sock):
    """What comes next: `eof`, `reset`, or the line that the peer has sent."""
    try:
        data = sock.recv(64 * KIB)
    except ConnectionResetError:
        return "reset"
    return data.decode("latin-1").rstrip() if data else "eof"


def converse(host, port, words):
    """Connects, says something, and tells what comes of it, as `ending` does, or `refused`."""
    try:
        with dial(host, port) as sock:
            sock.sendall(words.encode())
            return ending(sock)
    except ConnectionRefusedError:
        return "refused"
    except (ConnectionResetError, BrokenPipeError):
        # A reset may come as early as the end of the handshake.
        return "reset"


def abort(sock):
    """Closes with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def attempt(action):
    """The name of the error that `action` fails with, or None."""
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return None

